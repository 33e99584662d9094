//! The processor: incremental, bounded, exact about where an error is.

use crate::{Envelope, envelope::ArgumentError};

/// Which line ends an object may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnds {
    /// CRLF only (what a gateway accepts).
    Crlf,
    /// Decided by the first line end, never mixed (what a local MTA may hand over).
    Detect,
}

/// Bounds on an object.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Octets of one command line with its line end.
    pub command_line: usize,
    /// Recipients of one transaction.
    pub recipients: usize,
    /// Transactions of one object.
    pub transactions: usize,
    /// Octets of one canonical body.
    pub body: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command_line: 4096,
            recipients: 1000,
            transactions: 1000,
            body: 50_000_000,
        }
    }
}

/// What the decoder found. Order per transaction: `Envelope`, then `BadRecipient`s, then `Body`s, then `End`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// DATA was read: the envelope is complete. Its recipients may be empty when all were bad.
    Envelope(Envelope),
    /// A recipient of the envelope just announced that cannot be parsed (RFC 2442: notify for each bad recipient).
    BadRecipient {
        /// Line of the object, from 1.
        line: u64,
        /// The RCPT's argument.
        argument: String,
        /// Why it is refused.
        error: ArgumentError,
    },
    /// Canonical, unstuffed octets of the body.
    Body(Vec<u8>),
    /// The final dot was read: the transaction is complete and counts, whatever comes later.
    End,
    /// QUIT was read; what follows is an error.
    Quit,
}

/// An error, with its place. Transactions that ended before it still count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, octet {offset}, transaction {transaction} (begun on line {begun}): {kind}")]
pub struct DecodeError {
    /// Line of the object, from 1.
    pub line: u64,
    /// Octet of the object, from 0.
    pub offset: u64,
    /// The transaction that it belongs to, from 1.
    pub transaction: usize,
    /// The line on which that transaction began.
    pub begun: u64,
    /// What is wrong.
    pub kind: DecodeErrorKind,
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The object ends before it should.
    #[error("the object ends {0}")]
    Truncated(&'static str),
    /// The command is not one of Batch SMTP.
    #[error("the command {0} does not belong into Batch SMTP")]
    Command(String),
    /// The argument of MAIL cannot be parsed.
    #[error("MAIL: {0}")]
    Mail(ArgumentError),
    /// A limit is exceeded.
    #[error("{what} exceeds the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

/// An incremental decoder for octets that arrive in chunks of any size.
#[derive(Debug)]
pub struct Decoder {
    _limits: Limits,
}

impl Decoder {
    /// Starts an object.
    pub fn new(_line_ends: LineEnds, limits: Limits) -> Self {
        Self { _limits: limits }
    }

    /// Reads `input` and appends what it completes to `events`.
    ///
    /// # Errors
    /// The first error; every later call repeats it.
    pub fn push(&mut self, _input: &[u8], _events: &mut Vec<Event>) -> Result<(), DecodeError> {
        unimplemented!()
    }

    /// Ends the object.
    ///
    /// # Errors
    /// When it ends inside a transaction or holds none.
    pub fn finish(&mut self, _events: &mut Vec<Event>) -> Result<(), DecodeError> {
        unimplemented!()
    }
}

/// Checks a `Content-Type` value: the media type and its `required-extensions` (RFC 2442 section 2) against the `supported` keywords.
/// NOTARY is read as DSN; keywords are compared without case.
///
/// # Errors
/// The media type that was given, or the extensions that are not supported.
pub fn check_content_type(_value: &str, _supported: &[&str]) -> Result<(), ContentTypeError> {
    unimplemented!()
}

/// Why an object's `Content-Type` is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentTypeError {
    /// Not `application/batch-SMTP`.
    #[error("the media type {0} is not application/batch-SMTP")]
    MediaType(String),
    /// Extensions that nobody here supports.
    #[error("the object requires extensions that are not supported here: {}", .0.join(", "))]
    Extensions(Vec<String>),
}
