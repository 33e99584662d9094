//! What stands behind DATA to a canonical body, up to the final dot.
//!
//! Smuggling (CVE-2023-51764 and its like) lives on two readers that disagree about where a body ends. Here a line ends in
//! exactly one way, chosen beforehand, and any CR or LF outside it is an error: nothing is guessed.

use memchr::memchr2;

use super::{BareLineEnd, octets};

/// How lines end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// CRLF.
    Crlf,
    /// A bare LF, as Exim writes to a pipe.
    Lf,
}

/// How far a push came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstuffed {
    /// All of the chunk was read and the body goes on.
    More,
    /// The final dot and its line end were read; so many octets of the chunk belong to the body and its end.
    End(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineStart,
    /// Behind a dot at the start of a line.
    Dot,
    /// Behind such a dot and a CR: an LF ends the body.
    DotCr,
    Text,
    /// Behind a CR in a line.
    Cr,
}

/// What happens to a CR or LF that is no part of a line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bare {
    /// It is an error.
    Refuse,
    /// It is text like any other: it begins no line, so no dot behind it is special.
    Keep,
}

/// Removes dot-stuffing from octets that arrive in chunks of any size, makes line ends CRLF and finds the final dot
/// (RFC 5321 section 4.5.2).
#[derive(Debug)]
pub struct Unstuffer {
    line_end: LineEnd,
    bare: Bare,
    state: State,
    lines: u64,
    read: u64,
}

impl Unstuffer {
    /// Starts a body right behind the line end of DATA.
    pub fn new(line_end: LineEnd) -> Self {
        Self {
            line_end,
            bare: Bare::Refuse,
            state: State::LineStart,
            lines: 0,
            read: 0,
        }
    }

    /// Starts a body whose lines end in CRLF, and in which a bare CR or LF passes as it is, for a [`super::Canonicaliser`] behind it to
    /// judge. It never ends a line here: only CRLF, dot, CRLF ends the body.
    pub fn keeping_bare() -> Self {
        Self {
            bare: Bare::Keep,
            ..Self::new(LineEnd::Crlf)
        }
    }

    /// Lines completed so far, that of the final dot included.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Octets read so far, the final dot and its line end included.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Appends the canonical body in `chunk` to `out`.
    ///
    /// # Errors
    /// A CR or LF that is no part of a line end. What stood before it has been appended.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<Unstuffed, BareLineEnd> {
        out.reserve(chunk.len() + 2);
        let mut rest = chunk;
        // What is not yet copied; whole lines with CRLF that need no change stay in one run.
        let mut run = rest;
        while !rest.is_empty() {
            match self.state {
                State::LineStart => {
                    if let Some(tail) = rest.strip_prefix(b".") {
                        out.extend_from_slice(before(run, rest));
                        (run, rest) = (tail, tail);
                        self.state = State::Dot;
                    } else {
                        self.state = State::Text;
                    }
                }
                State::Dot => match (rest, self.line_end) {
                    ([b'\r', tail @ ..], LineEnd::Crlf) => {
                        (run, rest) = (tail, tail);
                        self.state = State::DotCr;
                    }
                    ([b'\n', tail @ ..], LineEnd::Lf) => return Ok(self.end(chunk, tail)),
                    _ => self.state = State::Text,
                },
                State::DotCr => match rest {
                    [b'\n', tail @ ..] => return Ok(self.end(chunk, tail)),
                    _ if self.bare == Bare::Keep => self.keep_cr(out),
                    _ => return Err(self.bare(true, octets(chunk.len() - rest.len()), 1)),
                },
                State::Cr => match rest {
                    [b'\n', tail @ ..] => {
                        // The CR was held back at the end of the chunk before.
                        out.extend_from_slice(b"\r\n");
                        (run, rest) = (tail, tail);
                        self.end_line();
                    }
                    _ if self.bare == Bare::Keep => self.keep_cr(out),
                    _ => return Err(self.bare(true, octets(chunk.len() - rest.len()), 1)),
                },
                State::Text => {
                    let Some(position) = memchr2(b'\r', b'\n', rest) else {
                        break;
                    };
                    let tail = rest.get(position..).unwrap_or_default();
                    match (tail, self.line_end) {
                        ([b'\r', b'\n', after @ ..], LineEnd::Crlf) => {
                            rest = after;
                            self.end_line();
                        }
                        ([b'\r'], LineEnd::Crlf) => {
                            out.extend_from_slice(before(run, tail));
                            (run, rest) = (&[], &[]);
                            self.state = State::Cr;
                        }
                        ([b'\n', after @ ..], LineEnd::Lf) => {
                            out.extend_from_slice(before(run, tail));
                            out.extend_from_slice(b"\r\n");
                            (run, rest) = (after, after);
                            self.end_line();
                        }
                        ([_, after @ ..], _) if self.bare == Bare::Keep => rest = after,
                        _ => {
                            out.extend_from_slice(before(run, tail));
                            let cr = tail.starts_with(b"\r");
                            return Err(self.bare(cr, octets(chunk.len() - tail.len()), 0));
                        }
                    }
                }
            }
        }
        out.extend_from_slice(run);
        self.read += octets(chunk.len());
        Ok(Unstuffed::More)
    }

    /// The CR that was held back is text.
    fn keep_cr(&mut self, out: &mut Vec<u8>) {
        out.push(b'\r');
        self.state = State::Text;
    }

    fn end_line(&mut self) {
        self.lines += 1;
        self.state = State::LineStart;
    }

    fn end(&mut self, chunk: &[u8], tail: &[u8]) -> Unstuffed {
        self.end_line();
        let used = chunk.len() - tail.len();
        self.read += octets(used);
        Unstuffed::End(used)
    }

    /// The octet `back` octets before position `at` of the chunk is out of place.
    fn bare(&self, cr: bool, at: u64, back: u64) -> BareLineEnd {
        BareLineEnd {
            line: self.lines + 1,
            offset: self.read + at - back,
            cr,
        }
    }
}

/// What stands in `run` before its own end `tail`.
fn before<'a>(run: &'a [u8], tail: &[u8]) -> &'a [u8] {
    run.get(..run.len() - tail.len()).unwrap_or_default()
}
