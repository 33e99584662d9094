//! How many lines the histories got since the program started, by kind: what monitoring draws rates from.

use std::sync::atomic::{AtomicU64, Ordering};

use super::tx::Event;

/// The kinds of [`crate::EventView::kind`].
const KINDS: [&str; 15] = [
    "accepted",
    "screened",
    "sent",
    "resent",
    "delivered",
    "failed",
    "expired",
    "deferred",
    "awaiting",
    "held",
    "released",
    "retried",
    "cancelled",
    "interrupted",
    "notified",
];

/// Of one transaction, by their places in [`KINDS`].
pub(super) type Counts = [u64; KINDS.len()];

/// Counts the lines of a transaction.
pub(super) fn count(events: &[Event]) -> Counts {
    let mut counts = Counts::default();
    for event in events {
        let place = KINDS.iter().position(|kind| *kind == event.kind);
        if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
            *count += 1;
        }
    }
    counts
}

/// Since the start.
#[derive(Debug, Default)]
pub(super) struct Events([AtomicU64; KINDS.len()]);

impl Events {
    /// Adds those of a transaction that was committed.
    pub(super) fn add(&self, counts: &Counts) {
        for (total, count) in self.0.iter().zip(counts) {
            total.fetch_add(*count, Ordering::Relaxed);
        }
    }

    /// Each kind with its count.
    pub(super) fn all(&self) -> Vec<(&'static str, u64)> {
        let totals = self.0.iter().map(|total| total.load(Ordering::Relaxed));
        KINDS.into_iter().zip(totals).collect()
    }
}
