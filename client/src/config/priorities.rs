//! `[[priority]]`: which mail goes first.

use lightpost_config::{Section, Size};
use lightpost_mail::{Address, ReversePath};

use super::{Pattern, sender_key};

/// Priorities of MT-PRIORITY (RFC 6710 section 2).
const RANGE: std::ops::RangeInclusive<i32> = -9..=9;

/// `[[priority]]`: all of its conditions have to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PriorityRule {
    /// The reverse-path.
    pub sender: Option<From>,
    /// Octets that the mail has more of.
    pub larger_than: Option<u64>,
    /// Octets that the mail has fewer of.
    pub smaller_than: Option<u64>,
    /// A field of its header section.
    pub header: Option<Field>,
    /// The priority, from -9 to 9.
    pub priority: i8,
    /// Whether it counts although the sender has said MT-PRIORITY.
    pub always: bool,
}

/// Whose mail a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// This address, its local part in lower case.
    Address(String),
    /// Everybody at these domains.
    Domains(Pattern),
}

/// A header field that is there, or that has a text in its value; upper and lower case are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, in lower case.
    pub name: String,
    /// What stands in its value, in lower case.
    pub text: String,
}

impl PriorityRule {
    /// Whether all that can be told without the mail's header section holds.
    pub(crate) fn fits(&self, sender: &ReversePath, size: u64) -> bool {
        let from = |wanted: &From| match (wanted, sender.address()) {
            (From::Address(wanted), Some(address)) => *wanted == sender_key(address),
            (From::Domains(pattern), Some(address)) => pattern.fits(&address.destination()).is_some(),
            (From::Domains(Pattern::Any), None) => true,
            (_, None) => false,
        };
        self.sender.as_ref().is_none_or(from)
            && self.larger_than.is_none_or(|limit| size > limit)
            && self.smaller_than.is_none_or(|limit| size < limit)
    }
}

impl Field {
    /// Whether a field with this name and value is meant.
    pub(crate) fn fits(&self, name: &[u8], value: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.name.as_bytes())
            && String::from_utf8_lossy(value).to_lowercase().contains(&self.text)
    }

    fn parse(text: &str) -> Option<Self> {
        let (name, text) = text.split_once(':').unwrap_or((text, ""));
        let fine = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic());
        fine.then(|| Self {
            name: name.to_ascii_lowercase(),
            text: text.trim().to_lowercase(),
        })
    }
}

/// Reads every `[[priority]]`.
pub(super) fn read(root: &Section<'_>) -> Vec<PriorityRule> {
    root.each("priority").iter().filter_map(one).collect()
}

fn one(section: &Section<'_>) -> Option<PriorityRule> {
    let sender = section.parse(
        "sender",
        "write an address, a domain, \"*.earth.example\" for all below it, or \"*\"",
        |text| match (Pattern::parse(text), Address::parse(text)) {
            (Some(pattern), _) => Ok(From::Domains(pattern)),
            (None, Ok(address)) => Ok(From::Address(sender_key(&address))),
            (None, Err(error)) => Err(error.to_string()),
        },
    );
    let header = section.parse(
        "header",
        "write a field's name, or name, colon and text: \"Precedence: bulk\"",
        |text| Field::parse(text).ok_or_else(|| "is not a header field".to_owned()),
    );
    let size = |key: &str| section.get::<Size>(key).map(|size| size.0);
    let (larger_than, smaller_than) = (size("larger_than"), size("smaller_than"));
    if let (Some(larger), Some(smaller)) = (larger_than, smaller_than)
        && larger.saturating_add(1) >= smaller
    {
        section.wrong(
            "larger_than",
            "no mail is larger than this and smaller than `smaller_than`".into(),
            "exchange them, or leave one out".into(),
        );
    }
    let priority = section.require::<i32>("priority");
    if let Some(priority) = priority.filter(|priority| !RANGE.contains(priority)) {
        section.wrong(
            "priority",
            format!("{priority} is none"),
            "write a number from -9 to 9; 0 is that of mail without a rule".into(),
        );
    }
    Some(PriorityRule {
        sender,
        larger_than,
        smaller_than,
        header,
        priority: i8::try_from(priority?).ok()?,
        always: section.get_or("always", false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_together() {
        let rule = PriorityRule {
            sender: Some(From::Domains(Pattern::parse("*.earth.example").unwrap())),
            larger_than: Some(100),
            smaller_than: Some(200),
            header: None,
            priority: -3,
            always: false,
        };
        let any = PriorityRule {
            sender: Some(From::Domains(Pattern::Any)),
            ..rule.clone()
        };
        let one = PriorityRule {
            sender: Some(From::Address("alice@ops.earth.example".into())),
            ..rule.clone()
        };
        for (rule, sender, size, expected) in [
            (&rule, "a@ops.earth.example", 150, true),
            (&rule, "a@ops.earth.example", 100, false),
            (&rule, "a@ops.earth.example", 200, false),
            (&rule, "a@earth.example", 150, false),
            (&rule, "", 150, false),
            (&any, "", 150, true),
            (&one, "Alice@OPS.earth.example", 150, true),
            (&one, "bob@ops.earth.example", 150, false),
        ] {
            let path = format!("<{sender}>")
                .parse::<lightpost_mail::Sender>()
                .unwrap()
                .path;
            assert_eq!(rule.fits(&path, size), expected, "{sender} {size}");
        }
    }

    #[test]
    fn a_field_by_name_or_by_text() {
        let bulk = Field::parse("Precedence: Bulk").unwrap();
        assert!(bulk.fits(b"PRECEDENCE", b" junk, bulk"));
        assert!(!bulk.fits(b"Precedence", b" list"));
        assert!(!bulk.fits(b"X-Precedence", b" bulk"));
        assert!(Field::parse("List-Id").unwrap().fits(b"list-id", b" <a.b>"));
        assert_eq!(Field::parse(": x"), None);
        assert_eq!(Field::parse("a b: x"), None);
    }
}
