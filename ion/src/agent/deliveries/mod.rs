//! What came and is not dealt with yet.

mod reading;

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hardy_bpv7::eid::Eid;
use jiff::Timestamp;
use lightpost_clock::Clock;
use lightpost_transport::bundle::agent::{BundleId, Content, Delivery, Incoming, Report};
use tokio::sync::{Notify, mpsc};

use super::report;
use crate::spool::{Place, Reader, record::Head};

/// Before a delivery that was dropped comes again, and before a disk that failed is read again.
const AGAIN: Duration = Duration::from_secs(1);
/// The beginning of the bundle protocol's time (RFC 9171 section 4.2.6), in milliseconds of Unix time.
const EPOCH: i64 = 946_684_800_000;

/// The queue between the helper's spool and [`Deliveries::next`].
#[derive(Debug)]
pub(super) struct Deliveries {
    folder: PathBuf,
    clock: Clock,
    reader: Mutex<Reader>,
    queue: Mutex<Queue>,
    came: Notify,
    ends: mpsc::UnboundedSender<End>,
    /// What the helper was not told yet.
    done: (AtomicU64, AtomicU64),
    /// Something is to be told.
    pub(super) tell: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// The first records are being read.
    reading: bool,
}

#[derive(Debug)]
enum Item {
    /// In the spool.
    Place(Place),
    /// Read.
    Record(Head, Bytes, Arc<Hold>),
    Report(Report, Arc<Hold>),
}

/// What became of a record.
#[derive(Debug)]
enum End {
    Done(Place),
    Again(Place),
}

/// A record that is somebody's: when all of its parts are released it is done, when one is dropped it comes again.
#[derive(Debug)]
struct Hold {
    place: Place,
    wanted: AtomicUsize,
    released: AtomicUsize,
    ends: mpsc::UnboundedSender<End>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let done = self.released.load(Ordering::SeqCst) >= self.wanted.load(Ordering::SeqCst);
        let end = if done { End::Done } else { End::Again };
        let _ = self.ends.send(end(self.place));
    }
}

impl Hold {
    fn release(self: Arc<Self>) {
        self.released.fetch_add(1, Ordering::SeqCst);
    }
}

impl Deliveries {
    /// The deliveries of a spool; needs a runtime.
    pub(super) fn new(folder: &Path, clock: Clock) -> Arc<Self> {
        let (ends, ended) = mpsc::unbounded_channel();
        let deliveries = Arc::new(Self {
            folder: folder.to_owned(),
            clock,
            reader: Mutex::new(Reader::new(folder)),
            queue: Mutex::default(),
            came: Notify::new(),
            ends,
            done: Default::default(),
            tell: Notify::new(),
        });
        tokio::spawn(keep(Arc::downgrade(&deliveries), ended));
        deliveries
    }

