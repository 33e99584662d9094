//! The sessions themselves: in memory, bounded, each good for one use.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustls::{server::StoresServerSessions, time_provider::TimeProvider};
use tokio::sync::Notify;

use super::{hello::Offer, value};

/// How long a client may offer a session (rustls 0.23, server/tls13.rs; the ticket says so).
pub(super) const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Octets of one session at most; a client's certificate chain is in it.
const LARGEST: usize = 16 << 10;
/// What an entry costs besides its octets.
const OVERHEAD: usize = 200;

/// How much may be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Sessions.
    pub(super) sessions: usize,
    /// Octets.
    pub(super) octets: usize,
}

impl Default for Bounds {
    /// Eight tickets a handshake: a thousand handshakes a day, or as many clients.
    fn default() -> Self {
        Self {
            sessions: 8_192,
            octets: 16 << 20,
        }
    }
}

/// One session.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// Its name on the wire.
    pub(super) ticket: Vec<u8>,
    /// Secrets.
    pub(super) value: Vec<u8>,
    /// When it was made, in seconds since 1970.
    pub(super) made: u64,
    /// Whether its client has shown a certificate.
    pub(super) identified: bool,
    /// Whether its value says when it was made where we expect that.
    pub(super) revealing: bool,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("made", &self.made)
            .field("identified", &self.identified)
            .finish_non_exhaustive()
    }
}

impl Kept {
    fn weight(&self) -> usize {
        self.value.len() + 2 * self.ticket.len() + OVERHEAD
    }
}

/// The sessions of one listener.
pub(crate) struct Sessions {
    time: Arc<dyn TimeProvider>,
    tolerance: Duration,
    bounds: Bounds,
    state: Mutex<State>,
    /// Told of each change.
    pub(super) changed: Notify,
    strange: AtomicBool,
}

#[derive(Default)]
struct State {
    next: u64,
    kept: HashMap<Vec<u8>, (u64, Kept)>,
    /// Those with and those without a certificate, oldest first.
    order: [BTreeMap<u64, Vec<u8>>; 2],
    octets: [usize; 2],
}

/// What rustls' calls to the store have to do with the handshake during which they are made.
#[derive(Default)]
struct Call {
    offer: Option<Offer>,
    made: Vec<Vec<u8>>,
}

thread_local! {
    /// rustls calls the store on the thread on which quinn hands it octets, and before it returns.
    static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
}

impl Sessions {
    /// None yet. Ages are told by `time`, which TLS has to use as well; a client may be wrong about one by `tolerance`.
    pub(super) fn new(time: Arc<dyn TimeProvider>, tolerance: Duration, bounds: Bounds) -> Self {
        Self {
            time,
            tolerance,
            bounds,
            state: Mutex::default(),
            changed: Notify::new(),
            strange: AtomicBool::new(false),
        }
    }

    /// Runs `read`, during which TLS may look for the session in `offer`; what it returns, and the sessions made meanwhile.
    pub(super) fn during<T>(&self, offer: Option<Offer>, read: impl FnOnce() -> T) -> (T, Vec<Vec<u8>>) {
        CALL.set(Some(Call {
            offer,
            made: Vec::new(),
        }));
        let result = read();
        (result, CALL.take().unwrap_or_default().made)
    }

    /// The client of these sessions has shown a certificate: they never make room for a stranger's.
    pub(super) fn identified(&self, tickets: &[Vec<u8>]) {
        let mut state = self.state();
        for ticket in tickets {
            if let Some(mut kept) = state.remove(ticket) {
                kept.identified = true;
                state.insert(kept);
            }
        }
    }

    /// All that may still be resumed, oldest first; forgets the others.
    pub(super) fn all(&self) -> Vec<Kept> {
        let mut state = self.state();
        self.sweep(&mut state);
        let mut all: Vec<_> = state.kept.values().cloned().collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, kept)| kept).collect()
    }

    /// Adds what an earlier run has kept, oldest first.
    pub(super) fn restore(&self, kept: Vec<Kept>) {
        let mut state = self.state();
        for kept in kept {
            state.insert(kept);
            state.make_room(self.bounds);
        }
        self.sweep(&mut state);
    }

    /// A session is of no use once its client may not offer it any more; the offer may be as late as its age may be wrong.
    fn sweep(&self, state: &mut State) {
        let longest = LIFETIME.saturating_add(self.tolerance).as_secs();
        let oldest = self.now().saturating_sub(longest);
        while let Some(ticket) = state.oldest(|kept| kept.made < oldest) {
            state.remove(&ticket);
        }
    }

    fn now(&self) -> u64 {
        self.time.current_time().map_or(0, |time| time.as_secs())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_strange(&self) {
        if !self.strange.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "sessions are not laid out as expected; early data is accepted up to a minute of delay only"
            );
        }
    }
}

