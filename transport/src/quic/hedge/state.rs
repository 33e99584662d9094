//! What is known of a path's exchanges, and when a reply is overdue.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    Outcome, Path, Reply,
    quic::{
        client::{Connecting, Target, lock},
        profile::HedgeFigures,
    },
};

/// What a gateway may take to store a mail and answer, with its delay before it acknowledges.
const ANSWERING: Duration = Duration::from_secs(2);
/// What a reply may be late by, in parts of a round trip.
const LATE: f64 = 0.05;
/// Octets on the line for each of a mail, headers and acknowledgements included; twice that where all is repeated.
const OVERHEAD: f64 = 1.1;

/// How often exchanges went again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HedgeCounters {
    /// Exchanges that were sent a second time.
    pub repeated: u64,
    /// Those whose second reply came first.
    pub won: u64,
    /// Connections that were replaced because of their round trip.
    pub renewed: u64,
}

/// What is known of a path's exchanges.
pub(in crate::quic) struct Hedge {
    pub(super) figures: HedgeFigures,
    /// Copies of each datagram.
    copies: u64,
    /// The last round trip that light and figures allow.
    round_trip: Mutex<Option<Duration>>,
    /// Octets of exchanges under way.
    pub(super) octets: AtomicU64,
    /// Whether an exchange went again into silence.
    pub(super) probing: AtomicBool,
    /// Connections that wait for a sign of life.
    pub(super) spares: Mutex<HashMap<Target, Connecting>>,
    pub(super) repeated: AtomicU64,
    won: AtomicU64,
    pub(super) renewed: AtomicU64,
}

impl Hedge {
    pub(in crate::quic) fn new(figures: HedgeFigures, copies: u8) -> Self {
        Self {
            figures,
            copies: u64::from(copies.max(1)),
            round_trip: Mutex::default(),
            octets: AtomicU64::new(0),
            probing: AtomicBool::new(false),
            spares: Mutex::default(),
            repeated: AtomicU64::new(0),
            won: AtomicU64::new(0),
            renewed: AtomicU64::new(0),
        }
    }

    pub(super) fn counters(&self) -> HedgeCounters {
        let [repeated, won, renewed] =
            [&self.repeated, &self.won, &self.renewed].map(|count| count.load(Ordering::Relaxed));
        HedgeCounters {
            repeated,
            won,
            renewed,
        }
    }

    fn round_trip(&self, path: &Path) -> Duration {
        lock(&self.round_trip).unwrap_or_else(|| path.round_trip_max())
    }

    /// When a reply may come at the earliest, counted as [`Hedge::patience`] is.
    pub(super) fn earliest(&self, path: &Path) -> Duration {
        self.round_trip(path).mul_f64(1.0 - LATE)
    }

    /// When a reply is overdue, counted from when the mail was handed to the connection.
    pub(super) fn patience(&self, path: &Path) -> Duration {
        let octets = self.octets.load(Ordering::Relaxed) * self.copies;
        let sending = path.rate_up.time_for((octets as f64 * OVERHEAD) as u64);
        self.round_trip(path)
            .mul_f64(1.0 + LATE)
            .saturating_add(sending)
            .saturating_add(ANSWERING)
    }

    pub(super) fn won(&self, reply: Reply) -> Outcome {
        self.won.fetch_add(1, Ordering::Relaxed);
        Outcome::Replied(reply)
    }

    /// Takes a measured round trip, unless a hold is in it.
    pub(super) fn learn(&self, path: &Path, round_trip: Duration) {
        let least = path.one_way_min.mul_f64(2.0 * (1.0 - LATE));
        if round_trip >= least && round_trip <= path.round_trip_max().mul_f64(1.0 + LATE) {
            *lock(&self.round_trip) = Some(round_trip);
        }
    }
}
