//! What the far end of a path takes, by agreement: nobody can ask it (draft-many-tiptop-email: both ends are configured).

use lightpost_config::{Section, Size};
use lightpost_mail::{Envelope, convert::Limits};

/// No way of mail takes less (RFC 5321 section 4.5.3.1.6, without the CRLF).
const LINE_MIN: u64 = 998;
/// Extensions that a path can lack, as they are written.
const KEYWORDS: [&str; 5] = ["8BITMIME", "SMTPUTF8", "DSN", "MT-PRIORITY", "DELIVERBY"];
/// The bits of [`Accepts::terms`]; they stand in databases.
const EIGHT_BIT: u32 = 1;
const DSN: u32 = 2;
const MT_PRIORITY: u32 = 4;
const DELIVER_BY: u32 = 8;

/// What the gateways of a path take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepts {
    /// 8BITMIME: octets above 127.
    pub eight_bit: bool,
    /// SMTPUTF8: addresses and headers beyond ASCII.
    pub smtputf8: bool,
    /// DSN: NOTIFY, ORCPT, RET and ENVID.
    pub dsn: bool,
    /// MT-PRIORITY.
    pub mt_priority: bool,
    /// DELIVERBY.
    pub deliver_by: bool,
    /// Octets of a mail.
    pub max_message: Option<u64>,
    /// Octets of a line.
    pub max_line: Option<u64>,
    /// What is converted that needs more.
    pub convert: Convert,
}

/// Which mails may be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Convert {
    /// None: what needs more is refused.
    Off,
    /// Those without any signature.
    Unsigned,
    /// Those with a DKIM signature, too, which does not fit them any more.
    Dkim,
    /// Signed and encrypted parts (RFC 1847), too.
    All,
}

impl Accepts {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let listed = section.get::<Vec<String>>("accepts");
        for keyword in listed.iter().flatten() {
            if !KEYWORDS.iter().any(|known| known.eq_ignore_ascii_case(keyword)) {
                section.wrong(
                    "accepts",
                    format!(
                        "\"{}\" is not one of {}",
                        keyword.escape_debug(),
                        KEYWORDS.join(", ")
                    ),
                    "list what the gateways of the path take; a limit of SIZE is `max_message`".into(),
                );
            }
        }
        let takes = |wanted: &str| {
            listed
                .as_ref()
                .is_none_or(|listed| listed.iter().any(|keyword| keyword.eq_ignore_ascii_case(wanted)))
        };
        if takes("SMTPUTF8") && !takes("8BITMIME") {
            section.wrong(
                "accepts",
                "has SMTPUTF8 without 8BITMIME, which it needs (RFC 6531 section 3.1)".into(),
                "list both, or neither".into(),
            );
        }
        let max_line = section.get::<u64>("max_line");
        if max_line.is_some_and(|line| line < LINE_MIN) {
            section.wrong(
                "max_line",
                format!("no way of mail takes less than {LINE_MIN} octets"),
                format!("write {LINE_MIN} or more, or leave it out"),
            );
        }
        let max_message = section.get::<Size>("max_message").map(|size| size.0);
        if max_message == Some(0) {
            section.wrong(
                "max_message",
                "is zero".into(),
                "write what the gateways take, such as \"10MB\"".into(),
            );
        }
        let convert = section.parse(
            "convert",
            "write \"off\", \"unsigned\", \"dkim\" or \"all\"",
            |text| match text {
                "off" => Ok(Convert::Off),
                "unsigned" => Ok(Convert::Unsigned),
                "dkim" => Ok(Convert::Dkim),
                "all" => Ok(Convert::All),
                _ => Err("is not a choice".into()),
            },
        );
        Self {
            eight_bit: takes("8BITMIME"),
            smtputf8: takes("SMTPUTF8"),
            dsn: takes("DSN"),
            mt_priority: takes("MT-PRIORITY"),
            deliver_by: takes("DELIVERBY"),
            max_message,
            max_line,
            convert: convert.unwrap_or(Convert::Dkim),
        }
    }

    /// What a body has to fit.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            eight_bit: self.eight_bit,
            line: self.max_line.unwrap_or(u64::MAX),
        }
    }

    /// What both take.
    pub(crate) fn and(self, other: Self) -> Self {
        let least = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        Self {
            eight_bit: self.eight_bit && other.eight_bit,
            smtputf8: self.smtputf8 && other.smtputf8,
            dsn: self.dsn && other.dsn,
            mt_priority: self.mt_priority && other.mt_priority,
            deliver_by: self.deliver_by && other.deliver_by,
            max_message: least(self.max_message, other.max_message),
            max_line: least(self.max_line, other.max_line),
            convert: self.convert.min(other.convert),
        }
    }

    /// What of it shapes an envelope ([`Accepts::trim`]), as one number.
    pub(crate) fn terms(&self) -> u32 {
        let bits = [
            (self.eight_bit, EIGHT_BIT),
            (self.dsn, DSN),
            (self.mt_priority, MT_PRIORITY),
            (self.deliver_by, DELIVER_BY),
        ];
        bits.iter().filter(|(takes, _)| *takes).map(|(_, bit)| bit).sum()
    }

    /// The same on other terms.
    pub(crate) fn on(self, terms: u32) -> Self {
        let takes = |bit| terms & bit != 0;
        Self {
            eight_bit: takes(EIGHT_BIT),
            dsn: takes(DSN),
            mt_priority: takes(MT_PRIORITY),
            deliver_by: takes(DELIVER_BY),
            ..self
        }
    }

    /// Takes out of an envelope what the far end does not understand and need not: what it would be asked to report is reported here
    /// (RFC 3461 section 5.2.2).
    pub(crate) fn trim(&self, envelope: &mut Envelope) {
        let parameters = &mut envelope.sender.parameters;
        if !self.dsn {
            (parameters.ret, parameters.envid) = (None, None);
            for recipient in &mut envelope.recipients {
                recipient.parameters = lightpost_mail::envelope::RcptParameters::default();
            }
        }
        if !self.mt_priority {
            parameters.mt_priority = None;
        }
        if !self.deliver_by {
            parameters.deliver_by = None;
        }
        if !self.eight_bit {
            parameters.body = None;
        }
    }
}
