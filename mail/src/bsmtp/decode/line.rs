//! Gathers one command line of bounded length.

use super::DecodeErrorKind;
use crate::lines::LineEnd;

/// Collects octets up to a line end. Command lines are short: octets are looked at one by one.
#[derive(Debug)]
pub(super) struct LineReader {
    /// Unknown until the first line end where it is to be detected.
    line_end: Option<LineEnd>,
    limit: usize,
    line: Vec<u8>,
    held_cr: bool,
}

/// What is wrong with a line.
pub(super) struct Fault {
    /// Octets from the start of the line.
    pub(super) offset: u64,
    pub(super) kind: DecodeErrorKind,
}

impl LineReader {
    pub(super) fn new(line_end: Option<LineEnd>, limit: usize) -> Self {
        Self {
            line_end,
            limit,
            line: Vec::new(),
            held_cr: false,
        }
    }

    /// Reads until a line is complete; returns the octets used and whether it is.
    pub(super) fn push(&mut self, input: &[u8]) -> Result<(usize, bool), Fault> {
        for (position, octet) in input.iter().enumerate() {
            let length = self.line.len() + usize::from(self.held_cr);
            match (octet, self.held_cr, self.line_end) {
                (b'\n', true, Some(LineEnd::Crlf) | None) => {
                    self.line_end = Some(LineEnd::Crlf);
                    self.held_cr = false;
                    return Ok((position + 1, true));
                }
                (b'\n', false, Some(LineEnd::Lf) | None) => {
                    self.line_end = Some(LineEnd::Lf);
                    return Ok((position + 1, true));
                }
                (b'\n', _, _) => return Err(Self::line_end_fault(length, false)),
                (_, true, _) => return Err(Self::line_end_fault(length - 1, true)),
                (b'\r', false, Some(LineEnd::Lf)) => return Err(Self::line_end_fault(length, true)),
                _ => {}
            }
            if length + 1 >= self.limit {
                let limit = self.limit as u64;
                return Err(Fault {
                    offset: 0,
                    kind: DecodeErrorKind::TooLarge {
                        what: "the command line",
                        limit,
                    },
                });
            }
            if *octet == b'\r' {
                self.held_cr = true;
            } else {
                self.line.push(*octet);
            }
        }
        Ok((input.len(), false))
    }

    fn line_end_fault(at: usize, cr: bool) -> Fault {
        Fault {
            offset: at as u64,
            kind: DecodeErrorKind::LineEnd(cr),
        }
    }

    /// Whether nothing of a line was read yet.
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty() && !self.held_cr
    }

    /// The complete line, without its line end.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.line)
    }

    /// How lines of this object end; CRLF before that is known.
    pub(super) fn line_end(&self) -> LineEnd {
        self.line_end.unwrap_or(LineEnd::Crlf)
    }

    /// Octets of a line end.
    pub(super) fn line_end_length(&self) -> u64 {
        match self.line_end() {
            LineEnd::Crlf => 2,
            LineEnd::Lf => 1,
        }
    }
}
