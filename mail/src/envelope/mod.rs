//! The envelope: reverse-path, recipients and their ESMTP parameters.
//!
//! What `Display` writes is one line of printable octets without a line end, whatever the fields hold: free text goes out as
//! xtext. Reading it back gives an equal value.
//!
//! [`Sender`] and [`Recipient`] read and print the whole argument of `MAIL FROM:` and `RCPT TO:`; this text is what REST
//! takes in `from` and `to`, what the queue stores and what Batch SMTP carries.

mod argument;
mod error;
#[cfg(test)]
pub(crate) mod strategies;
#[cfg(test)]
mod tests;
mod xtext;

use std::fmt;

use jiff::{SignedDuration, Timestamp};

pub use error::ArgumentError;
pub(crate) use error::shown;

use crate::address::{Address, ReversePath};

/// `BODY=` (RFC 6152, RFC 3030).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// `7BIT`
    SevenBit,
    /// `8BITMIME`
    EightBitMime,
}

/// `RET=` (RFC 3461 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The whole message comes back.
    Full,
    /// Only its headers come back.
    Headers,
}

/// `NOTIFY=` (RFC 3461 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// No notification whatever happens.
    Never,
    /// Notifications for the named cases.
    On {
        /// `SUCCESS`
        success: bool,
        /// `FAILURE`
        failure: bool,
        /// `DELAY`
        delay: bool,
    },
}

/// `BY=` (RFC 2852).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliverBy {
    /// Seconds from the moment at which the command was received; negative when the time is already over. At most nine digits.
    pub seconds: i32,
    /// What happens when the time is over.
    pub mode: DeliverByMode,
    /// Whether every relay is to be reported (`T`).
    pub trace: bool,
}

/// What happens to a mail whose time (`BY=`) is over (RFC 2852 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliverByMode {
    /// `R`: it is returned.
    Return,
    /// `N`: its sender is told, and it is tried on.
    Notify,
}

/// The parameters of `MAIL FROM:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// `BODY=`
    pub body: Option<Body>,
    /// `SIZE=` in octets (RFC 1870).
    pub size: Option<u64>,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
    /// `RET=`
    pub ret: Option<Ret>,
    /// `ENVID=`, decoded from xtext (RFC 3461 section 4.4).
    pub envid: Option<String>,
    /// `MT-PRIORITY=`, -9 to 9 (RFC 6710).
    pub mt_priority: Option<i8>,
    /// `BY=`
    pub deliver_by: Option<DeliverBy>,
}

/// The parameters of `RCPT TO:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParameters {
    /// `NOTIFY=`
    pub notify: Option<Notify>,
    /// `ORCPT=` as address type and address, decoded from xtext or utf-8-addr-xtext (RFC 3461 section 4.2, RFC 6533).
    pub orcpt: Option<(String, String)>,
}

/// The argument of `MAIL FROM:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Where failures are reported.
    pub path: ReversePath,
    /// Its parameters.
    pub parameters: MailParameters,
}

/// The argument of `RCPT TO:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The forward-path.
    pub address: Address,
    /// Its parameters.
    pub parameters: RcptParameters,
}

/// One transaction's envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// `MAIL FROM:`
    pub sender: Sender,
    /// `RCPT TO:`, in order.
    pub recipients: Vec<Recipient>,
}

impl DeliverBy {
    /// When the time is over for a mail whose command was received at `from`.
    pub fn deadline(self, from: Timestamp) -> Timestamp {
        let time = SignedDuration::from_secs(i64::from(self.seconds));
        // Nine digits are 32 years: out of range for clocks that are wrong beyond repair only.
        from.checked_add(time).unwrap_or(from)
    }

