//! Whose turn it is to send, where several large objects are to leave on one connection.
//!
//! Sent side by side they would all arrive last, and a fault on the way would cost all of them. One after the other each arrives
//! as early as it can, and how long each takes is known beforehand: its own time and that of those before it.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// The place of an exchange's priority in that of its stream; what is below orders large objects of one priority.
pub(super) const CLASS_BITS: u32 = 20;

/// Those that send and those that wait.
#[derive(Debug, Default)]
pub(super) struct Turns(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

/// The most important first, then who came first.
type Place = (Reverse<i32>, u64);

#[derive(Debug, Default)]
struct State {
    number: u64,
    waiting: BTreeSet<Place>,
    sending: BTreeSet<Place>,
}

/// A place in the queue, left when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    queue: Arc<Queue>,
    place: Place,
}

impl Turns {
    /// Waits until nobody sends, or is before us in the queue, that is as important as `priority`.
    pub(super) async fn take(&self, priority: i32) -> Turn {
        let turn = self.0.enter(priority);
        loop {
            let changed = self.0.changed.notified();
            if self.0.begin(turn.place) {
                return turn;
            }
            changed.await;
        }
    }
}

impl Turn {
    /// How far its stream is to be behind those of the same priority that do not wait for turns: each a step behind the one before, for much
    /// of what was sent before may still wait within the connection.
    pub(super) fn behind(&self) -> i32 {
        let (_, number) = self.place;
        1 + (number % ((1 << CLASS_BITS) - 1)) as i32
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, priority: i32) -> Turn {
        let mut state = self.state();
        let place = (Reverse(priority), state.number);
        state.number += 1;
        state.waiting.insert(place);
        Turn {
            queue: self.clone(),
            place,
        }
    }

    fn begin(&self, place: Place) -> bool {
        let mut state = self.state();
        let first = state.waiting.first() == Some(&place);
        let Reverse(most) = state
            .sending
            .first()
            .map_or(Reverse(i32::MIN), |(priority, _)| *priority);
        let Reverse(ours) = place.0;
        let may = first && (state.sending.is_empty() || ours > most);
        if may {
            state.waiting.remove(&place);
            state.sending.insert(place);
        }
        drop(state);
        if may {
            // The next may be allowed as well, when it is more important than we are: it came meanwhile.
            self.changed.notify_waiters();
        }
        may
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.waiting.remove(&self.place);
        state.sending.remove(&self.place);
        drop(state);
        self.queue.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_after_the_other_as_they_came() {
        let turns = Turns::default();
        let first = turns.take(0).await;
        let mut second = Box::pin(turns.take(0));
        let mut third = Box::pin(turns.take(0));
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        assert!((&mut third).now_or_never().is_none(), "the second comes first");
        let second = second.now_or_never().expect("its turn");
        assert!((&mut third).now_or_never().is_none());
        drop(second);
        third.now_or_never().expect("its turn");
    }

    #[tokio::test]
    async fn what_is_more_important_begins_at_once_and_goes_before_what_waits() {
        let turns = Turns::default();
        let routine = turns.take(0).await;
        let mut other = Box::pin(turns.take(0));
        assert!((&mut other).now_or_never().is_none());
        let urgent = turns.take(5).now_or_never().expect("it does not wait");
        let mut second = Box::pin(turns.take(5));
        assert!((&mut second).now_or_never().is_none());
        drop(routine);
        assert!(
            (&mut other).now_or_never().is_none(),
            "the urgent one still sends"
        );
        drop(urgent);
        assert!((&mut other).now_or_never().is_none(), "another urgent one waits");
        let second = second.now_or_never().expect("its turn");
        drop(second);
        other.now_or_never().expect("its turn");
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_queue() {
        let turns = Turns::default();
        let first = turns.take(0).await;
        let mut gone = Box::pin(turns.take(0));
        assert!((&mut gone).now_or_never().is_none());
        let waiting = tokio::spawn({
            let turns = Turns(turns.0.clone());
            async move { drop(turns.take(0).await) }
        });
        tokio::task::yield_now().await;
        drop(gone);
        drop(first);
        waiting.await.expect("woken");
    }
}
