//! Anything to a canonical body.

use memchr::{memchr, memchr2};

use super::{BareLineEnd, BareLineEnds, BodyFacts, octets};

/// Turns octets that arrive in chunks of any size into a canonical body: every line, the last one too, ends in CRLF.
/// An empty body stays empty.
///
/// A CR at the end of a chunk is held back until the next octet shows what it is. After an error the machine is of no
/// further use.
#[derive(Debug)]
pub struct Canonicaliser {
    policy: BareLineEnds,
    /// The last octet was a CR, not yet written.
    held_cr: bool,
    /// Octets of the unfinished line.
    column: u64,
    /// Lines finished.
    lines: u64,
    /// Octets read.
    read: u64,
    in_headers: bool,
    facts: BodyFacts,
}

impl Canonicaliser {
    /// Starts a body.
    pub fn new(policy: BareLineEnds) -> Self {
        Self {
            policy,
            held_cr: false,
            column: 0,
            lines: 0,
            read: 0,
            in_headers: true,
            facts: BodyFacts::default(),
        }
    }

    /// Appends the canonical form of `chunk` to `out`.
    ///
    /// # Errors
    /// [`BareLineEnd`] where the policy refuses.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        if chunk.is_empty() {
            return Ok(());
        }
        let before = out.len();
        let result = self.lines(chunk, out);
        self.read += octets(chunk.len());
        self.facts.size += octets(out.len() - before);
        self.facts.nul = self.facts.nul || memchr(0, chunk).is_some();
        // The header section looks at its own octets line by line; what follows is judged here.
        self.facts.eight_bit = self.facts.eight_bit || !chunk.is_ascii();
        result
    }

    fn lines(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        out.reserve(chunk.len() + 2);
        let mut rest = chunk;
        if self.held_cr {
            self.held_cr = false;
            if let Some(tail) = rest.strip_prefix(b"\n") {
                rest = tail;
            } else {
                self.refuse(true, self.read - 1)?;
            }
            out.extend_from_slice(b"\r\n");
            self.end_line();
        }
        // `run` starts what is not yet copied, `rest` what is not yet looked at.
        let mut run = rest;
        while let Some(position) = memchr2(b'\r', b'\n', rest) {
            let (line, tail) = rest.split_at(position);
            self.text(line);
            match tail {
                [b'\r', b'\n', tail @ ..] => rest = tail,
                [b'\r'] => {
                    self.held_cr = true;
                    out.extend_from_slice(before(run, tail));
                    return Ok(());
                }
                [octet, after @ ..] => {
                    let offset = self.read + octets(chunk.len() - tail.len());
                    self.refuse(*octet == b'\r', offset)?;
                    out.extend_from_slice(before(run, tail));
                    out.extend_from_slice(b"\r\n");
                    (run, rest) = (after, after);
                }
                [] => {}
            }
            self.end_line();
        }
        self.text(rest);
        out.extend_from_slice(run);
        Ok(())
    }

    /// Ends the body: completes the last line and tells what was seen.
    ///
    /// # Errors
    /// [`BareLineEnd`] where the body ends in a bare CR and the policy refuses.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<BodyFacts, BareLineEnd> {
        if self.held_cr {
            self.refuse(true, self.read - 1)?;
        }
        if self.held_cr || self.column > 0 {
            out.extend_from_slice(b"\r\n");
            self.facts.size += 2;
            self.end_line();
        }
        Ok(self.facts)
    }

    /// Notes octets of a line.
    fn text(&mut self, text: &[u8]) {
        self.column += octets(text.len());
        if self.in_headers && !self.facts.eight_bit_headers {
            self.facts.eight_bit_headers = !text.is_ascii();
        }
    }

    fn end_line(&mut self) {
        if self.column == 0 {
            self.in_headers = false;
        }
        self.facts.longest_line = self.facts.longest_line.max(self.column);
        self.column = 0;
        self.lines += 1;
    }

    fn refuse(&self, cr: bool, offset: u64) -> Result<(), BareLineEnd> {
        match self.policy {
            BareLineEnds::Normalise => Ok(()),
            BareLineEnds::Refuse => Err(BareLineEnd {
                line: self.lines + 1,
                offset,
                cr,
            }),
        }
    }
}

/// What stands in `run` before its own end `tail`.
fn before<'a>(run: &'a [u8], tail: &[u8]) -> &'a [u8] {
    run.get(..run.len() - tail.len()).unwrap_or_default()
}