    /// Reads what stands in the spool and is not known.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn scan(self: &Arc<Self>) -> io::Result<()> {
        let deliveries = Arc::clone(self);
        let scanned = tokio::task::spawn_blocking(move || lock(&deliveries.reader).scan()).await;
        let places = scanned.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        self.push(places.into_iter().map(Item::Place));
        Ok(())
    }

    /// The helper has put a record there.
    pub(super) fn note(&self, place: Place) {
        if lock(&self.reader).note(place) {
            self.push([Item::Place(place)]);
        }
    }

    /// How many deliveries, of how many octets, are dealt with since the last time.
    pub(super) fn take_done(&self) -> (u64, u64) {
        (
            self.done.0.swap(0, Ordering::SeqCst),
            self.done.1.swap(0, Ordering::SeqCst),
        )
    }

    fn push(&self, items: impl IntoIterator<Item = Item>) {
        lock(&self.queue).items.extend(items);
        self.came.notify_one();
    }

    /// The next delivery. Nothing is lost when this is dropped.
    pub(super) async fn next(self: &Arc<Self>) -> Delivery {
        loop {
            let came = self.came.notified();
            match self.pop() {
                Some(Item::Report(report, hold)) => {
                    self.came.notify_one();
                    return Delivery::new(Content::Report(report), move || hold.release());
                }
                Some(Item::Record(head, payload, hold)) => {
                    self.came.notify_one();
                    if let Some(delivery) = self.deliver(head, payload, hold) {
                        return delivery;
                    }
                }
                Some(Item::Place(place)) => self.read(place),
                None => came.await,
            }
        }
    }

    fn deliver(&self, head: Head, payload: Bytes, hold: Arc<Hold>) -> Option<Delivery> {
        let Ok(source) = head.source.parse::<Eid>() else {
            tracing::warn!(
                source = head.source,
                "a bundle is dropped: its source is not an endpoint"
            );
            hold.release();
            return None;
        };
        if !head.administrative {
            let incoming = Incoming {
                expires: expires(&head, self.clock.now()),
                id: BundleId {
                    source,
                    time: head.time,
                    sequence: head.sequence,
                },
                payload,
                verified: None,
            };
            return Some(Delivery::new(Content::Bundle(incoming), move || hold.release()));
        }
        match report::parse(&payload, &source) {
            Ok(reports) => {
                hold.wanted.store(reports.len(), Ordering::SeqCst);
                let mut items = reports
                    .into_iter()
                    .map(|report| Item::Report(report, Arc::clone(&hold)));
                let first = items.next();
                self.push(items);
                let Some(Item::Report(report, hold)) = first else {
                    return None;
                };
                Some(Delivery::new(Content::Report(report), move || hold.release()))
            }
            Err(why) => {
                tracing::warn!("an administrative record from {source} is dropped: {why}");
                hold.release();
                None
            }
        }
    }
}

/// Notes on disk what is done, and queues again what was dropped.
async fn keep(deliveries: std::sync::Weak<Deliveries>, mut ended: mpsc::UnboundedReceiver<End>) {
    let mut ends = Vec::new();
    while ended.recv_many(&mut ends, 1024).await > 0 {
        let Some(deliveries) = deliveries.upgrade() else {
            return;
        };
        let mut done = Vec::new();
        for end in ends.drain(..) {
            match end {
                End::Done(place) => done.push(place),
                End::Again(place) => {
                    let deliveries = Arc::downgrade(&deliveries);
                    tokio::spawn(again(deliveries, place));
                }
            }
        }
        let octets = done.iter().map(|place| place.octets).sum();
        let count = done.len() as u64;
        let noting = Arc::clone(&deliveries);
        let noted = tokio::task::spawn_blocking(move || lock(&noting.reader).done(&done));
        if let Ok(Err(error)) = noted.await {
            tracing::warn!("what is dealt with cannot be noted, so it comes again: {error}");
        }
        deliveries.done.0.fetch_add(count, Ordering::SeqCst);
        deliveries.done.1.fetch_add(octets, Ordering::SeqCst);
        deliveries.tell.notify_one();
    }
}

async fn again(deliveries: std::sync::Weak<Deliveries>, place: Place) {
    let Some(clock) = deliveries.upgrade().map(|it| it.clock.clone()) else {
        return;
    };
    clock.sleep(AGAIN).await;
    if let Some(deliveries) = deliveries.upgrade() {
        deliveries.push([Item::Place(place)]);
    }
}

/// When the lifetime ends; unknown when the source has no clock, and when it seems to be over: ION hands lifetimes over as 32 bits of
/// milliseconds, so what is longer than 49 days is not known, and what has expired it does not hand over.
fn expires(head: &Head, now: Timestamp) -> Option<Timestamp> {
    if head.time == 0 {
        return None;
    }
    let until = i64::try_from(head.time.checked_add(head.lifetime)?).ok()?;
    let expires = Timestamp::from_millisecond(until.checked_add(EPOCH)?).ok()?;
    (expires > now).then_some(expires)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
