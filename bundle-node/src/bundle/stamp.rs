//! Creation timestamps (RFC 9171 section 4.2.7).

use std::sync::{Mutex, PoisonError};

use hardy_bpv7::{creation_timestamp::CreationTimestamp, dtn_time::DtnTime};
use jiff::Timestamp;

/// Milliseconds from 1970 to the year 2000, where DTN time begins.
const EPOCH: i64 = 946_684_800_000;

/// Unix milliseconds of a DTN time, at most as late as can be said.
pub(crate) fn unix(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX).saturating_add(EPOCH)
}

/// The DTN time of `now`.
pub(crate) fn dtn(now: Timestamp) -> DtnTime {
    let since = now.as_millisecond().saturating_sub(EPOCH);
    DtnTime::new(u64::try_from(since).unwrap_or(0).max(1))
}

/// Gives out creation timestamps, each later than all before, of earlier runs, too.
pub(crate) struct Stamps(Mutex<(u64, u64)>);

impl Stamps {
    /// `last` is the latest creation time that earlier runs may have used.
    pub(crate) const fn new(last: u64) -> Self {
        Self(Mutex::new((last, u64::MAX)))
    }

    /// The next one. A clock that goes back does not make it go back.
    pub(crate) fn next(&self, now: Timestamp) -> CreationTimestamp {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (time, sequence) = *last;
        let now = dtn(now).millisecs();
        *last = match sequence.checked_add(1) {
            Some(next) if now <= time => (time, next),
            // The time was used in an earlier run, which may have used any sequence number with it.
            None if now <= time => (time + 1, 0),
            _ => (now, 0),
        };
        CreationTimestamp::from_parts(Some(DtnTime::new(last.0)), last.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_twice_and_never_back() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let earlier: Timestamp = "2029-01-01T00:00:00Z".parse().unwrap();
        let stamps = Stamps::new(0);
        let given: Vec<_> = [now, now, earlier, now]
            .iter()
            .map(|it| stamps.next(*it))
            .collect();
        assert!(given.is_sorted_by(|a, b| a < b), "{given:?}");
        let last = given[3].creation_time().unwrap().millisecs();
        let next_run = Stamps::new(last).next(earlier);
        assert!(next_run > given[3] && next_run.creation_time().unwrap().millisecs() == last + 1);
    }

    #[test]
    fn dtn_time_begins_in_2000() {
        let at: Timestamp = "2000-01-01T00:00:01Z".parse().unwrap();
        assert_eq!(dtn(at).millisecs(), 1_000);
        assert_eq!(unix(1_000), at.as_millisecond());
        assert_eq!(unix(u64::MAX), i64::MAX);
    }
}
