//! The tickets at hand.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lightpost_clock::Clock;
use quinn::{ClientConfig, crypto::rustls::QuicClientConfig};
use rustls::{NamedGroup, client::Tls13ClientSessionValue};

use super::{
    book::{Book, Entry, GATEWAYS},
    journal::Journal,
    record::{Heard, Origin, Record},
    recorder::Recorder,
    tokens::Tokens,
};

/// Tickets of one gateway that are kept.
const TICKETS: usize = 8;
/// How fast a round trip can grow: nothing that we talk to recedes at more than 30 km/s, there and back.
const RECEDING: f64 = 2e-4;
/// How much a measurement may be off.
const JITTER: Duration = Duration::from_secs(5);

/// Handshakes that may hang on one another before the line of them is begun anew.
const LINE: u16 = 8;

/// In what state the newest ticket of a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wear {
    /// It is young.
    Fresh,
    /// It is old, or there is none.
    Old,
    /// It hangs on many handshakes.
    Long,
}

/// A session that can be resumed, once.
pub(crate) struct Ticket {
    pub(super) value: Tls13ClientSessionValue,
    /// When it came, in seconds since 1970.
    pub(super) at: u64,
    /// Where it can be played from, and how many handshakes hang on one another there.
    pub(super) origin: Option<(Origin, u16)>,
}

/// What is known of one gateway.
#[derive(Default)]
pub(super) struct Gateway {
    /// The oldest first.
    pub(super) tickets: Vec<Ticket>,
    pub(super) group: Option<NamedGroup>,
    /// Round trip as measured, and when.
    pub(super) round_trip: Option<(u64, Duration)>,
    /// Address-validation tokens, the oldest first.
    pub(super) tokens: Vec<Vec<u8>>,
    touched: u64,
}

/// The sessions with all gateways.
pub(crate) struct Sessions {
    clock: Clock,
    pub(super) gateways: Mutex<HashMap<Arc<str>, Gateway>>,
    pub(super) journal: Option<Journal>,
    /// The id of the next record.
    next: Mutex<u64>,
    /// Whether a task that writes is about to begin.
    flushing: AtomicBool,
}

impl Sessions {
    /// Reads what `file` keeps, and keeps it there from now on; without one, nothing outlives the process. Blocks.
    pub(crate) fn open(file: Option<&Path>, clock: Clock) -> Arc<Self> {
        let now = seconds(&clock);
        let journal = file.and_then(|file| Journal::open(file, now));
        let last = journal
            .as_ref()
            .and_then(|journal| journal.look(|book| book.records.keys().last().copied()));
        Arc::new(Self {
            clock,
            gateways: Mutex::default(),
            journal,
            next: Mutex::new(last.unwrap_or(0).saturating_add(1)),
            flushing: AtomicBool::new(false),
        })
    }

    /// The newest ticket of `gateway`, if there is one. It is spent from here on, on disk, too.
    pub(crate) async fn ticket(self: &Arc<Self>, gateway: &str) -> Option<Ticket> {
        let now = self.now();
        let ticket = {
            let mut gateways = self.gateways();
            let tickets = &mut gateways.get_mut(gateway)?.tickets;
            tickets.retain(|ticket| Book::fresh(ticket.at, now));
            tickets.pop()?
        };
        if let Some((origin, _)) = ticket.origin {
            self.note(Entry::Used(origin));
            self.flush().await;
        }
        Some(ticket)
    }

    /// What to open a connection to `gateway` with: `ticket` is used in its first flight, dated `ahead` of the clock.
    pub(crate) fn dial(
        self: &Arc<Self>,
        crypto: Arc<QuicClientConfig>,
        gateway: &str,
        ticket: Option<Ticket>,
        ahead: Duration,
    ) -> ClientConfig {
        let gateway: Arc<str> = gateway.into();
        let mut config = ClientConfig::new(Arc::new(Recorder {
            crypto,
            sessions: self.clone(),
            gateway: gateway.clone(),
            ticket: Mutex::new(ticket),
            now: self.now().saturating_add(ahead.as_secs_f64().round() as u64),
        }));
        let sessions = self.clone();
        config.token_store(Arc::new(Tokens::new(sessions, gateway)));
        config
    }

