//! What is due at a time, for a heap.

use std::{cmp::Ordering, time::Duration};

/// Something that is due; ordered by time, and in turn where that is the same.
#[derive(Debug)]
pub(crate) struct Due<T> {
    pub(crate) at: Duration,
    turn: u64,
    pub(crate) what: T,
}

impl<T> Due<T> {
    pub(crate) const fn new(at: Duration, turn: u64, what: T) -> Self {
        Self { at, turn, what }
    }
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.turn).cmp(&(other.at, other.turn))
    }
}
