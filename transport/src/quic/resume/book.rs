//! Everything that outlives the process, as it is known now.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::record::{Heard, LIMIT, Origin, Reader, Record, Writer};

/// How long a ticket is of use: gateways that run rustls give a day, and so do we.
pub(super) const TICKET_LIFE: u64 = 86_400;
/// How long an address-validation token is worth a try.
const TOKEN_LIFE: u64 = 14 * 86_400;
/// How long a measured round trip says something.
const ROUND_TRIP_LIFE: u64 = 30 * 86_400;
/// Handshakes that are kept, those included whose children are.
const RECORDS: usize = 128;
/// Gateways of which anything is kept.
pub(super) const GATEWAYS: usize = 256;
/// Address-validation tokens of one gateway.
pub(super) const TOKENS: usize = 2;

/// An address-validation token (RFC 9000 section 8.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) gateway: String,
    pub(super) at: u64,
    pub(super) octets: Vec<u8>,
}

/// One change.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A handshake that brought a ticket.
    Record(Record),
    /// More tickets of it.
    Heard { record: u64, heard: Heard },
    /// A ticket that is spent.
    Used(Origin),
    /// A round trip that was measured, in milliseconds.
    RoundTrip { gateway: String, at: u64, millis: u64 },
    /// An address-validation token.
    Token(Token),
    /// A token that is spent, or of no use.
    TokenUsed { gateway: String, octets: Vec<u8> },
}

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Self::Record(record) => {
                out.number(1);
                record.encode(&mut out);
            }
            Self::Heard { record, heard } => {
                out.number(2);
                out.number(*record);
                heard.encode(&mut out);
            }
            Self::Used(origin) => {
                out.number(3);
                out.origin(Some(*origin));
            }
            Self::RoundTrip { gateway, at, millis } => {
                out.number(4);
                out.octets(gateway.as_bytes());
                out.number(*at);
                out.number(*millis);
            }
            Self::Token(token) => {
                out.number(5);
                out.octets(token.gateway.as_bytes());
                out.number(token.at);
                out.octets(&token.octets);
            }
            Self::TokenUsed { gateway, octets } => {
                out.number(6);
                out.octets(gateway.as_bytes());
                out.octets(octets);
            }
        }
        out.0
    }

    /// `None`: not an entry of this version.
    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let mut from = Reader(octets);
        let entry = match from.number()? {
            1 => Self::Record(Record::decode(&mut from)?),
            2 => Self::Heard {
                record: from.number()?,
                heard: Heard::decode(&mut from)?,
            },
            3 => Self::Used(from.origin()??),
            4 => Self::RoundTrip {
                gateway: from.text()?,
                at: from.number()?,
                millis: from.number()?,
            },
            5 => Self::Token(Token {
                gateway: from.text()?,
                at: from.number()?,
                octets: from.octets()?.to_vec(),
            }),
            6 => Self::TokenUsed {
                gateway: from.text()?,
                octets: from.octets()?.to_vec(),
            },
            _ => return None,
        };
        from.0.is_empty().then_some(entry)
    }
}

/// What all entries together come to.
#[derive(Default)]
pub(super) struct Book {
    pub(super) records: BTreeMap<u64, Record>,
    pub(super) used: HashSet<Origin>,
    /// When, and how many milliseconds.
    pub(super) round_trips: HashMap<String, (u64, u64)>,
    /// The oldest first.
    pub(super) tokens: Vec<Token>,
}

impl Book {
    pub(super) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Record(record) if record.size() <= 2 * LIMIT => {
                self.records.insert(record.id, record);
            }
            Entry::Heard { record, heard } => {
                if let Some(record) = self.records.get_mut(&record)
                    && record.size() + heard.octets.len() <= 2 * LIMIT
                {
                    record.heard.push(heard);
                }
            }
            Entry::Record(_) => {}
            Entry::Used(origin) => {
                self.used.insert(origin);
            }
            Entry::RoundTrip { gateway, at, millis } => {
                self.round_trips.insert(gateway, (at, millis));
            }
            Entry::Token(token) => self.tokens.push(token),
            Entry::TokenUsed { gateway, octets } => self
                .tokens
                .retain(|token| token.gateway != gateway || token.octets != octets),
        }
    }

    /// Whether a ticket that came `at` can still be used.
    pub(super) fn fresh(at: u64, now: u64) -> bool {
        at.saturating_add(TICKET_LIFE) > now
    }

    /// Forgets what is of no use `now`, or too much.
    pub(super) fn prune(&mut self, now: u64) {
        let mut needed = BTreeSet::new();
        for record in self.records.values().rev() {
            let alive = record
                .tickets()
                .any(|(origin, at)| Self::fresh(at, now) && !self.used.contains(&origin));
            if let Some(line) = alive.then(|| self.ancestry(record)).flatten()
                && needed.union(&line).count() <= RECORDS
            {
                needed.extend(line);
            }
        }
        self.records.retain(|id, _| needed.contains(id));
        self.used.retain(|origin| needed.contains(&origin.record));
        self.round_trips
            .retain(|_, (at, _)| at.saturating_add(ROUND_TRIP_LIFE) > now);
        if self.round_trips.len() > GATEWAYS {
            let mut ages: Vec<_> = self.round_trips.values().map(|(at, _)| *at).collect();
            ages.sort_unstable();
            let oldest = ages[ages.len() - GATEWAYS];
            self.round_trips.retain(|_, (at, _)| *at >= oldest);
        }
        self.prune_tokens(now);
    }

    fn prune_tokens(&mut self, now: u64) {
        let mut counts: HashMap<String, usize> = HashMap::new();
        let mut kept = Vec::new();
        for token in self.tokens.drain(..).rev() {
            let known = counts.len();
            let Some(count) = (match counts.get_mut(&token.gateway) {
                Some(count) => Some(count),
                None if known < GATEWAYS => Some(counts.entry(token.gateway.clone()).or_default()),
                None => None,
            }) else {
                continue;
            };
            if token.at.saturating_add(TOKEN_LIFE) > now && *count < TOKENS {
                *count += 1;
                kept.push(token);
            }
        }
        kept.reverse();
        self.tokens = kept;
    }

    /// `record` and those that have to be played before it; `None` when one is missing.
    fn ancestry(&self, record: &Record) -> Option<BTreeSet<u64>> {
        let (mut line, mut next) = (BTreeSet::from([record.id]), record.parent);
        while let Some(parent) = next {
            // Parents are older, so this ends.
            let parent = self
                .records
                .get(&parent.record)
                .filter(|parent| line.first().is_some_and(|child| parent.id < *child))?;
            line.insert(parent.id);
            next = parent.parent;
        }
        Some(line)
    }

    /// As few entries as say it all.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let records = self.records.values().cloned().map(Entry::Record);
        let used = self.used.iter().copied().map(Entry::Used);
        let round_trips = self
            .round_trips
            .iter()
            .map(|(gateway, (at, millis))| Entry::RoundTrip {
                gateway: gateway.clone(),
                at: *at,
                millis: *millis,
            });
        let tokens = self.tokens.iter().cloned().map(Entry::Token);
        records.chain(used).chain(round_trips).chain(tokens)
    }
}
