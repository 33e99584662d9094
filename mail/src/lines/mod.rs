//! Line ends and dot-stuffing: the only implementation, used by generator, processor and SMTP alike.
//!
//! Three machines, each fed with chunks of any size and each with the same output whatever the sizes:
//! [`Canonicaliser`] (anything to a canonical body), [`Stuffer`] (canonical body to what stands behind DATA) and
//! [`Unstuffer`] (what stands behind DATA to a canonical body, up to the final dot). They copy long runs between the octets
//! that matter, which a vectorised search finds; no octet is looked at one by one.

mod canonical;
mod stuffing;
#[cfg(test)]
pub(crate) mod tests;
mod unstuffing;

pub use canonical::Canonicaliser;
pub use stuffing::Stuffer;
pub use unstuffing::{LineEnd, Unstuffed, Unstuffer};

/// What to do with a bare CR or a bare LF in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareLineEnds {
    /// Make each of them CRLF.
    Normalise,
    /// Refuse the mail.
    Refuse,
}

/// What was learnt about a body on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyFacts {
    /// Octets of the canonical body.
    pub size: u64,
    /// The longest line, without its CRLF.
    pub longest_line: u64,
    /// Whether an octet above 127 occurs.
    pub eight_bit: bool,
    /// Whether an octet above 127 occurs in the header section (needs SMTPUTF8).
    pub eight_bit_headers: bool,
    /// Whether a NUL occurs.
    pub nul: bool,
}

/// A body with a bare CR or LF where they are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, octet {offset}: a bare {}", if *cr { "CR" } else { "LF" })]
pub struct BareLineEnd {
    /// Line of the body, from 1.
    pub line: u64,
    /// Octet of the body, from 0.
    pub offset: u64,
    /// Whether it was a CR.
    pub cr: bool,
}

/// What ends a stuffed canonical body.
pub const END_OF_DATA: &[u8] = b".\r\n";

/// A length as a number of octets.
const fn octets(length: usize) -> u64 {
    length as u64
}
