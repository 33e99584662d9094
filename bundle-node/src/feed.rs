//! The bundles that wait at one place, one after the other, each in one pair of hands.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lightpost_clock::{Clock, Instant};
use tokio::sync::Notify;

use crate::{
    refused::Refused,
    store::{Place, Store, StoreError, Stored},
};

/// Rows looked up at once.
const LOOK: u32 = 64;
/// Bundles in hands at a time.
const HANDS: usize = 1024;
/// Octets of bundles in hands at a time; one larger bundle is given alone.
const HANDS_OCTETS: u64 = 64 << 20;
/// How long to wait when the store cannot be read.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module. What was given out stays in the store until it is taken from there.
pub(crate) struct Feed {
    place: Place,
    store: Arc<Store>,
    clock: Clock,
    wake: Arc<Notify>,
    seek: tokio::sync::Mutex<Seek>,
    hands: Mutex<Hands>,
}

/// A bundle in somebody's hands. Given again when it is dropped.
pub(crate) struct Held {
    stored: Stored,
    feed: Arc<Feed>,
    settled: bool,
}

impl Held {
    pub(crate) const fn stored(&self) -> &Stored {
        &self.stored
    }

    /// It is gone from the store.
    pub(crate) fn finish(mut self) {
        self.settled = true;
        self.feed.drop_hold(&self.stored).refused.forget(self.stored.id);
        self.feed.wake.notify_one();
    }

    /// It is to be given again, and nothing at all before `pause` is over.
    pub(crate) fn give_back(mut self, pause: Duration) {
        self.settled = true;
        self.feed.give_back(&self.stored, pause);
    }

    /// It was refused for good. It is given again after a wait of its own, from `first` to `most`, that grows with each refusal; the wait.
    pub(crate) fn put_off(mut self, first: Duration, most: Duration) -> Duration {
        self.settled = true;
        self.feed.put_off(&self.stored, first, most)
    }

    /// It stays in the store and is not given any more by this feed.
    pub(crate) fn park(mut self) {
        self.settled = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.settled {
            self.feed.give_back(&self.stored, Duration::ZERO);
        }
    }
}

/// How far the store was looked through, per rank.
#[derive(Default)]
struct Seek {
    after: [i64; 3],
    ready: VecDeque<Stored>,
}

#[derive(Default)]
struct Hands {
    ids: HashSet<i64>,
    octets: u64,
    /// Something was given back: it has to be looked for again.
    again: bool,
    /// Nothing is given before.
    not_before: Option<Instant>,
    refused: Refused,
}

impl Feed {
    pub(crate) fn new(place: Place, store: Arc<Store>, clock: Clock) -> Self {
        let wake = store.waiting_at(&place);
        Self {
            place,
            store,
            clock,
            wake,
            seek: tokio::sync::Mutex::default(),
            hands: Mutex::default(),
        }
    }

    /// The next bundle. A caller that goes away while it waits takes none along.
    pub(crate) async fn next(self: &Arc<Self>) -> Held {
        let mut seek = self.seek.lock().await;
        loop {
            if let Some(wait) = self.pause() {
                self.clock.sleep(wait).await;
                continue;
            }
            let now = self.clock.now().as_millisecond();
            match self.pick(&mut seek, now) {
                Pick::Given(stored) => {
                    return Held {
                        stored,
                        feed: Arc::clone(self),
                        settled: false,
                    };
                }
                Pick::Full => self.wake.notified().await,
                Pick::Nothing => match self.look(&mut seek).await {
                    Ok(true) => {}
                    Ok(false) => self.rest().await,
                    Err(error) => {
                        tracing::error!(%error, "the bundle store cannot be read");
                        self.clock.sleep(AGAIN).await;
                    }
                },
            }
        }
    }

    /// How many wait here, those in hands too.
    pub(crate) async fn count(&self) -> Result<u64, StoreError> {
        self.store.count(&self.place).await
    }

    /// Whether the bundle in row `id` was refused here.
    pub(crate) fn was_refused(&self, id: i64) -> bool {
        self.hands().refused.holds(id)
    }

    /// The bundle in row `id` has left the store without this feed.
    pub(crate) fn forget(&self, id: i64) {
        self.hands().refused.forget(id);
    }

    /// Pends until there may be something to give.
    async fn rest(&self) {
        let next = self.hands().refused.next();
        let Some(next) = next else {
            return self.wake.notified().await;
        };
        let left = next.saturating_duration_since(self.clock.instant());
        tokio::select! {
            () = self.wake.notified() => {}
            () = self.clock.sleep(left) => {}
        }
    }

    fn put_off(&self, stored: &Stored, first: Duration, most: Duration) -> Duration {
        let now = self.clock.instant();
        let mut hands = self.drop_hold(stored);
        let wait = hands.refused.note(stored.id, now, first, most);
        if wait.is_none() {
            hands.again = true;
            hands.not_before = hands.not_before.max(Some(now + first));
        }
        drop(hands);
        self.wake.notify_one();
        wait.unwrap_or(first)
    }

    fn give_back(&self, stored: &Stored, pause: Duration) {
        let mut hands = self.drop_hold(stored);
        hands.again = true;
        if !pause.is_zero() {
            hands.not_before = hands.not_before.max(Some(self.clock.instant() + pause));
        }
        drop(hands);
        self.wake.notify_one();
    }

    fn drop_hold(&self, stored: &Stored) -> MutexGuard<'_, Hands> {
        let mut hands = self.hands();
        if hands.ids.remove(&stored.id) {
            hands.octets -= stored.octets;
        }
        hands
    }

    fn pause(&self) -> Option<Duration> {
        let mut hands = self.hands();
        let left = hands.not_before?.saturating_duration_since(self.clock.instant());
        if left.is_zero() {
            hands.not_before = None;
            return None;
        }
        Some(left)
    }

    fn pick(&self, seek: &mut Seek, now: i64) -> Pick {
        let mut hands = self.hands();
        let instant = self.clock.instant();
        if hands.refused.turned(instant) | std::mem::take(&mut hands.again) {
            *seek = Seek::default();
        }
        while let Some(first) = seek.ready.front() {
            // What has expired is the sweeper's.
            if hands.ids.contains(&first.id) || first.expires <= now || hands.refused.waits(first.id, instant)
            {
                seek.ready.pop_front();
                continue;
            }
            let fits = hands.ids.is_empty()
                || (hands.ids.len() < HANDS && hands.octets + first.octets <= HANDS_OCTETS);
            if !fits {
                return Pick::Full;
            }
            if let Some(stored) = seek.ready.pop_front() {
                hands.ids.insert(stored.id);
                hands.octets += stored.octets;
                return Pick::Given(stored);
            }
        }
        Pick::Nothing
    }

    /// Looks for more; whether there was.
    async fn look(&self, seek: &mut Seek) -> Result<bool, StoreError> {
        for rank in (0..3_u8).rev() {
            let after = &mut seek.after[usize::from(rank)];
            let found = self.store.waiting(&self.place, rank, *after, LOOK).await?;
            if let Some(last) = found.last() {
                *after = last.id;
                seek.ready.extend(found);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Pick {
    Given(Stored),
    Full,
    Nothing,
}
