//! What is kept of a handshake, and how it stands in the file.

use super::stage::{Draw, Kind};

/// Octets of what a gateway said in one handshake that are kept; a handshake with more is not kept at all.
pub(super) const LIMIT: usize = 64 << 10;
/// Pieces of it.
const PIECES: usize = 256;

/// A ticket: the `index`th of the handshake `record`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Origin {
    pub(super) record: u64,
    pub(super) index: u16,
}

/// Something that the gateway said.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Heard {
    /// When, in seconds since 1970.
    pub(super) at: u64,
    pub(super) octets: Vec<u8>,
    /// The tickets in it.
    pub(super) tickets: u16,
}

/// A handshake, complete enough to be played again.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: u64,
    /// The gateway that it was with.
    pub(super) gateway: String,
    /// The ticket that it resumed.
    pub(super) parent: Option<Origin>,
    /// The name in the certificate.
    pub(super) name: String,
    /// Our transport parameters, encoded.
    pub(super) parameters: Vec<u8>,
    /// TLS time at its beginning.
    pub(super) begun: u64,
    /// The group that it began with, when it was not the first.
    pub(super) group: Option<u16>,
    pub(super) draws: Vec<Draw>,
    pub(super) heard: Vec<Heard>,
    /// SHA-256 of what we said.
    pub(super) said: [u8; 32],
}

impl Record {
    /// The tickets that it brought, and when.
    pub(super) fn tickets(&self) -> impl Iterator<Item = (Origin, u64)> {
        let each = self
            .heard
            .iter()
            .flat_map(|heard| std::iter::repeat_n(heard.at, heard.tickets.into()));
        each.zip(0u16..).map(|(at, index)| {
            let record = self.id;
            (Origin { record, index }, at)
        })
    }

    /// Octets of what was heard.
    pub(super) fn size(&self) -> usize {
        self.heard.iter().map(|heard| heard.octets.len() + 64).sum()
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        out.number(self.id);
        out.octets(self.gateway.as_bytes());
        out.origin(self.parent);
        out.octets(self.name.as_bytes());
        out.octets(&self.parameters);
        out.number(self.begun);
        out.number(self.group.map_or(u64::MAX, u64::from));
        out.number(self.draws.len() as u64);
        for draw in &self.draws {
            out.number(draw.kind as u64);
            out.octets(&draw.octets);
        }
        out.number(self.heard.len() as u64);
        for heard in &self.heard {
            heard.encode(out);
        }
        out.octets(&self.said);
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            id: from.number()?,
            gateway: from.text()?,
            parent: from.origin()?,
            name: from.text()?,
            parameters: from.octets()?.to_vec(),
            begun: from.number()?,
            group: match from.number()? {
                u64::MAX => None,
                group => Some(group.try_into().ok()?),
            },
            draws: from.list(|from| {
                Some(Draw {
                    kind: Kind::from_octet(from.number()?.try_into().ok()?)?,
                    octets: from.octets()?.to_vec(),
                })
            })?,
            heard: from.list(Heard::decode)?,
            said: from.octets()?.try_into().ok()?,
        })
    }
}

impl Heard {
    pub(super) fn encode(&self, out: &mut Writer) {
        out.number(self.at);
        out.octets(&self.octets);
        out.number(self.tickets.into());
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            at: from.number()?,
            octets: from.octets()?.to_vec(),
            tickets: from.number()?.try_into().ok()?,
        })
    }
}

/// Writes numbers of eight octets and strings with their lengths.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub(super) fn octets(&mut self, octets: &[u8]) {
        self.number(octets.len() as u64);
        self.0.extend_from_slice(octets);
    }

    pub(super) fn origin(&mut self, origin: Option<Origin>) {
        self.number(origin.is_some().into());
        if let Some(origin) = origin {
            self.number(origin.record);
            self.number(origin.index.into());
        }
    }
}

/// Reads what a [`Writer`] wrote, and believes nothing of it.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }

    pub(super) fn octets(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?.try_into().ok()?;
        let (octets, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(octets)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.octets()?.to_vec()).ok()
    }

    pub(super) fn origin(&mut self) -> Option<Option<Origin>> {
        if self.number()? == 0 {
            return Some(None);
        }
        Some(Some(Origin {
            record: self.number()?,
            index: self.number()?.try_into().ok()?,
        }))
    }

    fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()?;
        if count > PIECES as u64 {
            return None;
        }
        (0..count).map(|_| each(self)).collect()
    }
}
