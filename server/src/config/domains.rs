//! Patterns of domains: `moon.example`, `*.moon.example`, `*`.

use lightpost_config::Section;
use lightpost_mail::Address;

/// One pattern. Compared with a destination (lower-case A-labels, see [`Address::destination`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `*`: every domain.
    Any,
    /// `moon.example`: this domain only.
    Exact(String),
    /// `*.moon.example`: everything below it, not the domain itself. Held with its leading dot.
    Below(String),
}

impl Pattern {
    /// Reads a pattern; U-labels become A-labels.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("*.") {
            _ if text == "*" => Some(Self::Any),
            Some(domain) => Some(Self::Below(format!(".{}", destination(domain)?))),
            None => Some(Self::Exact(destination(text)?)),
        }
    }

    /// How well it matches: longer is better, and an exact domain is better than everything below a shorter one.
    pub fn matches(&self, destination: &str) -> Option<usize> {
        match self {
            Self::Any => Some(0),
            Self::Exact(domain) => (domain == destination).then_some(usize::MAX),
            Self::Below(suffix) => (destination.len() > suffix.len()
                && destination.ends_with(suffix.as_str()))
            .then_some(suffix.len()),
        }
    }
}

/// A list of patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domains(pub Vec<Pattern>);

impl Domains {
    /// Whether one of them matches.
    pub fn contain(&self, destination: &str) -> bool {
        self.0
            .iter()
            .any(|pattern| pattern.matches(destination).is_some())
    }
}

/// Reads the list `key`; wrong patterns are noted.
pub(super) fn read(section: &Section<'_>, key: &str) -> Option<Domains> {
    let texts: Vec<String> = section.get(key)?;
    let mut patterns = Vec::new();
    for text in texts {
        match Pattern::parse(&text) {
            Some(pattern) => patterns.push(pattern),
            None => wrong(section, key, &text),
        }
    }
    Some(Domains(patterns))
}

pub(super) fn wrong(section: &Section<'_>, key: &str, text: &str) {
    section.wrong(
        key,
        format!("\"{}\" is not a domain", text.escape_debug()),
        "write domains such as \"moon.example\", or \"*.moon.example\" for all below it".into(),
    );
}

/// Whether `text` is a domain name.
pub(super) fn is_domain(text: &str) -> bool {
    destination(text).is_some()
}

fn destination(domain: &str) -> Option<String> {
    if domain.starts_with('[') {
        return None;
    }
    let address = Address::parse(&format!("x@{domain}")).ok()?;
    Some(address.destination())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, destination, expected) in [
            ("moon.example", "moon.example", true),
            ("Moon.Example", "moon.example", true),
            ("moon.example", "a.moon.example", false),
            ("*.moon.example", "a.moon.example", true),
            ("*.moon.example", "b.a.moon.example", true),
            ("*.moon.example", "moon.example", false),
            ("*.moon.example", "themoon.example", false),
            ("*", "anything.example", true),
            ("*.mönd.example", "a.xn--mnd-sna.example", true),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(
                parsed.matches(destination).is_some(),
                expected,
                "{pattern} {destination}"
            );
        }
        for wrong in ["", "*.", "a b", "*moon.example", "[127.0.0.1]", "a@b"] {
            assert_eq!(Pattern::parse(wrong), None, "{wrong}");
        }
    }
}
