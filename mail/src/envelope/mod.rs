//! The envelope: reverse-path, recipients and their ESMTP parameters.
//!
//! [`Sender`] and [`Recipient`] read and print the whole argument of `MAIL FROM:` and `RCPT TO:`; this text is what REST
//! takes in `from` and `to`, what the queue stores and what Batch SMTP carries.

use std::{fmt, str::FromStr};

use crate::address::{Address, AddressError, ReversePath};

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

/// Why an argument of `MAIL FROM:` or `RCPT TO:` is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// The path is not an address in angle brackets.
    #[error("\"{path}\" {error}")]
    Path {
        /// What was given.
        path: String,
        /// Why it is none.
        error: AddressError,
    },
    /// A parameter that nobody here knows.
    #[error("the parameter {0} is not known")]
    UnknownParameter(String),
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

impl FromStr for Sender {
    type Err = ArgumentError;
    /// Reads `<a@b> SIZE=10 ...`; a bare address without brackets and parameters is taken too.
    fn from_str(_text: &str) -> Result<Self, ArgumentError> {
        unimplemented!()
    }
}

impl FromStr for Recipient {
    type Err = ArgumentError;
    /// Reads `<a@b> NOTIFY=NEVER ...`; a bare address without brackets and parameters is taken too.
    fn from_str(_text: &str) -> Result<Self, ArgumentError> {
        unimplemented!()
    }
}

impl fmt::Display for Sender {
    /// `<a@b> BODY=8BITMIME ...`
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}

impl fmt::Display for Recipient {
    /// `<a@b> NOTIFY=FAILURE ...`
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}
