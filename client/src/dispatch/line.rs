//! What is on its way to a gateway, in octets: what leaves next has to wait for it on the line, and its reply comes so much later.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use ulid::Ulid;

/// Exchanges in custody that are kept in mind without looking whether their time is over.
const UNSEEN: usize = 64;

/// The line to one gateway.
#[derive(Debug, Default)]
pub(crate) struct Line {
    octets: Arc<AtomicU64>,
    /// Each has a share in this.
    exchanges: Arc<()>,
    custody: Mutex<Custody>,
}

/// Exchanges that a carrier holds.
#[derive(Debug, Default)]
struct Custody {
    loads: HashMap<Ulid, (Load, Timestamp)>,
    look_at: usize,
}

/// Octets of one exchange, on the line until dropped.
#[derive(Debug)]
pub(crate) struct Load {
    octets: u64,
    line: Arc<AtomicU64>,
    _exchange: Arc<()>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.line.fetch_sub(self.octets, Ordering::Relaxed);
    }
}

impl Line {
    /// Adds `octets`; the first part is what was there before.
    pub(crate) fn enter(&self, octets: u64) -> (u64, Load) {
        let ahead = self.octets.fetch_add(octets, Ordering::Relaxed);
        let load = Load {
            octets,
            line: self.octets.clone(),
            _exchange: self.exchanges.clone(),
        };
        (ahead, load)
    }

    /// Exchanges on it, and their octets.
    pub(crate) fn busy(&self) -> (usize, u64) {
        let exchanges = Arc::strong_count(&self.exchanges).saturating_sub(1);
        (exchanges, self.octets.load(Ordering::Relaxed))
    }

    /// Counts an exchange that a carrier holds until it is answered, or `until`.
    pub(crate) fn keep(&self, exchange: Ulid, load: Load, until: Timestamp, now: Timestamp) {
        let mut custody = self.custody.lock().unwrap_or_else(PoisonError::into_inner);
        custody.loads.insert(exchange, (load, until));
        if custody.loads.len() >= custody.look_at.max(UNSEEN) {
            custody.loads.retain(|_, (_, until)| now < *until);
            custody.look_at = custody.loads.len() * 2;
        }
    }

    /// An exchange that a carrier held has an answer.
    pub(crate) fn answered(&self, exchange: Ulid) {
        let mut custody = self.custody.lock().unwrap_or_else(PoisonError::into_inner);
        custody.loads.remove(&exchange);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lightpost_clock::add;

    use super::*;

    #[test]
    fn what_has_no_answer_counts() {
        let line = Line::default();
        let (ahead, first) = line.enter(10);
        assert_eq!(ahead, 0);
        let (ahead, second) = line.enter(5);
        assert_eq!(ahead, 10);
        assert_eq!(line.busy(), (2, 15));
        drop(first);
        assert_eq!(line.enter(0).0, 5);
        let (now, id) = (Timestamp::UNIX_EPOCH, Ulid::from_parts(1, 1));
        line.keep(id, second, add(now, Duration::from_secs(60)), now);
        assert_eq!(line.enter(0).0, 5, "a carrier holds it");
        line.answered(id);
        assert_eq!(line.enter(0).0, 0);
        assert_eq!(line.busy(), (0, 0));
    }

    #[test]
    fn what_is_never_answered_is_forgotten_when_its_time_is_over() {
        let line = Line::default();
        let now = Timestamp::UNIX_EPOCH;
        let until = add(now, Duration::from_secs(60));
        for id in 0..UNSEEN as u128 - 1 {
            line.keep(Ulid::from_parts(1, id), line.enter(1).1, until, now);
        }
        assert_eq!(line.enter(0).0, UNSEEN as u64 - 1);
        let later = add(until, Duration::from_secs(1));
        let after = add(later, Duration::from_secs(60));
        line.keep(Ulid::from_parts(2, 0), line.enter(1).1, after, later);
        assert_eq!(line.enter(0).0, 1);
    }
}
