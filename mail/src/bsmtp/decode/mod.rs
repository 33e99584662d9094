//! The processor: incremental, bounded, exact about where an error is.
//!
//! A [`Decoder`] is in one of two conditions: between line ends it gathers one command line of bounded length, behind DATA it
//! hands octets through an [`Unstuffer`]. It never holds more than that line, the envelope that is being built and the refused
//! recipients of that envelope, all of them bounded by [`Limits`].
//!
//! Tolerance: EHLO may be missing, several transactions may follow each other, RSET and a second EHLO drop what was begun,
//! NOOP does nothing, QUIT is optional and final. Everything else is an error that ends the object; complete transactions before
//! it still count (RFC 2442 section 3).

mod content_type;
mod error;
mod line;
#[cfg(test)]
mod tests;
mod transaction;

pub use content_type::{ContentTypeError, check_content_type};
pub use error::{DecodeError, DecodeErrorKind};
use line::LineReader;
use transaction::Transaction;

use crate::{
    Envelope,
    envelope::ArgumentError,
    lines::{LineEnd, Unstuffed, Unstuffer},
};

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
    /// Octets of one command line with its line end, at least 8.
    pub command_line: usize,
    /// Recipients of one transaction, refused ones included.
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
        /// The RCPT's argument, control characters escaped.
        argument: String,
        /// Why it is refused.
        error: ArgumentError,
    },
    /// Canonical, unstuffed octets of the body; never empty.
    Body(Vec<u8>),
    /// The final dot was read: the transaction is complete and counts, whatever comes later.
    End,
    /// QUIT was read; what follows is an error.
    Quit,
}

/// An incremental decoder for octets that arrive in chunks of any size.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    place: Place,
    stage: Stage,
    line: LineReader,
    transaction: Transaction,
    /// Transactions that were completed.
    completed: usize,
    failed: Option<DecodeError>,
}

/// Most octets of a body that are read into one event.
const PIECE: usize = 64 * 1024;

/// Where the next octet stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    line: u64,
    offset: u64,
}

#[derive(Debug)]
enum Stage {
    Command,
    Body {
        unstuffer: Unstuffer,
        /// Where the body began.
        start: Place,
        size: u64,
    },
    /// QUIT was read.
    Over,
}

/// What a command line asks the decoder to do.
enum Step {
    Continue,
    Body,
    Quit,
}

impl Decoder {
    /// Starts an object.
    pub fn new(line_ends: LineEnds, limits: Limits) -> Self {
        Self {
            limits,
            place: Place { line: 1, offset: 0 },
            stage: Stage::Command,
            line: LineReader::new(
                match line_ends {
                    LineEnds::Crlf => Some(LineEnd::Crlf),
                    LineEnds::Detect => None,
                },
                limits.command_line,
            ),
            transaction: Transaction::default(),
            completed: 0,
            failed: None,
        }
    }

    /// How many transactions were completed: those count, whatever comes later.
    pub fn completed(&self) -> usize {
        self.completed
    }

    /// Reads `input` and appends what it completes to `events`.
    ///
    /// # Errors
    /// The first error; every later call repeats it.
    pub fn push(&mut self, input: &[u8], events: &mut Vec<Event>) -> Result<(), DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut rest = input;
        while !rest.is_empty() {
            let used = match self.stage {
                Stage::Command => self.command(rest, events),
                Stage::Body { .. } => self.body(rest, events),
                Stage::Over => Err(self.error(self.place, DecodeErrorKind::AfterQuit)),
            };
            let used = used.inspect_err(|error| self.failed = Some(error.clone()))?;
            rest = rest.get(used..).unwrap_or_default();
        }
        Ok(())
    }

    /// Ends the object.
    ///
    /// # Errors
    /// When it ends inside a transaction or holds none.
    pub fn finish(&mut self, _events: &mut Vec<Event>) -> Result<(), DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let kind = match self.stage {
            Stage::Body { .. } => DecodeErrorKind::Truncated("in a body, without the final dot"),
            Stage::Command if !self.line.is_empty() => DecodeErrorKind::Truncated("in a command line"),
            Stage::Command if self.transaction.begun() => {
                DecodeErrorKind::Truncated("behind MAIL, before DATA")
            }
            Stage::Command | Stage::Over if self.completed == 0 => DecodeErrorKind::NoTransaction,
            Stage::Command | Stage::Over => return Ok(()),
        };
        let error = self.error(self.place, kind);
        self.failed = Some(error.clone());
        Err(error)
    }

    /// Reads up to the end of one command line.
    fn command(&mut self, input: &[u8], events: &mut Vec<Event>) -> Result<usize, DecodeError> {
        let (used, complete) = self.line.push(input).map_err(|fault| {
            let place = Place {
                offset: self.place.offset + fault.offset,
                ..self.place
            };
            self.error(place, fault.kind)
        })?;
        if !complete {
            return Ok(used);
        }
        let line = self.line.take();
        let length = line.len() as u64 + self.line.line_end_length();
        let step = self
            .transaction
            .command(&line, self.place.line, &self.limits, self.completed, events)
            .map_err(|kind| self.error(self.place, kind))?;
        self.place.line += 1;
        self.place.offset += length;
        match step {
            Step::Continue => {}
            Step::Quit => {
                events.push(Event::Quit);
                self.stage = Stage::Over;
            }
            Step::Body => {
                self.stage = Stage::Body {
                    unstuffer: Unstuffer::new(self.line.line_end()),
                    start: self.place,
                    size: 0,
                };
            }
        }
        Ok(used)
    }

    /// Reads up to the end of the body.
    fn body(&mut self, input: &[u8], events: &mut Vec<Event>) -> Result<usize, DecodeError> {
        let Stage::Body {
            unstuffer,
            start,
            size,
        } = &mut self.stage
        else {
            return Ok(0);
        };
        let start = *start;
        // One event's octets stay few, however much is pushed and however many bodies that is.
        let piece = input.get(..PIECE).unwrap_or(input);
        let mut octets = Vec::new();
        let result = unstuffer.push(piece, &mut octets);
        *size += octets.len() as u64;
        let after = Place {
            line: start.line + unstuffer.lines(),
            offset: start.offset + unstuffer.read(),
        };
        if *size > self.limits.body {
            let limit = self.limits.body;
            return Err(self.error(
                start,
                DecodeErrorKind::TooLarge {
                    what: "the body",
                    limit,
                },
            ));
        }
        let unstuffed = result.map_err(|bare| {
            let place = Place {
                line: start.line + bare.line - 1,
                offset: start.offset + bare.offset,
            };
            self.error(place, DecodeErrorKind::LineEnd(bare.cr))
        })?;
        if !octets.is_empty() {
            if octets.capacity() / 2 > octets.len() {
                octets.shrink_to_fit();
            }
            events.push(Event::Body(octets));
        }
        match unstuffed {
            Unstuffed::More => Ok(piece.len()),
            Unstuffed::End(used) => {
                self.place = after;
                self.stage = Stage::Command;
                self.completed += 1;
                self.transaction = Transaction::default();
                events.push(Event::End);
                Ok(used)
            }
        }
    }

    fn error(&self, place: Place, kind: DecodeErrorKind) -> DecodeError {
        DecodeError {
            line: place.line,
            offset: place.offset,
            transaction: self.completed + 1,
            begun: self.transaction.begun_on().unwrap_or(place.line),
            kind,
        }
    }
}
