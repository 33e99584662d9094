//! Making a mail fit for a way that takes less than it needs: 8-bit text and long lines become quoted-printable or base64 (RFC 2045, RFC 6152
//! section 3), part by part, whatever the mail's size.
//!
//! A mail is read twice. [`Survey`] looks at every part and finds out what has to become of it, or why nothing can ([`Obstacle`]);
//! [`Conversion`] writes it anew by that [`Plan`]. Both are machines fed with chunks of a canonical body, of any size, and keep no more of it
//! than a header section and a line. What need not change does not change by an octet.

mod encode;
mod entity;
#[cfg(test)]
mod tests;
mod walk;

use self::{
    encode::Encoder,
    entity::{Entity, Kind},
    walk::{Sink, Walker},
};

/// What a way takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets above 127.
    pub eight_bit: bool,
    /// The longest line, without its CRLF; at least 998.
    pub line: u64,
}

/// Why a mail cannot be converted. Lines count from 1, in the canonical body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// Nothing but SMTPUTF8 carries such a header section.
    #[error("the header section that begins in line {0} has octets above 127")]
    EightBitHeader(u64),
    /// To fold it elsewhere would change its meaning.
    #[error("a header section has a line of {0} octets")]
    HeaderLine(u64),
    /// What cannot be read cannot be converted.
    #[error("the header section that begins in line {0} is longer than {max} octets", max = walk::HEADER)]
    HeaderLength(u64),
    /// A part that says it is encoded already and is not, or that may not be encoded.
    #[error("the part that begins in line {0} is {1} and does not fit as it is")]
    Part(u64, String),
    /// Parts within parts.
    #[error("its parts are nested more than {max} deep", max = walk::DEPTH)]
    Depth,
    /// Each part costs memory.
    #[error("it has more than {max} parts", max = PARTS)]
    Parts,
}

/// The most parts that a mail to be converted may have.
const PARTS: usize = 20_000;

/// What becomes of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing.
    Keep,
    /// A part of it changes: it says 7bit from here on.
    Relabel,
    QuotedPrintable,
    Base64,
}

/// What has to become of a mail's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order of their header sections.
    fates: Vec<Fate>,
    /// Whether a part that changes is signed or encrypted (RFC 1847): its signature will not fit any more.
    pub breaks_parts: bool,
    /// Whether the mail has a DKIM signature, which will not fit any more.
    pub breaks_dkim: bool,
}

impl Plan {
    /// Whether anything changes at all.
    pub fn changes(&self) -> bool {
        self.fates.iter().any(|fate| *fate != Fate::Keep)
    }

    /// The encodings that parts are given, for the trace: `quoted-printable`, `base64` or both.
    pub fn encodings(&self) -> String {
        let names = [
            (Fate::QuotedPrintable, "quoted-printable"),
            (Fate::Base64, "base64"),
        ];
        let used = names.iter().filter(|(fate, _)| self.fates.contains(fate));
        used.map(|(_, name)| *name).collect::<Vec<_>>().join(" and ")
    }
}

/// The first reading.
pub struct Survey {
    walker: Walker,
    found: Found,
}

/// What the first reading found.
struct Found {
    limits: Limits,
    plan: Plan,
    /// Entities that are open: their places in the plan, outermost first.
    open: Vec<usize>,
    obstacle: Option<Obstacle>,
    /// Of the leaf that is open.
    leaf: Leaf,
}

#[derive(Default)]
struct Leaf {
    line: u64,
    kind: Option<Kind>,
    signed: bool,
    octets: u64,
    high: u64,
    column: u64,
    longest: u64,
}

impl Survey {
    /// Starts a mail.
    pub fn new(limits: Limits) -> Self {
        Self {
            walker: Walker::new(),
            found: Found {
                limits,
                plan: Plan {
                    fates: Vec::new(),
                    breaks_parts: false,
                    breaks_dkim: false,
                },
                open: Vec::new(),
                obstacle: None,
                leaf: Leaf::default(),
            },
        }
    }

    /// More of the canonical body.
    pub fn push(&mut self, octets: &[u8]) {
        if self.found.obstacle.is_none() {
            self.walker.push(octets, &mut self.found);
        }
    }

    /// The end of the body.
    ///
    /// # Errors
    /// Why it cannot be converted.
    pub fn finish(mut self) -> Result<Plan, Obstacle> {
        if self.found.obstacle.is_none() {
            self.walker.finish(&mut self.found);
        }
        match self.found.obstacle {
            Some(obstacle) => Err(obstacle),
            None => Ok(self.found.plan),
        }
    }
}

impl Found {
    fn hinder(&mut self, obstacle: Obstacle) {
        self.obstacle.get_or_insert(obstacle);
    }
}

