//! Who may stay when many want to: connections by what is known of them.
//!
//! Anybody can open a connection; a forged address opens one with a single packet. Refusing everybody else at a limit would let
//! a stranger close the gateway for as long as a handshake may take, which in deep space is hours. So a newcomer always finds room:
//! the oldest of those leaves of whom least is known. A connection that has proven itself, by a client certificate or
//! by a request that was granted, is counted apart and never makes room for a stranger. So a flood of forged first packets
//! displaces the handshakes of those only of whom nothing is known: a client that resumes a session, brings a token, or comes
//! from where a proven one came before, ranks above the forged ones.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use lightpost_clock::{Clock, Instant};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::Path;

/// How often the memory that strangers hold is looked at.
const RELIEF: Duration = Duration::from_secs(1);

/// How many may stay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections that have proven nothing.
    pub(crate) strangers: usize,
    /// Of these, from one address (IPv6: one network of 64 bits).
    pub(crate) per_source: usize,
    /// Connections that have proven themselves.
    pub(crate) proven: usize,
    /// Strangers from which on newcomers have to work for their place.
    pub(crate) pressure: usize,
    /// Octets that strangers together may keep in our memory.
    pub(crate) octets: u64,
    /// Newcomers in a second of whom nothing is known, from the pressure on.
    pub(crate) rate: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            strangers: 1024,
            per_source: 64,
            proven: 4096,
            pressure: 256,
            octets: 256 << 20,
            rate: f64::INFINITY,
        }
    }
}

impl Limits {
    /// The same for clients that come by `paths`. Under pressure, those of whom nothing is known are let in no faster than they find
    /// the time to end their handshakes before they have to make room, and than a quarter of the line carries what they may be sent:
    /// a flood of forged first packets would else fill both, and nobody new would get through at all. So it is a matter of luck,
    /// and a client that is not heard tries again.
    pub(crate) fn on(mut self, paths: &[Path]) -> Self {
        let round_trip = paths.iter().map(Path::round_trip_max).max().unwrap_or_default();
        let line = paths.iter().map(|path| path.rate_up.0).fold(0.0, f64::max);
        if round_trip > Duration::ZERO && line > 0.0 {
            let in_time = self.strangers as f64 / (2.0 * round_trip.as_secs_f64());
            self.rate = in_time.min(line / 4.0 / UNANSWERED_BITS);
        }
        self
    }
}

/// Bits that a newcomer may be sent before it has answered: three times its first packet (RFC 9000 section 8.1).
const UNANSWERED_BITS: f64 = 3.0 * 1200.0 * 8.0;
/// Newcomers of whom nothing is known that may come at once.
const AT_ONCE: f64 = 4.0;
/// Sources of proven connections that are remembered.
const FAMILIAR: usize = 1024;

/// What is known of a connection, least first; in this order they make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Its address may be forged.
    Forgeable,
    /// So may be this one, but by somebody who knows from where a peer has come that has proven itself.
    Familiar,
    /// A token shows that its address is real.
    Validated,
    /// Its handshake is complete.
    Connected,
    /// One of its requests is being worked on.
    Busy,
}

/// The order in which connections make room: by stage, then by age (strangers) or last use (the proven).
type Rank = (Stage, u64, u64);

/// Tells how many octets of a connection are in our memory.
pub(crate) type Weight = Box<dyn Fn() -> u64 + Send + Sync>;

/// The connections of one listener.
pub(crate) struct Gate {
    limits: Limits,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Whether the operator was told that strangers abound.
    told: bool,
    /// How many of whom nothing is known may be let in now, as of when.
    allowance: Option<(f64, Instant)>,
    /// How many were not since the operator was told.
    unheard: u64,
    entries: HashMap<u64, Entry>,
    strangers: BTreeSet<Rank>,
    sources: HashMap<IpAddr, BTreeSet<Rank>>,
    proven: BTreeSet<Rank>,
    /// From where the proven came, and when last.
    familiar: HashMap<IpAddr, u64>,
}