    /// The round trip to `gateway` as last measured.
    pub(crate) fn round_trip(&self, gateway: &str) -> Option<Duration> {
        Some(self.gateways().get(gateway)?.round_trip?.1)
    }

    /// A handshake with `gateway` took `span`, which an outage or a loss may have made longer than the round trip is.
    pub(crate) fn measured(self: &Arc<Self>, gateway: &str, span: Duration) {
        let now = self.now();
        let believed = {
            let mut gateways = self.gateways();
            let gateway = place(&mut gateways, gateway, now);
            let before = gateway.round_trip;
            let most = before.map_or(Duration::MAX, |(at, before)| {
                let receded = now.saturating_sub(at) as f64 * RECEDING;
                before + JITTER + Duration::from_secs_f64(receded)
            });
            let believed = span.min(most);
            gateway.round_trip = Some((now, believed));
            // Tickets are dated in seconds.
            let news = before.is_none_or(|(at, before)| {
                believed.abs_diff(before) >= Duration::from_secs(1) || at + 86_400 < now
            });
            news.then_some(believed)
        };
        if let Some(believed) = believed {
            self.note(Entry::RoundTrip {
                gateway: gateway.to_owned(),
                at: now,
                millis: u64::try_from(believed.as_millis()).unwrap_or(u64::MAX),
            });
            self.flush_soon();
        }
    }

    /// `gateway` did not like a session: the others with it are of no use, either.
    pub(crate) fn forget(self: &Arc<Self>, gateway: &str) {
        let dropped = {
            let mut gateways = self.gateways();
            gateways
                .get_mut(gateway)
                .map(|gateway| std::mem::take(&mut gateway.tickets))
        };
        for (origin, _) in dropped.into_iter().flatten().filter_map(|ticket| ticket.origin) {
            self.note(Entry::Used(origin));
        }
        self.flush_soon();
    }

    /// Whether a fresh handshake with `gateway` would serve: its newest ticket is older than `age`, or hangs on so many handshakes
    /// that the line of them should begin anew.
    pub(crate) fn wear(&self, gateway: &str, age: Duration) -> Wear {
        let now = self.now();
        let gateways = self.gateways();
        let newest = gateways.get(gateway).and_then(|gateway| gateway.tickets.last());
        match newest {
            Some(ticket) if ticket.origin.is_some_and(|(_, depth)| depth >= LINE) => Wear::Long,
            Some(ticket) if ticket.at.saturating_add(age.as_secs()) > now => Wear::Fresh,
            _ => Wear::Old,
        }
    }

    /// How many tickets of `gateway` there are.
    #[cfg(test)]
    pub(crate) fn stock(&self, gateway: &str) -> usize {
        let gateways = self.gateways();
        gateways.get(gateway).map_or(0, |gateway| gateway.tickets.len())
    }

    /// How many handshakes the newest ticket of `gateway` hangs on.
    #[cfg(test)]
    pub(crate) fn depth(&self, gateway: &str) -> u16 {
        let gateways = self.gateways();
        let newest = gateways.get(gateway).and_then(|gateway| gateway.tickets.last());
        newest
            .and_then(|ticket| ticket.origin)
            .map_or(0, |(_, depth)| depth)
    }

    /// Takes `span` for the round trip to `gateway`, whatever was measured.
    #[cfg(test)]
    pub(crate) fn believe(&self, gateway: &str, span: Duration) {
        let now = self.now();
        place(&mut self.gateways(), gateway, now).round_trip = Some((now, span));
    }

