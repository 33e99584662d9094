//! Enhanced mail system status codes (RFC 3463, RFC 5248).

use std::{fmt, str::FromStr};

/// An enhanced status code such as 5.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnhancedCode {
    /// 2 success, 4 transient, 5 permanent.
    pub class: u8,
    /// What it concerns.
    pub subject: u16,
    /// The detail.
    pub detail: u16,
}

impl EnhancedCode {
    /// `class.subject.detail`
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self {
            class,
            subject,
            detail,
        }
    }

    /// Whether it says that trying again is of no use.
    pub const fn is_permanent(self) -> bool {
        self.class == 5
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// The text is not an enhanced status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status code (RFC 3463)")]
pub struct NotACode;

impl FromStr for EnhancedCode {
    type Err = NotACode;
    fn from_str(text: &str) -> Result<Self, NotACode> {
        let mut parts = text.splitn(3, '.');
        let mut next = || {
            parts
                .next()
                .filter(|part| {
                    part.bytes().all(|c| c.is_ascii_digit()) && (*part == "0" || !part.starts_with('0'))
                })
                .and_then(|part| part.parse::<u16>().ok())
        };
        match (next(), next(), next()) {
            (Some(class @ (2 | 4 | 5)), Some(subject @ 0..=999), Some(detail @ 0..=999)) => {
                Ok(Self::new(class as u8, subject, detail))
            }
            _ => Err(NotACode),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_they_are_written() {
        for text in ["2.0.0", "4.4.7", "5.1.1", "5.999.999"] {
            assert_eq!(text.parse::<EnhancedCode>().unwrap().to_string(), text);
        }
        assert!(EnhancedCode::new(5, 1, 1).is_permanent());
        assert!(!EnhancedCode::new(4, 1, 1).is_permanent());
    }

    #[test]
    fn other_texts_are_no_codes() {
        for text in [
            "", "5", "5.1", "5.1.", "5.1.1.1", "3.1.1", "5.1000.0", "5.-1.0", "5.+1.0", "5.01.0", "05.1.1",
            "5.1.1 ",
        ] {
            assert_eq!(text.parse::<EnhancedCode>(), Err(NotACode), "{text}");
        }
    }
}