impl Sink for Found {
    fn entity(&mut self, entity: &Entity, header: &[u8], line: u64) {
        if self.plan.fates.len() >= PARTS {
            return self.hinder(Obstacle::Parts);
        }
        if !self.limits.eight_bit && !header.is_ascii() {
            return self.hinder(Obstacle::EightBitHeader(line));
        }
        let longest = header
            .split(|octet| *octet == b'\n')
            .map(|line| line.len().saturating_sub(1) as u64)
            .max()
            .unwrap_or_default();
        if longest > self.limits.line {
            return self.hinder(Obstacle::HeaderLine(longest));
        }
        if self.plan.fates.is_empty() {
            self.plan.breaks_dkim = entity.has_dkim;
        }
        self.open.push(self.plan.fates.len());
        self.plan.fates.push(Fate::Keep);
        self.leaf = Leaf {
            line,
            kind: Some(entity.kind.clone()),
            signed: entity.signed,
            ..Leaf::default()
        };
    }

    fn text(&mut self, octets: &[u8]) {
        let leaf = &mut self.leaf;
        leaf.octets += octets.len() as u64;
        leaf.high += octets.iter().filter(|octet| !octet.is_ascii()).count() as u64;
        leaf.column += octets.len() as u64;
        leaf.longest = leaf.longest.max(leaf.column);
    }

    fn line_end(&mut self) {
        self.leaf.octets += 2;
        self.leaf.column = 0;
    }

    fn outside(&mut self, _: &[u8]) {}

    fn leave(&mut self) {
        let Some(at) = self.open.pop() else { return };
        let leaf = std::mem::take(&mut self.leaf);
        let Some(kind) = leaf.kind else { return };
        let fits = (self.limits.eight_bit || leaf.high == 0) && leaf.longest <= self.limits.line;
        if fits {
            return;
        }
        let fate = match kind {
            // Letters with accents among others stay readable; other scripts take less room in base64.
            Kind::Text => match leaf.high * 2 > leaf.octets {
                true => Fate::Base64,
                false => Fate::QuotedPrintable,
            },
            Kind::Binary => Fate::Base64,
            Kind::Fixed(what) => return self.hinder(Obstacle::Part(leaf.line, what)),
            // Only what stands between its parts, which nobody reads.
            Kind::Multipart { .. } | Kind::Message => return,
        };
        self.plan.breaks_parts |= leaf.signed;
        for (place, fate) in
            std::iter::once((at, fate)).chain(self.open.iter().map(|at| (*at, Fate::Relabel)))
        {
            if let Some(slot) = self.plan.fates.get_mut(place) {
                *slot = fate;
            }
        }
    }

    fn hindrance(&mut self, obstacle: Obstacle) {
        self.hinder(obstacle);
    }
}

/// The second reading.
pub struct Conversion {
    walker: Walker,
    writing: Writing,
}

struct Writing {
    plan: Plan,
    limits: Limits,
    next: usize,
    note: String,
    encoder: Option<Encoder>,
    out: Vec<u8>,
}

impl Conversion {
    /// Starts to write a mail by the plan that [`Survey`] made of it with the same limits. `note` is a header field with its CRLF, for the end of the
    /// mail's own header section: that it was converted, and by whom.
    pub fn new(plan: Plan, limits: Limits, note: String) -> Self {
        Self {
            walker: Walker::new(),
            writing: Writing {
                plan,
                limits,
                next: 0,
                note,
                encoder: None,
                out: Vec::new(),
            },
        }
    }

    /// More of the canonical body; appends what is written to `out`.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        self.walker.push(octets, &mut self.writing);
        out.append(&mut self.writing.out);
    }

    /// The end of the body.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.walker.finish(&mut self.writing);
        out.append(&mut self.writing.out);
    }
}

impl Sink for Writing {
    fn entity(&mut self, entity: &Entity, header: &[u8], _: u64) {
        let fate = self.plan.fates.get(self.next).copied().unwrap_or(Fate::Keep);
        let top = self.next == 0;
        self.next += 1;
        let (label, encoder) = match fate {
            Fate::Keep => (None, None),
            // Long lines become short; what has 8 bits and may have them stays so.
            Fate::Relabel if self.limits.eight_bit => (None, None),
            Fate::Relabel => (entity.is_labelled.then_some("7bit"), None),
            Fate::QuotedPrintable => (Some("quoted-printable"), Some(Encoder::quoted_printable())),
            Fate::Base64 => (Some("base64"), Some(Encoder::base64())),
        };
        let note = if top { self.note.as_str() } else { "" };
        entity::rewrite(header, label, top && encoder.is_some(), note, &mut self.out);
        self.encoder = encoder;
    }

    fn text(&mut self, octets: &[u8]) {
        match &mut self.encoder {
            Some(encoder) => encoder.text(octets, &mut self.out),
            None => self.out.extend_from_slice(octets),
        }
    }

    fn line_end(&mut self) {
        match &mut self.encoder {
            Some(encoder) => encoder.line_end(&mut self.out),
            None => self.out.extend_from_slice(b"\r\n"),
        }
    }

    fn outside(&mut self, octets: &[u8]) {
        if self.limits.eight_bit {
            return self.out.extend_from_slice(octets);
        }
        // Nobody reads what stands between parts (RFC 2046 section 5.1.1).
        self.out.extend(
            octets
                .iter()
                .map(|octet| if octet.is_ascii() { *octet } else { b'?' }),
        );
    }

    fn leave(&mut self) {
        if let Some(encoder) = self.encoder.take() {
            encoder.finish(&mut self.out);
        }
    }

    fn hindrance(&mut self, _: Obstacle) {}
}
