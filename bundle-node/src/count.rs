//! What a node counts.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;
use lightpost_clock::{Clock, until};

/// Between two lines in the log about what another node does wrong.
const QUIET: std::time::Duration = std::time::Duration::from_secs(60);

/// What is counted since the node was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Count {
    /// Bundles that our services sent.
    Sent,
    /// Bundles that came from neighbours and were new.
    Received,
    /// Bundles that came again.
    Duplicates,
    /// Bundles handed to a neighbour: acknowledged, where its framing acknowledges.
    Forwarded,
    /// Bundles that our services took.
    Delivered,
    /// Bundles whose lifetime ended here.
    Expired,
    /// Bundles deleted for another reason: no route, no endpoint, too many hops.
    Deleted,
    /// Bundles and transfers refused for want of room.
    NoRoom,
    /// Transfers refused because they are larger than any bundle may be.
    TooLarge,
    /// What came and was not a bundle, or one that must not go on.
    Malformed,
    /// Bundles deleted because they are not signed as their source has to sign them, or cannot be decrypted.
    Unverified,
    /// Connections ended because the other node broke the rules of its framing.
    Violations,
    /// Transfers that a neighbour refused.
    Refused,
}

/// Their names, in the same order.
const NAMES: [&str; 13] = [
    "sent",
    "received",
    "duplicates",
    "forwarded",
    "delivered",
    "expired",
    "deleted",
    "no_room",
    "too_large",
    "malformed",
    "unverified",
    "violations",
    "refused",
];

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    values: [AtomicU64; NAMES.len()],
    spoke: Mutex<Option<Timestamp>>,
}

impl Counters {
    pub(crate) fn add(&self, count: Count) {
        self.values[count as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what another node did wrong, and says so at most once a minute.
    pub(crate) fn fault(&self, count: Count, clock: &Clock, peer: &str, what: &dyn std::fmt::Display) {
        self.add(count);
        let now = clock.now();
        let mut spoke = self.spoke.lock().unwrap_or_else(PoisonError::into_inner);
        if spoke.is_none_or(|at| until(at, now) >= QUIET) {
            *spoke = Some(now);
            let what: String = what.to_string().chars().take(200).collect();
            tracing::warn!(peer, what, "a bundle node sent what cannot be used");
        }
    }

    pub(crate) fn get(&self, count: Count) -> u64 {
        self.values[count as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn all(&self) -> Vec<(&'static str, u64)> {
        let values = self.values.iter().map(|it| it.load(Ordering::Relaxed));
        NAMES.into_iter().zip(values).collect()
    }
}
