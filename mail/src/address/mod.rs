//! Mail addresses (RFC 5321 section 4.1.2, RFC 6531 section 3.3).
//!
//! An [`Address`] is proof that its text follows the grammar: it holds no control character, no line end and no space
//! outside quotes, so that it can be put between angle brackets, into a header field or into a log line as it is.

mod error;
mod grammar;
pub(crate) mod path;

use std::{fmt, str::FromStr};

pub use error::AddressError;
pub(crate) use grammar::{is_atext, is_control};
use serde::{Deserialize, Serialize};

/// A mailbox address: local part, `@`, domain or address literal. Kept as written; quotes of a quoted local part stay.
///
/// Two addresses are equal when their texts are: the local part belongs to its host (RFC 5321 section 2.4), and what the
/// sender wrote is what the far side must see. For routing there is [`Address::destination`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    text: String,
    at: usize,
}

impl Address {
    /// Reads an address without angle brackets.
    ///
    /// # Errors
    /// Names the first rule of RFC 5321 or RFC 6531 that the text breaks.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let at = grammar::mailbox(text)?;
        Ok(Self {
            text: text.to_owned(),
            at,
        })
    }

    /// The address as written, without angle brackets.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the `@`, quotes included.
    pub fn local_part(&self) -> &str {
        self.text.get(..self.at).unwrap_or_default()
    }

    /// The domain or address literal as written.
    pub fn domain(&self) -> &str {
        self.text.get(self.at + 1..).unwrap_or_default()
    }

    /// The domain as a key for routing: lower case, A-labels, no trailing dot; an address literal in lower case with its
    /// brackets.
    pub fn destination(&self) -> String {
        grammar::destination(self.domain())
    }

    /// Whether SMTPUTF8 is not needed for it.
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        let at = grammar::mailbox(&text)?;
        Ok(Self { text, at })
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.text
    }
}

/// The reverse-path of a mail: an address, or null for notifications (RFC 5321 section 4.5.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`
    Null,
    /// `<user@example.org>`
    Address(Address),
}

impl ReversePath {
    /// The address, unless null.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }

    /// Whether it is `<>`: nobody is told about what becomes of the mail.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl fmt::Display for ReversePath {
    /// Without angle brackets; null is empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().map_or(Ok(()), |address| address.fmt(f))
    }
}

#[cfg(test)]
mod tests;