impl State {
    fn insert(&mut self, kept: Kept) {
        self.remove(&kept.ticket);
        self.next += 1;
        let class = usize::from(kept.identified);
        self.octets[class] += kept.weight();
        self.order[class].insert(self.next, kept.ticket.clone());
        self.kept.insert(kept.ticket.clone(), (self.next, kept));
    }

    fn remove(&mut self, ticket: &[u8]) -> Option<Kept> {
        let (number, kept) = self.kept.remove(ticket)?;
        let class = usize::from(kept.identified);
        self.octets[class] -= kept.weight();
        self.order[class].remove(&number);
        Some(kept)
    }

    /// Strangers have half of the room, and more only while nobody else needs it.
    fn make_room(&mut self, bounds: Bounds) {
        let over = |state: &Self, share: usize| {
            state.order[0].len() > bounds.sessions / share || state.octets[0] > bounds.octets / share
        };
        while self.kept.len() > bounds.sessions || self.octets.iter().sum::<usize>() > bounds.octets {
            let class = usize::from(!over(self, 2));
            let first = self.order[class]
                .first_key_value()
                .or(self.order[1 - class].first_key_value());
            let Some(ticket) = first.map(|(_, ticket)| ticket.clone()) else {
                return;
            };
            self.remove(&ticket);
        }
    }