    /// Waits until everything is on disk.
    pub(crate) async fn flush(self: &Arc<Self>) {
        if self.journal.is_some() {
            let sessions = self.clone();
            // Ends early only when the runtime does.
            let _ = tokio::task::spawn_blocking(move || sessions.write()).await;
        }
    }

    pub(super) fn now(&self) -> u64 {
        seconds(&self.clock)
    }

    /// Whether anything outlives the process.
    pub(super) fn keeps(&self) -> bool {
        self.journal.is_some()
    }

    pub(super) fn group(&self, gateway: &str) -> Option<NamedGroup> {
        self.gateways().get(gateway)?.group
    }

    pub(super) fn set_group(&self, gateway: &str, group: Option<NamedGroup>) {
        if group.is_some() {
            let now = self.now();
            place(&mut self.gateways(), gateway, now).group = group;
        }
    }

    /// Adds tickets that came just now.
    pub(super) fn put(&self, gateway: &str, tickets: impl Iterator<Item = Ticket>) {
        let mut tickets = tickets.peekable();
        if tickets.peek().is_none() {
            return;
        }
        let now = self.now();
        let mut gateways = self.gateways();
        let gateway = place(&mut gateways, gateway, now);
        gateway.tickets.extend(tickets);
        self.limit(gateway);
    }

    /// Drops the oldest tickets, when there are too many, here and on disk.
    pub(super) fn limit(&self, gateway: &mut Gateway) {
        let excess = gateway.tickets.len().saturating_sub(TICKETS);
        for (origin, _) in gateway.tickets.drain(..excess).filter_map(|ticket| ticket.origin) {
            self.note(Entry::Used(origin));
        }
    }

    /// Keeps a handshake; its id.
    pub(super) fn keep_record(self: &Arc<Self>, mut record: Record) -> Option<u64> {
        self.journal.as_ref()?;
        let id = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let id = *next;
            *next = id.checked_add(1)?;
            id
        };
        record.id = id;
        self.note(Entry::Record(record));
        self.flush_soon();
        Some(id)
    }

    /// Keeps what else came of the handshake `record`.
    pub(super) fn keep_heard(self: &Arc<Self>, record: u64, heard: Heard) {
        self.note(Entry::Heard { record, heard });
        self.flush_soon();
    }

    pub(super) fn note(&self, entry: Entry) {
        if let Some(journal) = &self.journal {
            journal.note(entry);
        }
    }

    /// Writes without keeping anybody waiting.
    pub(super) fn flush_soon(self: &Arc<Self>) {
        if self.journal.is_none() {
            return;
        }
        let sessions = self.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(_) if self.flushing.swap(true, Ordering::AcqRel) => {}
            Ok(runtime) => drop(runtime.spawn_blocking(move || {
                // What is noted from here on may need another one.
                sessions.flushing.store(false, Ordering::Release);
                sessions.write();
            })),
            Err(_) => sessions.write(),
        }
    }

    fn write(&self) {
        if let Some(journal) = &self.journal {
            journal.flush(self.now());
        }
    }

    pub(super) fn gateways(&self) -> MutexGuard<'_, HashMap<Arc<str>, Gateway>> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of `name`, made when there is none, for which the one that was longest of no use is forgotten.
pub(super) fn place<'a>(
    gateways: &'a mut HashMap<Arc<str>, Gateway>,
    name: &str,
    now: u64,
) -> &'a mut Gateway {
    if gateways.len() >= GATEWAYS && !gateways.contains_key(name) {
        let longest = gateways.iter().min_by_key(|(_, gateway)| gateway.touched);
        if let Some(longest) = longest.map(|(name, _)| name.clone()) {
            gateways.remove(&longest);
        }
    }
    let gateway = gateways.entry(name.into()).or_default();
    gateway.touched = now;
    gateway
}

fn seconds(clock: &Clock) -> u64 {
    clock.now().as_second().try_into().unwrap_or(0)
}
