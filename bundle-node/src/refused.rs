//! Bundles that a neighbour refused for good, as far as it knows: each is offered again after a wait that grows, until its lifetime ends.
//!
//! What a neighbour does not take today it may take once it has another configuration, or once another neighbour stands at its address;
//! a bundle that nobody offers again would wait for nothing but its end. Only what is waited for is kept, and only for so many.

use std::{collections::HashMap, time::Duration};

use lightpost_clock::Instant;

/// Bundles of one place that wait apart from the others. Who refuses more refuses everything: it is left alone for a while.
const MOST: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    bundles: HashMap<i64, Wait>,
    /// When the first of them is due, as far as nobody was told yet.
    next: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    due: Instant,
    span: Duration,
}

impl Refused {
    /// Notes a refusal of the bundle in row `id`; the wait until it is offered again, from `first` to `most`. `None` when there are too
    /// many already.
    pub(crate) fn note(
        &mut self,
        id: i64,
        now: Instant,
        first: Duration,
        most: Duration,
    ) -> Option<Duration> {
        let span = match self.bundles.get(&id) {
            Some(before) => (before.span * 2).min(most),
            None if self.bundles.len() >= MOST => return None,
            None => first,
        };
        let due = now + span;
        self.bundles.insert(id, Wait { due, span });
        self.next = Some(self.next.map_or(due, |next| next.min(due)));
        Some(span)
    }

    /// Whether the bundle in row `id` is not offered yet.
    pub(crate) fn waits(&self, id: i64, now: Instant) -> bool {
        self.bundles.get(&id).is_some_and(|it| it.due > now)
    }

    /// Whether the bundle in row `id` was refused.
    pub(crate) fn holds(&self, id: i64) -> bool {
        self.bundles.contains_key(&id)
    }

    /// The bundle in row `id` is gone.
    pub(crate) fn forget(&mut self, id: i64) {
        self.bundles.remove(&id);
    }

    /// When the next is due.
    pub(crate) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Whether one has become due since this was asked last: it has to be looked for.
    pub(crate) fn turned(&mut self, now: Instant) -> bool {
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        let later = self.bundles.values().map(|it| it.due).filter(|due| *due > now);
        self.next = later.min();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn waits_grow_and_are_one_bundles_own() {
        let start = lightpost_clock::Clock::runtime(jiff::Timestamp::UNIX_EPOCH).instant();
        let at = |seconds: u64| start + SECOND * u32::try_from(seconds).unwrap();
        let mut refused = Refused::default();
        let waits: Vec<_> = (0..5)
            .map(|round| {
                refused
                    .note(7, at(100 * round), SECOND, SECOND * 6)
                    .unwrap()
                    .as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 6, 6]);
        assert!(refused.waits(7, at(405)) && !refused.waits(7, at(406)) && !refused.waits(8, at(405)));
        refused.note(8, at(404), SECOND, SECOND);
        // Each of the two is told of once; the first note of all was due long ago.
        assert!(refused.turned(at(404)) && !refused.turned(at(404)));
        assert!(refused.turned(at(405)) && !refused.turned(at(405)));
        assert_eq!(refused.next(), Some(at(406)));
        assert!(refused.turned(at(406)) && refused.next().is_none());
        assert!(refused.holds(7));
        refused.forget(7);
        assert!(!refused.holds(7) && !refused.waits(7, at(405)));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_wait_apart() {
        let now = lightpost_clock::Clock::runtime(jiff::Timestamp::UNIX_EPOCH).instant();
        let mut refused = Refused::default();
        for id in 0..MOST {
            assert!(refused.note(id as i64, now, SECOND, SECOND).is_some());
        }
        assert_eq!(refused.note(MOST as i64, now, SECOND, SECOND), None);
        assert!(
            refused.note(3, now, SECOND, SECOND).is_some(),
            "one of them may be refused again"
        );
        refused.forget(0);
        assert!(refused.note(MOST as i64, now, SECOND, SECOND).is_some());
    }
}
