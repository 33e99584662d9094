//! Server replies.

use std::fmt;

use lightpost_mail::EnhancedCode;

/// A reply, its lines joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three-digit code.
    pub code: u16,
    /// The enhanced status code, where given.
    pub enhanced: Option<EnhancedCode>,
    /// The text without codes, lines joined by a space, bounded.
    pub text: String,
}

impl Reply {
    /// 2xx or 3xx.
    pub fn is_positive(&self) -> bool {
        matches!(self.code, 200..=399)
    }

    /// 5xx.
    pub fn is_permanent(&self) -> bool {
        matches!(self.code, 500..=599)
    }

    /// The enhanced code, or x.0.0 by the reply's class.
    pub fn status(&self) -> EnhancedCode {
        self.enhanced
            .unwrap_or(EnhancedCode::new((self.code / 100).clamp(2, 5) as u8, 0, 0))
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        write!(f, " {}", self.text)
    }
}