    /// The same time over at `deadline`, counted from `from`: whole seconds, rounded down, within what the parameter can say (nine
    /// digits; with mode R at least one second, so ask for an end that is past before).
    pub fn counted_from(self, from: Timestamp, deadline: Timestamp) -> Self {
        const MOST: i64 = 999_999_999;
        let left = deadline.as_millisecond().saturating_sub(from.as_millisecond());
        let least = match self.mode {
            DeliverByMode::Return => 1,
            DeliverByMode::Notify => -MOST,
        };
        let seconds = left.div_euclid(1000).clamp(least, MOST);
        Self {
            seconds: i32::try_from(seconds).unwrap_or_default(),
            ..self
        }
    }
}

impl Envelope {
    /// Whether an address in it needs SMTPUTF8 (RFC 6531), or the sender asked for it.
    pub fn needs_smtputf8(&self) -> bool {
        self.sender.parameters.smtputf8 || self.has_international_address()
    }

    /// Whether an address in it is not ASCII.
    pub fn has_international_address(&self) -> bool {
        let from = self.sender.path.address();
        let to = self.recipients.iter().map(|recipient| &recipient.address);
        from.into_iter().chain(to).any(|address| !address.is_ascii())
    }

    /// Whether a parameter of the DSN extension (RFC 3461) is used.
    pub fn uses_dsn(&self) -> bool {
        let sender = &self.sender.parameters;
        sender.ret.is_some()
            || sender.envid.is_some()
            || self.recipients.iter().any(|recipient| {
                recipient.parameters.notify.is_some() || recipient.parameters.orcpt.is_some()
            })
    }
}

impl Sender {
    /// A sender without parameters.
    pub fn new(path: ReversePath) -> Self {
        Self {
            path,
            parameters: MailParameters::default(),
        }
    }
}

impl Recipient {
    /// A recipient without parameters.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            parameters: RcptParameters::default(),
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SevenBit => "7BIT",
            Self::EightBitMime => "8BITMIME",
        })
    }
}

impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        })
    }
}

impl fmt::Display for Notify {
    /// `NEVER`, or the cases with commas between them; no case at all is `NEVER` too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::On {
            success,
            failure,
            delay,
        } = *self
        else {
            return f.write_str("NEVER");
        };
        let cases: Vec<&str> = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")]
            .into_iter()
            .filter_map(|(wanted, name)| wanted.then_some(name))
            .collect();
        f.write_str(if cases.is_empty() { "NEVER" } else { "" })?;
        f.write_str(&cases.join(","))
    }
}

impl fmt::Display for DeliverBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            DeliverByMode::Return => "R",
            DeliverByMode::Notify => "N",
        };
        let trace = if self.trace { "T" } else { "" };
        write!(f, "{};{mode}{trace}", self.seconds)
    }
}

impl fmt::Display for MailParameters {
    /// Each parameter behind a space, in fixed order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(body) = self.body {
            write!(f, " BODY={body}")?;
        }
        if let Some(size) = self.size {
            write!(f, " SIZE={size}")?;
        }
        if self.smtputf8 {
            f.write_str(" SMTPUTF8")?;
        }
        if let Some(ret) = self.ret {
            write!(f, " RET={ret}")?;
        }
        if let Some(envid) = &self.envid {
            write!(f, " ENVID={}", xtext::encode(envid))?;
        }
        if let Some(priority) = self.mt_priority {
            write!(f, " MT-PRIORITY={}", priority.clamp(-9, 9))?;
        }
        if let Some(by) = self.deliver_by {
            write!(f, " BY={by}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RcptParameters {
    /// Each parameter behind a space, in fixed order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(notify) = self.notify {
            write!(f, " NOTIFY={notify}")?;
        }
        if let Some((kind, address)) = &self.orcpt {
            let kind: String = kind.chars().filter(|c| xtext::is_type_character(*c)).collect();
            write!(f, " ORCPT={kind};{}", xtext::encode_address(&kind, address))?;
        }
        Ok(())
    }
}

impl fmt::Display for Sender {
    /// `<a@b> BODY=8BITMIME ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>{}", self.path, self.parameters)
    }
}

impl fmt::Display for Recipient {
    /// `<a@b> NOTIFY=FAILURE ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>{}", self.address, self.parameters)
    }
}
