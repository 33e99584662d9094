//! Why an argument of MAIL or RCPT is refused.

use crate::{EnhancedCode, address::AddressError};

/// Why an argument of `MAIL FROM:` or `RCPT TO:` is refused.
///
/// Texts from outside are held with their control characters escaped and cut to a sane length: an error can go into a
/// reply, a log line or a notification as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArgumentError {
    /// The path is not an address in angle brackets.
    #[error("\"{path}\" {error}")]
    Path {
        /// What was given.
        path: String,
        /// Why it is none.
        error: AddressError,
    },
    /// `<>` where a recipient should stand.
    #[error("the null path <> cannot be a recipient")]
    NullRecipient,
    /// The argument is not UTF-8.
    #[error("the argument is not UTF-8")]
    NotUtf8,
    /// A parameter that nobody here knows.
    #[error("the parameter {0} is not known")]
    UnknownParameter(String),
    /// A parameter that stands twice.
    #[error("the parameter {0} stands twice")]
    Duplicate(&'static str),
    /// What follows the path is not a list of parameters.
    #[error("\"{0}\" is not a parameter")]
    Malformed(String),
    /// A parameter's value is missing or not one that its specification allows.
    #[error("the parameter {name} has the value \"{value}\", {expected}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What was given; empty if nothing.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// `BODY=BINARYMIME` (RFC 3030), which cannot cross: Batch SMTP has lines.
    #[error("BODY=BINARYMIME cannot be carried, convert the mail to 8BITMIME or less")]
    BinaryMime,
}

impl ArgumentError {
    /// The enhanced status code that tells it to a peer (RFC 3463, RFC 5248).
    ///
    /// A bad path is 5.1.3 (destination address syntax) here; [`ArgumentError::sender_code`] is for MAIL.
    pub fn code(&self) -> EnhancedCode {
        match self {
            Self::Path { .. } | Self::NullRecipient => EnhancedCode::new(5, 1, 3),
            Self::NotUtf8 => EnhancedCode::new(5, 5, 2),
            Self::BinaryMime => EnhancedCode::new(5, 6, 1),
            Self::UnknownParameter(_) | Self::Duplicate(_) | Self::Malformed(_) | Self::Value { .. } => {
                EnhancedCode::new(5, 5, 4)
            }
        }
    }

    /// The enhanced status code for an argument of MAIL: as [`ArgumentError::code`], with 5.1.7 (bad sender's address syntax)
    /// for a bad path.
    pub fn sender_code(&self) -> EnhancedCode {
        match self {
            Self::Path { .. } => EnhancedCode::new(5, 1, 7),
            other => other.code(),
        }
    }
}

/// `text` made fit for an error: control characters escaped, at most `limit` characters.
pub(crate) fn shown(text: &str, limit: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(limit));
    for (count, character) in text.chars().enumerate() {
        if count == limit {
            shown.push('…');
            break;
        }
        if crate::address::is_control(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}