struct Entry {
    out: CancellationToken,
    source: IpAddr,
    stage: Stage,
    since: u64,
    running: usize,
    proven: bool,
    weight: Option<Weight>,
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
            arrived: Notify::new(),
        })
    }

    /// Whether newcomers have to work for their place.
    pub(crate) fn is_pressed(&self) -> bool {
        self.state().strangers.len() >= self.limits.pressure
    }

    /// Whether a newcomer is let in; if not, its packet should be passed over in silence.
    pub(crate) fn admits(&self, address: SocketAddr, validated: bool, now: Instant) -> bool {
        let mut state = self.state();
        let known = validated || state.familiar.contains_key(&source(address.ip()));
        if known || state.strangers.len() < self.limits.pressure {
            return true;
        }
        let (before, since) = state.allowance.unwrap_or((AT_ONCE, now));
        let gained = now.duration_since(since).as_secs_f64() * self.limits.rate;
        // Nothing times infinity is no number.
        let allowance = if gained.is_nan() {
            AT_ONCE
        } else {
            (before + gained).min(AT_ONCE)
        };
        let admitted = allowance >= 1.0;
        let left = if admitted { allowance - 1.0 } else { allowance };
        state.allowance = Some((left, now));
        state.unheard += u64::from(!admitted);
        admitted
    }

    /// Whether a connection from where `address` is has proven itself lately.
    pub(crate) fn is_familiar(&self, address: SocketAddr) -> bool {
        self.state().familiar.contains_key(&source(address.ip()))
    }

    /// A place for a connection from `address`; `None` when all others are being served.
    pub(crate) fn enter(self: &Arc<Self>, address: SocketAddr, validated: bool) -> Option<Seat> {
        let source = source(address.ip());
        let out = CancellationToken::new();
        let mut state = self.state();
        let of_source = state.sources.get(&source);
        let full = of_source.filter(|of_source| of_source.len() >= self.limits.per_source);
        let mut first = full.and_then(|of_source| of_source.first().copied());
        if first.is_none() && state.strangers.len() >= self.limits.strangers {
            first = state.strangers.first().copied();
        }
        match first {
            Some((Stage::Busy, ..)) => return None,
            Some((_, _, id)) => state.evict(id),
            None => {}
        }
        let id = state.tick();
        let entry = Entry {
            out: out.clone(),
            source,
            stage: match validated {
                true => Stage::Validated,
                false if state.familiar.contains_key(&source) => Stage::Familiar,
                false => Stage::Forgeable,
            },
            since: id,
            running: 0,
            proven: false,
            weight: None,
        };
        state.entries.insert(id, entry);
        state.place(id);
        state.tell(self.limits);
        drop(state);
        self.arrived.notify_one();
        Some(Seat {
            gate: self.clone(),
            id,
            out,
            proven: AtomicBool::new(false),
            served: AtomicU64::new(0),
        })
    }

    /// Watches what strangers keep in our memory, for ever.
    pub(crate) async fn watch(&self, clock: &Clock) {
        loop {
            if self.state().strangers.is_empty() {
                self.arrived.notified().await;
            }
            clock.sleep(RELIEF).await;
            self.relieve();
        }
    }

    /// Lets strangers go, heaviest first, until the others keep no more octets than they may.
    fn relieve(&self) {
        let mut state = self.state();
        let strangers = state.strangers.iter();
        let mut weights: Vec<(u64, u64)> = strangers
            .filter_map(|(.., id)| Some((state.entries.get(id)?.weight.as_ref()?(), *id)))
            .collect();
        let mut total: u64 = weights.iter().map(|(octets, _)| octets).sum();
        weights.sort_unstable();
        while let Some((octets, id)) = weights.pop()
            && total > self.limits.octets
        {
            state.evict(id);
            total -= octets;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// One line when the pressure begins, not one for each packet.
    fn tell(&mut self, limits: Limits) {
        let strangers = self.strangers.len();
        if !self.told && strangers >= limits.pressure {
            self.told = true;
            tracing::warn!(
                strangers,
                limit = limits.strangers,
                proven = self.proven.len(),
                "many connections have proven nothing; beyond the limit the oldest of them make room"
            );
        } else if self.told && strangers < limits.pressure / 2 {
            let unheard = std::mem::take(&mut self.unheard);
            tracing::info!(unheard, "there are few again of those that have proven nothing");
            self.told = false;
        }
    }

    /// Remembers from where a proven connection came.
    fn know(&mut self, source: IpAddr, now: u64) {
        self.familiar.insert(source, now);
        if self.familiar.len() > FAMILIAR {
            let longest_ago = self.familiar.iter().min_by_key(|(_, when)| **when);
            if let Some(source) = longest_ago.map(|(source, _)| *source) {
                self.familiar.remove(&source);
            }
        }
    }

    fn evict(&mut self, id: u64) {
        self.displace(id);
        if let Some(entry) = self.entries.remove(&id) {
            entry.out.cancel();
        }
    }

    /// Changes an entry, wherever it stands; nothing when it has left.
    fn change(&mut self, id: u64, change: impl FnOnce(&mut Entry)) {
        self.displace(id);
        if let Some(entry) = self.entries.get_mut(&id) {
            change(entry);
        }
        self.place(id);
    }

    fn place(&mut self, id: u64) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        let rank = entry.rank(id);
        match entry.proven {
            true => self.proven.insert(rank),
            false => {
                self.sources.entry(entry.source).or_default().insert(rank);
                self.strangers.insert(rank)
            }
        };
    }

    fn displace(&mut self, id: u64) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        let rank = entry.rank(id);
        self.proven.remove(&rank);
        self.strangers.remove(&rank);
        if let Some(of_source) = self.sources.get_mut(&entry.source) {
            of_source.remove(&rank);
            if of_source.is_empty() {
                self.sources.remove(&entry.source);
            }
        }
    }
}

