//! The thread that takes bundles from the node and keeps them in the spool.
//!
//! ION's `bp_receive` takes a bundle off the node in a transaction of its own. Here it runs inside one of ours, which ends when the spool is
//! synced: the node has given a bundle away, and told so in a status report, only when it is on our disk. A helper that dies before leaves a
//! transaction open, and a locked node, but no bundle that nobody has. So the node is locked while the disk syncs; many bundles share one sync.
//!
//! ION can wait for a bundle only outside of a transaction and would give it away there, so the endpoint is looked at ten times and more a
//! second instead. That is a few microseconds each.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc as channel,
    },
    time::Duration,
};

use lightpost_clock::Clock;

use super::relay::Events;
use crate::{
    library::{Node, ReceiveError, Received, Transaction},
    protocol::{Event, Trouble},
    spool::{Place, Writer},
    words,
};

/// At most so many bundles, and about so many octets, share one transaction.
const BATCH: usize = 256;
const BATCH_OCTETS: u64 = 4 << 20;
/// Deliveries, and their octets, that the relay has not dealt with yet: more stay with the node.
const OPEN: u64 = 1024;
const OPEN_OCTETS: u64 = 256 << 20;
/// Between two looks at an endpoint where nothing was.
const IDLE: Duration = Duration::from_millis(10);
/// The node is left to others for so many times as long as it was locked, so that more shares the next sync; up to [`IDLE`].
const LEAVE: u32 = 3;
/// Between two attempts to write to a disk that fails.
const DISK: Duration = Duration::from_secs(1);

/// What the relay has not dealt with yet.
#[derive(Debug, Default)]
pub(super) struct Window {
    deliveries: AtomicU64,
    octets: AtomicU64,
}

impl Window {
    /// The relay has dealt with so much. It may say more than this helper gave it: what was in the spool before counts, too.
    pub(super) fn done(&self, deliveries: u64, octets: u64) {
        let less = |counter: &AtomicU64, by: u64| {
            let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| {
                Some(it.saturating_sub(by))
            });
        };
        less(&self.deliveries, deliveries);
        less(&self.octets, octets);
    }

    fn add(&self, place: Place) {
        self.deliveries.fetch_add(1, Ordering::Relaxed);
        self.octets.fetch_add(place.octets, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.deliveries.load(Ordering::Relaxed) >= OPEN || self.octets.load(Ordering::Relaxed) >= OPEN_OCTETS
    }
}

/// Takes bundles.
pub(super) struct Inbox {
    pub(super) node: Arc<Node>,
    pub(super) writer: Writer,
    pub(super) folder: PathBuf,
    pub(super) largest: u64,
    pub(super) window: Arc<Window>,
    pub(super) events: Events,
    pub(super) clock: Clock,
}

/// Why a round went wrong.
enum RoundError {
    Node(Trouble),
    Disk(io::Error),
}

impl Inbox {
    /// Works until `stop` is closed, or the node is gone: then what is wrong.
    pub(super) fn run(&mut self, stop: &channel::Receiver<()>) -> Option<Trouble> {
        // Taken from the node but not on disk, because the disk failed; ION has their payloads still.
        let mut held = Vec::new();
        let mut failing = false;
        loop {
            let pause = match self.round(&mut held) {
                Ok((0, _)) => IDLE,
                // What comes meanwhile shares the next transaction, unless there is enough for one already.
                Ok((BATCH.., _)) => Duration::ZERO,
                Ok((_, locked)) => (locked * LEAVE).min(IDLE),
                Err(RoundError::Node(trouble)) => return Some(trouble),
                Err(RoundError::Disk(error)) => {
                    if !std::mem::replace(&mut failing, true) {
                        self.events.tell(Event::Down(words::disk(&self.folder, &error)));
                    }
                    DISK
                }
            };
            if failing && pause != DISK {
                failing = false;
                self.events.tell(Event::Up);
            }
            // Nothing is ever sent: the other end is dropped.
            if !matches!(stop.recv_timeout(pause), Err(channel::RecvTimeoutError::Timeout)) {
                return None;
            }
        }
    }

    /// Takes what is there, up to a batch; how many bundles that were, and for how long the node was locked.
    fn round(&mut self, held: &mut Vec<Received>) -> Result<(usize, Duration), RoundError> {
        if self.window.is_full() {
            return Ok((0, Duration::ZERO));
        }
        // A full disk shows here, before the node has given anything away.
        self.writer.make_room().map_err(RoundError::Disk)?;
        let node = Arc::clone(&self.node);
        let transaction = node
            .begin()
            .ok_or_else(|| RoundError::Node(words::lost(&node.said())))?;
        let begun = self.clock.instant();
        if held.is_empty() {
            self.take(&transaction, held)?;
        }
        if held.is_empty() {
            return Ok((0, Duration::ZERO));
        }
        let places = self.store(&transaction, held).map_err(RoundError::Disk)?;
        for received in held.drain(..) {
            transaction.release(received);
        }
        drop(transaction);
        let locked = self.clock.instant() - begun;
        let delivered = places.iter().map(|place| {
            self.window.add(*place);
            Event::Delivered {
                segment: place.segment,
                offset: place.offset,
                octets: place.octets,
            }
        });
        self.events.tell_all(delivered.collect());
        Ok((places.len(), locked))
    }

    /// Takes a batch from the node.
    fn take(&self, transaction: &Transaction<'_>, held: &mut Vec<Received>) -> Result<(), RoundError> {
        let mut octets = 0;
        while held.len() < BATCH && octets < BATCH_OCTETS {
            let received = match transaction.receive() {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(_) if !held.is_empty() => break,
                Err(ReceiveError::Stopped) => return Err(RoundError::Node(words::stopped())),
                Err(ReceiveError::Failed(said)) => return Err(RoundError::Node(words::lost(&said))),
            };
            let length = transaction.length(&received);
            if length > self.largest {
                let text = format!(
                    "a bundle of {length} octets from {} is dropped: {} are the most that is taken",
                    received.head().source,
                    self.largest
                );
                self.events.tell(Event::Warning { text });
                transaction.release(received);
                continue;
            }
            octets += length;
            held.push(received);
        }
        Ok(())
    }

    /// Writes what is held to the spool and syncs it; all or nothing.
    fn store(&mut self, transaction: &Transaction<'_>, held: &[Received]) -> io::Result<Vec<Place>> {
        let before = self.writer.position();
        let stored = self.append(transaction, held).and_then(|places| {
            self.writer.sync()?;
            Ok(places)
        });
        if stored.is_err() {
            let _ = self.writer.back_to(before);
        }
        stored
    }

    fn append(&mut self, transaction: &Transaction<'_>, held: &[Received]) -> io::Result<Vec<Place>> {
        let mut places = Vec::with_capacity(held.len());
        for received in held {
            let length = transaction.length(received);
            let place = self.writer.append(&received.head(), length, &mut |out| {
                transaction.read(received, out)
            })?;
            places.push(place);
        }
        Ok(places)
    }
}
