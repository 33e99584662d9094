//! Bundles that leave: cut into segments, and let go when the neighbour has acknowledged the last.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::{
    contact::Terms,
    message::{END, START, Segment, refusal},
    outlet::Frame,
};
use crate::{
    count::Count,
    custody::{Core, Ready},
    link::{End, peer::Peer},
};

/// Bundles that are not acknowledged at a time.
const WINDOW: usize = 256;
/// Octets that are not acknowledged at a time; one larger bundle is sent alone.
const WINDOW_OCTETS: usize = 16 << 20;
/// The largest segment that we send.
const SEGMENT: u64 = 64 * 1024;

/// The state of the bundles that leave on one connection.
pub(super) struct Transmit {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    transfers: HashMap<u64, (usize, Ready)>,
    octets: usize,
    next: u64,
    closed: bool,
}

impl Transmit {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what waits for the neighbour, until [`Transmit::stop`]; pends then.
    pub(super) async fn run(&self, core: &Core, peer: &Peer, terms: &Terms, out: mpsc::Sender<Frame>) -> End {
        loop {
            self.window().await;
            let Some(ready) = core.ready(peer.feed.next().await).await else {
                continue;
            };
            if self.waiting().closed {
                drop(ready);
                continue;
            }
            if ready.data.len() as u64 > terms.transfer {
                tracing::warn!(
                    neighbour = peer.neighbour.name,
                    octets = ready.data.len(),
                    most = terms.transfer,
                    "a bundle is larger than the neighbour takes; it stays until its lifetime ends"
                );
                ready.held.park();
                continue;
            }
            let data = ready.data.clone();
            let transfer = self.begin(ready);
            if send(&data, transfer, terms, &out).await.is_err() {
                return End::Over;
            }
        }
    }

    /// Begins no more.
    pub(super) fn stop(&self) {
        self.waiting().closed = true;
    }

    /// Pends until nothing is left to be acknowledged.
    pub(super) async fn settled(&self) {
        while !self.waiting().transfers.is_empty() {
            self.changed.notified().await;
        }
    }

    async fn window(&self) {
        loop {
            {
                let waiting = self.waiting();
                let open = waiting.transfers.len() < WINDOW && waiting.octets < WINDOW_OCTETS;
                if open && !waiting.closed {
                    return;
                }
            }
            self.changed.notified().await;
        }
    }

    fn begin(&self, ready: Ready) -> u64 {
        let mut waiting = self.waiting();
        let transfer = waiting.next;
        waiting.next += 1;
        waiting.octets += ready.data.len();
        waiting.transfers.insert(transfer, (ready.data.len(), ready));
        transfer
    }

    fn end(&self, transfer: u64) -> Option<Ready> {
        let mut waiting = self.waiting();
        let (octets, ready) = waiting.transfers.remove(&transfer)?;
        waiting.octets -= octets;
        drop(waiting);
        self.changed.notify_waiters();
        self.changed.notify_one();
        Some(ready)
    }

    /// The neighbour has so much of a transfer. That it has all of it is told by the length: not everybody sets the flags.
    pub(super) fn acknowledged(&self, core: &Core, transfer: u64, length: u64) -> Result<(), End> {
        let octets = self.waiting().transfers.get(&transfer).map(|it| it.0 as u64);
        match octets {
            None => Ok(()),
            Some(octets) if length > octets => Err(End::Violation(format!(
                "it acknowledges {length} octets of a transfer of {octets}"
            ))),
            Some(octets) => {
                if length == octets
                    && let Some(ready) = self.end(transfer)
                {
                    core.forwarded(ready, true);
                }
                Ok(())
            }
        }
    }

    /// The neighbour does not take a transfer.
    pub(super) fn refused(&self, core: &Core, peer: &Peer, transfer: u64, reason: u8) {
        let Some(ready) = self.end(transfer) else { return };
        let (neighbour, bundle) = (&peer.neighbour.name, &ready.held.stored().key);
        match reason {
            refusal::COMPLETED => core.forwarded(ready, true),
            refusal::NOT_ACCEPTABLE | refusal::EXTENSION_FAILURE => {
                core.counters.add(Count::Refused);
                tracing::warn!(
                    neighbour,
                    bundle,
                    reason,
                    "the neighbour never takes this bundle; it stays until its lifetime ends"
                );
                ready.held.park();
            }
            refusal::RETRANSMIT | refusal::SESSION_TERMINATING => ready.held.give_back(Duration::ZERO),
            _ => {
                core.counters.add(Count::Refused);
                tracing::info!(
                    neighbour,
                    bundle,
                    reason,
                    "the neighbour does not take this bundle now"
                );
                ready.held.give_back(core.config.limits.redial_most);
            }
        }
    }
}

/// Cuts a bundle into segments.
async fn send(
    data: &Bytes,
    transfer: u64,
    terms: &Terms,
    out: &mpsc::Sender<Frame>,
) -> Result<(), mpsc::error::SendError<Frame>> {
    let most = usize::try_from(terms.segment.min(SEGMENT)).unwrap_or(1).max(1);
    let mut rest = data.clone();
    let mut flags = START;
    loop {
        let piece = rest.split_to(rest.len().min(most));
        if rest.is_empty() {
            flags |= END;
        }
        let segment = Segment {
            flags,
            transfer,
            // Only a transfer of several segments has to say how long it will be (section 5.2.5.1).
            total: (flags == START).then_some(data.len() as u64),
            strange: false,
            data: piece,
        };
        let frame = Frame {
            head: segment.head(),
            body: segment.data,
        };
        out.send(frame).await?;
        if flags & END != 0 {
            return Ok(());
        }
        flags = 0;
    }
}
