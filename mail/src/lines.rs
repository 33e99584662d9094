//! Line ends and dot-stuffing: the only implementation, used by generator, processor and SMTP alike.

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

/// Turns octets that arrive in chunks of any size into a canonical body: every line, the last one too, ends in CRLF.
/// An empty body stays empty.
#[derive(Debug)]
pub struct Canonicaliser {
    _policy: BareLineEnds,
}

impl Canonicaliser {
    /// Starts a body.
    pub fn new(policy: BareLineEnds) -> Self {
        Self { _policy: policy }
    }

    /// Appends the canonical form of `chunk` to `out`.
    ///
    /// # Errors
    /// [`BareLineEnd`] where the policy refuses.
    pub fn push(&mut self, _chunk: &[u8], _out: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        unimplemented!()
    }

    /// Ends the body: completes the last line and tells what was seen.
    ///
    /// # Errors
    /// [`BareLineEnd`] where the body ends in a bare CR and the policy refuses.
    pub fn finish(self, _out: &mut Vec<u8>) -> Result<BodyFacts, BareLineEnd> {
        unimplemented!()
    }
}

/// Dot-stuffs a canonical body that arrives in chunks of any size (RFC 5321 section 4.5.2).
#[derive(Debug, Default)]
pub struct Stuffer {}

impl Stuffer {
    /// Starts a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the stuffed form of `chunk` to `out`.
    pub fn push(&mut self, _chunk: &[u8], _out: &mut Vec<u8>) {
        unimplemented!()
    }
}

/// What ends a stuffed canonical body.
pub const END_OF_DATA: &[u8] = b".\r\n";