impl Entry {
    fn rank(&self, id: u64) -> Rank {
        match self.running {
            0 => (self.stage, self.since, id),
            _ => (Stage::Busy, self.since, id),
        }
    }
}

/// A connection's place, until it is dropped.
pub(crate) struct Seat {
    gate: Arc<Gate>,
    id: u64,
    out: CancellationToken,
    proven: AtomicBool,
    served: AtomicU64,
}

impl Seat {
    /// Ends when the connection has to go.
    pub(crate) fn evicted(&self) -> WaitForCancellationFuture<'_> {
        self.out.cancelled()
    }

    /// How to know what the connection keeps in our memory.
    pub(crate) fn weigh(&self, weight: Weight) {
        self.gate
            .state()
            .change(self.id, |entry| entry.weight = Some(weight));
    }

    /// Its handshake is complete.
    pub(crate) fn connected(&self) {
        self.gate
            .state()
            .change(self.id, |entry| entry.stage = Stage::Connected);
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// The peer is no stranger; whether this is new. Among the proven the one makes room that was unused for longest.
    pub(crate) fn prove(&self) -> bool {
        if self.is_proven() {
            return false;
        }
        let mut state = self.gate.state();
        if state.proven.len() >= self.gate.limits.proven {
            match state.proven.first().copied() {
                Some((Stage::Busy, ..)) | None => return false,
                Some((_, _, id)) => state.evict(id),
            }
        }
        let now = state.tick();
        if let Some(source) = state.entries.get(&self.id).map(|entry| entry.source) {
            state.know(source, now);
        }
        state.change(self.id, |entry| {
            (entry.proven, entry.stage, entry.since) = (true, Stage::Connected, now);
        });
        !self.proven.swap(true, Ordering::Relaxed)
    }

    fn is_busy(&self) -> bool {
        let state = self.gate.state();
        state.entries.get(&self.id).is_some_and(|entry| entry.running > 0)
    }

    /// Ends when a stranger does nothing with its connection for `span`; never once it has proven itself.
    pub(crate) async fn unused(&self, clock: &Clock, span: Duration) {
        while !self.is_proven() {
            let before = self.served.load(Ordering::Relaxed);
            clock.sleep(span).await;
            let served = self.served.load(Ordering::Relaxed);
            if served == before && !self.is_busy() && !self.is_proven() {
                return;
            }
        }
        std::future::pending().await
    }

    /// A request is worked on until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Working {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.count(|running| running + 1);
        Working(self.clone())
    }

    fn count(&self, count: impl FnOnce(usize) -> usize) {
        let mut state = self.gate.state();
        let now = state.tick();
        let Some(entry) = state.entries.get_mut(&self.id) else {
            return;
        };
        let running = count(entry.running);
        // Most of the time others run beside, and the order stays.
        if entry.running > 0 && running > 0 {
            entry.running = running;
            return;
        }
        state.change(self.id, |entry| {
            entry.running = running;
            if entry.proven {
                entry.since = now;
            }
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.displace(self.id);
        state.entries.remove(&self.id);
    }
}

/// A request that is being worked on.
pub(crate) struct Working(Arc<Seat>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.count(|running| running.saturating_sub(1));
    }
}

/// What counts as one source: whoever has an IPv6 address usually has the 64 bits behind it as well.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests;
