//! The structure of a mail (RFC 2046), line by line.
//!
//! The line end before a boundary belongs to the boundary, so that each line end of a body is held back until the next line is known.

use super::{
    Obstacle,
    entity::{Entity, Kind},
};

/// The longest header section, in octets.
pub(super) const HEADER: usize = 256 * 1024;
/// How deep parts may be nested.
pub(super) const DEPTH: usize = 64;
/// A line longer than this is no boundary (RFC 2046 section 5.1.1: 70 characters) and need not be seen whole.
const WHOLE: usize = 1024;

/// Who looks at what is found.
pub(super) trait Sink {
    /// An entity begins; its header section with the empty line, and the line in which that begins.
    fn entity(&mut self, entity: &Entity, header: &[u8], line: u64);
    /// Octets of a leaf's line.
    fn text(&mut self, octets: &[u8]);
    /// The end of a leaf's line.
    fn line_end(&mut self);
    /// What stands outside of leaves: boundaries, and what is between parts.
    fn outside(&mut self, octets: &[u8]);
    /// The entity that was begun last and not left yet ends.
    fn leave(&mut self);
    /// Why the structure is not followed any further.
    fn hindrance(&mut self, obstacle: Obstacle);
}

/// An entity that is open.
struct Level {
    boundary: Option<Vec<u8>>,
    digest: bool,
    signed: bool,
}

enum Place {
    /// In a header section.
    Header(Vec<u8>),
    /// In a leaf; whether a line end is held back.
    Leaf(bool),
    /// Between parts.
    Between,
}

pub(super) struct Walker {
    levels: Vec<Level>,
    place: Place,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// Whether the line's beginning has been dealt with.
    within: bool,
    line: u64,
    begun: u64,
    given_up: bool,
}

/// Which line it is among boundaries.
enum Delimiter {
    /// A part of the level with this place begins.
    Open(usize),
    /// That level ends.
    Close(usize),
}

impl Walker {
    pub(super) fn new() -> Self {
        Self {
            levels: Vec::new(),
            place: Place::Header(Vec::new()),
            partial: Vec::new(),
            within: false,
            line: 1,
            begun: 1,
            given_up: false,
        }
    }

    pub(super) fn push(&mut self, mut octets: &[u8], sink: &mut impl Sink) {
        while !octets.is_empty() && !self.given_up {
            let end = memchr::memchr(b'\n', octets).map_or(octets.len(), |at| at + 1);
            let (now, rest) = octets.split_at(end);
            octets = rest;
            if now.ends_with(b"\n") && self.partial.is_empty() {
                self.take(now, sink);
            } else {
                self.partial.extend_from_slice(now);
                if now.ends_with(b"\n") || self.partial.len() > WHOLE {
                    let mut line = std::mem::take(&mut self.partial);
                    // A CR may belong to the line's end.
                    let held = line.ends_with(b"\r") && line.pop().is_some();
                    self.take(&line, sink);
                    line.clear();
                    if held {
                        line.push(b'\r');
                    }
                    self.partial = line;
                }
            }
        }
    }

    pub(super) fn finish(&mut self, sink: &mut impl Sink) {
        let rest = std::mem::take(&mut self.partial);
        if !rest.is_empty() && !self.given_up {
            self.take(&rest, sink);
        }
        if let Place::Header(header) = &mut self.place {
            let header = std::mem::take(header);
            self.enter(&header, sink);
        }
        self.end_leaf(true, sink);
        while self.levels.pop().is_some() {
            sink.leave();
        }
    }

    /// A whole line with its end, or a piece of a long one.
    fn take(&mut self, line: &[u8], sink: &mut impl Sink) {
        let ends = line.ends_with(b"\n");
        let begins = !std::mem::replace(&mut self.within, !ends);
        let delimiter = (begins && ends).then(|| self.delimiter(line)).flatten();
        match delimiter {
            Some(delimiter) => self.turn(delimiter, line, sink),
            None => self.content(line, begins, sink),
        }
        self.line += u64::from(ends);
    }

    fn content(&mut self, line: &[u8], begins: bool, sink: &mut impl Sink) {
        match &mut self.place {
            Place::Header(header) => {
                header.extend_from_slice(line);
                if header.len() > HEADER {
                    self.given_up = true;
                    return sink.hindrance(Obstacle::HeaderLength(self.begun));
                }
                if begins && line == b"\r\n" {
                    let header = std::mem::take(header);
                    self.enter(&header, sink);
                }
            }
            Place::Leaf(held) => {
                if std::mem::take(held) {
                    sink.line_end();
                }
                let text = line.strip_suffix(b"\r\n");
                *held = text.is_some();
                sink.text(text.unwrap_or(line));
            }
            Place::Between => sink.outside(line),
        }
    }

    /// A header section is complete.
    fn enter(&mut self, header: &[u8], sink: &mut impl Sink) {
        if self.levels.len() >= DEPTH {
            self.given_up = true;
            return sink.hindrance(Obstacle::Depth);
        }
        let above = self.levels.last();
        let digest = above.is_some_and(|level| level.digest);
        let signed = above.is_some_and(|level| level.signed);
        let entity = Entity::read(header, digest, signed);
        sink.entity(&entity, header, self.begun);
        self.begun = self.line + 1;
        let (boundary, digest) = match &entity.kind {
            Kind::Multipart { boundary, digest, .. } => (Some(boundary.clone()), *digest),
            _ => (None, false),
        };
        self.place = match &entity.kind {
            Kind::Multipart { .. } => Place::Between,
            Kind::Message => Place::Header(Vec::new()),
            _ => Place::Leaf(false),
        };
        self.levels.push(Level {
            boundary,
            digest,
            signed: entity.signed,
        });
    }

    /// Whether a line is a boundary of an open level, the innermost first.
    fn delimiter(&self, line: &[u8]) -> Option<Delimiter> {
        let rest = line.strip_prefix(b"--")?.trim_ascii_end();
        for (place, level) in self.levels.iter().enumerate().rev() {
            let Some(boundary) = &level.boundary else {
                continue;
            };
            match rest.strip_prefix(boundary.as_slice()) {
                Some(b"") => return Some(Delimiter::Open(place)),
                Some(b"--") => return Some(Delimiter::Close(place)),
                _ => {}
            }
        }
        None
    }

    fn turn(&mut self, delimiter: Delimiter, line: &[u8], sink: &mut impl Sink) {
        // A part that ends within its header section has no body.
        if let Place::Header(header) = &mut self.place {
            let header = std::mem::take(header);
            if !header.is_empty() {
                self.enter(&header, sink);
            }
        }
        let held = matches!(self.place, Place::Leaf(true));
        let (Delimiter::Open(place) | Delimiter::Close(place)) = delimiter;
        while self.levels.len() > place + 1 {
            self.levels.pop();
            sink.leave();
        }
        if held {
            sink.outside(b"\r\n");
        }
        sink.outside(line);
        self.begun = self.line + 1;
        match delimiter {
            Delimiter::Open(_) => self.place = Place::Header(Vec::new()),
            Delimiter::Close(_) => {
                // The level itself goes on to its own end: what follows is its epilogue.
                if let Some(level) = self.levels.get_mut(place) {
                    level.boundary = None;
                }
                self.place = Place::Between;
            }
        }
    }

    /// The last line end of a body that no boundary ends is the body's own.
    fn end_leaf(&mut self, own: bool, sink: &mut impl Sink) {
        if let Place::Leaf(held) = &mut self.place
            && std::mem::take(held)
            && own
        {
            sink.line_end();
        }
    }
}