    /// The oldest of either kind, if `is_old`.
    fn oldest(&self, is_old: impl Fn(&Kept) -> bool) -> Option<Vec<u8>> {
        let oldest = self.order.iter().filter_map(|order| order.first_key_value());
        let mut tickets = oldest.map(|(_, ticket)| ticket);
        tickets
            .find(|ticket| self.kept.get(*ticket).is_some_and(|(_, kept)| is_old(kept)))
            .cloned()
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, ticket: Vec<u8>, value: Vec<u8>) -> bool {
        if value.len() > LARGEST {
            return false;
        }
        let made = self.now();
        let revealing = value::reveals(&value, made);
        if !revealing {
            self.tell_strange();
        }
        CALL.with_borrow_mut(|call| {
            if let Some(call) = call {
                call.made.push(ticket.clone());
            }
        });
        let mut state = self.state();
        state.insert(Kept {
            ticket,
            value,
            made,
            identified: false,
            revealing,
        });
        state.make_room(self.bounds);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Of TLS 1.2 only, which QUIC does not know.
    fn get(&self, _ticket: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let mut state = self.state();
        self.sweep(&mut state);
        let mut kept = state.remove(ticket)?;
        drop(state);
        self.changed.notify_one();
        let age = CALL.with_borrow(|call| {
            let offer = call.as_ref()?.offer.as_ref()?;
            (offer.ticket == ticket).then_some(offer.obfuscated_age)
        });
        if let Some(age) = age.filter(|_| kept.revealing) {
            value::agree(&mut kept.value, self.now(), age, self.tolerance);
        }
        Some(kept.value)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("kept", &self.state().kept.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use rustls_pki_types::UnixTime;

    use super::*;

    #[derive(Debug)]
    struct Hand(AtomicU64);

    impl TimeProvider for Hand {
        fn current_time(&self) -> Option<UnixTime> {
            let seconds = self.0.load(Ordering::Relaxed);
            Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
        }
    }

    const START: u64 = 1_900_000_000;
    const TOLERANCE: Duration = Duration::from_secs(3_600);

    fn sessions(sessions: usize, octets: usize) -> (Arc<Hand>, Sessions) {
        let hand = Arc::new(Hand(AtomicU64::new(START)));
        let bounds = Bounds { sessions, octets };
        (hand.clone(), Sessions::new(hand, TOLERANCE, bounds))
    }

    fn value(made: u64, octets: usize) -> Vec<u8> {
        [&vec![7; octets][..], &made.to_be_bytes(), &5u32.to_be_bytes()].concat()
    }

    fn tickets(sessions: &Sessions) -> Vec<u8> {
        sessions.all().iter().map(|kept| kept.ticket[0]).collect()
    }

    #[test]
    fn a_session_is_good_for_one_use() {
        let (_, sessions) = sessions(10, 1 << 20);
        assert!(sessions.put(vec![1], value(START, 9)));
        assert_eq!(sessions.get(&[1]), None);
        assert_eq!(sessions.take(&[2]), None);
        assert_eq!(sessions.take(&[1]), Some(value(START, 9)));
        assert_eq!(sessions.take(&[1]), None);
        assert_eq!(sessions.state().octets, [0, 0]);
    }

    #[test]
    fn strangers_leave_half_of_the_room_to_those_we_know() {
        let (_, sessions) = sessions(6, 1 << 20);
        for ticket in 0..6 {
            sessions.put(vec![ticket], value(START, 9));
        }
        assert_eq!(
            tickets(&sessions),
            [0, 1, 2, 3, 4, 5],
            "while nobody else needs it"
        );
        sessions.identified(&[vec![0], vec![1], vec![2]]);
        for ticket in 6..20 {
            sessions.put(vec![ticket], value(START, 9));
        }
        assert_eq!(tickets(&sessions), [0, 1, 2, 17, 18, 19]);
        for ticket in 20..24 {
            let ((), made) = sessions.during(None, || {
                sessions.put(vec![ticket], value(START, 9));
            });
            sessions.identified(&made);
        }
        // And those we know leave half to strangers.
        assert_eq!(tickets(&sessions), [18, 19, 20, 21, 22, 23]);
    }

    #[test]
    fn octets_are_bounded_too() {
        let (_, sessions) = sessions(1_000, 100_000);
        for ticket in 0..100 {
            sessions.put(vec![ticket], value(START, 4_000));
        }
        assert_eq!(sessions.all().len(), 23);
        assert!(sessions.state().octets[0] <= 100_000);
        assert!(!sessions.put(vec![200], vec![0; LARGEST + 1]));
    }

    #[test]
    fn the_old_are_forgotten() {
        let (hand, sessions) = sessions(10, 1 << 20);
        sessions.put(vec![1], value(START, 9));
        sessions.identified(&[vec![1]]);
        hand.0.store(START + 7_200, Ordering::Relaxed);
        sessions.put(vec![2], value(START + 7_200, 9));
        let longest = LIFETIME.as_secs() + TOLERANCE.as_secs();
        hand.0.store(START + longest, Ordering::Relaxed);
        assert_eq!(tickets(&sessions), [1, 2]);
        hand.0.store(START + longest + 1, Ordering::Relaxed);
        assert_eq!(sessions.take(&[1]), None);
        assert_eq!(tickets(&sessions), [2]);
    }

    #[test]
    fn the_age_follows_the_client_within_the_tolerance() {
        // How old the session is at the client, in seconds, when it is 2,000 s old here; the time of its making afterwards.
        for (claimed, expected) in [(1_636, START + 364), (2_000, START), (5_601, START)] {
            let (hand, sessions) = sessions(10, 1 << 20);
            sessions.put(vec![1], value(START, 9));
            hand.0.store(START + 2_000, Ordering::Relaxed);
            let offer = |ticket| Offer {
                ticket,
                obfuscated_age: claimed * 1_000 + 5,
            };
            let (_, made) = sessions.during(Some(offer(vec![2])), || ());
            assert!(made.is_empty());
            let (taken, _) = sessions.during(Some(offer(vec![1])), || sessions.take(&[1]));
            assert_eq!(taken, Some(value(expected, 9)), "{claimed}");
        }
    }

    #[test]
    fn what_is_laid_out_otherwise_is_left_alone() {
        let (_, sessions) = sessions(10, 1 << 20);
        sessions.put(vec![1], value(START - 100, 9));
        let offer = Offer {
            ticket: vec![1],
            obfuscated_age: 5,
        };
        let (taken, _) = sessions.during(Some(offer), || sessions.take(&[1]));
        assert_eq!(taken, Some(value(START - 100, 9)));
    }

    #[test]
    fn secrets_are_not_shown() {
        let (_, sessions) = sessions(10, 1 << 20);
        sessions.put(vec![1], value(START, 9));
        let shown = format!("{sessions:?} {:?}", sessions.all());
        assert!(!shown.contains("7, 7") && shown.contains("kept: 1"), "{shown}");
    }
}
