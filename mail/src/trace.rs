//! Trace fields: our `Received` line, and how loops are found (RFC 5321 section 4.4 and 6.3).

use jiff::Timestamp;

/// What goes into a `Received` field.
#[derive(Clone, Debug)]
pub struct Received<'a> {
    /// Who handed over: the peer's name.
    pub from: Option<&'a str>,
    /// Our own name.
    pub by: &'a str,
    /// The protocol, `HTTP` or `LMTP` for instance.
    pub with: &'a str,
    /// The message's or exchange's id.
    pub id: &'a str,
    /// The single recipient, where there is only one.
    pub recipient: Option<&'a str>,
    /// When it was accepted.
    pub at: Timestamp,
}

impl Received<'_> {
    /// The field, folded, with its CRLF.
    pub fn field(&self) -> String {
        unimplemented!()
    }
}

/// What a header section says about the way that a mail has come. Fed with the first octets of a canonical body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hops {
    /// `Received` fields.
    pub received: usize,
    /// Those of them that carry our own name behind `by`.
    pub own: usize,
}

/// Counts the hops in a header section (everything before the first empty line).
pub fn hops(_headers: &[u8], _own_name: &str) -> Hops {
    unimplemented!()
}
