//! Bundles that leave: cut into segments, and let go when the neighbour has acknowledged the last. One that is larger than the neighbour
//! takes leaves as fragments, and is let go when it has the last of those.

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
    bundle::cut::Cut,
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
    transfers: HashMap<u64, Transfer>,
    octets: usize,
    next: u64,
    /// Bundles of which not all is acknowledged, by the number of their first transfer.
    bundles: HashMap<u64, Leaving>,
    closed: bool,
}

/// What is under way: a bundle, or one fragment of it.
struct Transfer {
    octets: usize,
    bundle: u64,
}

/// A bundle under way, given back when this is dropped.
struct Leaving {
    ready: Ready,
    /// Its transfers that are not acknowledged, those that did not begin too.
    left: usize,
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
            let sent = if ready.data.len() as u64 > terms.transfer {
                self.in_pieces(core, peer, terms, &out, ready).await
            } else {
                let data = ready.data.clone();
                let transfer = self.begin(ready, 1);
                self.transfer(transfer, transfer, data.len());
                send(&data, transfer, terms, &out).await
            };
            if sent.is_err() {
                return End::Over;
            }
        }
    }

    /// Sends a bundle that is larger than the neighbour takes as fragments, each a transfer of its own.
    async fn in_pieces(
        &self,
        core: &Core,
        peer: &Peer,
        terms: &Terms,
        out: &mpsc::Sender<Frame>,
        ready: Ready,
    ) -> Sent {
        let neighbour = &peer.neighbour.name;
        let cut = match Cut::new(&ready.data, terms.transfer) {
            Ok(cut) => cut,
            Err(why) => {
                let why = format!("it takes {} octets: {why}", terms.transfer);
                core.refused(ready, neighbour, &why);
                return Ok(());
            }
        };
        let bundle = self.begin(ready, cut.count());
        for number in 0..cut.count() {
            self.window().await;
            // None of it is sent any more once one of its pieces was refused.
            if !self.waiting().bundles.contains_key(&bundle) {
                break;
            }
            match cut.piece(number) {
                Ok(piece) => {
                    let transfer = if number == 0 { bundle } else { self.number() };
                    self.transfer(transfer, bundle, piece.len());
                    send(&piece, transfer, terms, out).await?;
                }
                Err(why) => {
                    let leaving = self.waiting().bundles.remove(&bundle);
                    if let Some(leaving) = leaving {
                        core.refused(leaving.ready, neighbour, &why.to_string());
                    }
                    break;
                }
            }
        }
        Ok(())
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

    /// The number of the next transfer.
    fn number(&self) -> u64 {
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        number
    }

    /// A bundle begins to leave in so many transfers; the number of the first.
    fn begin(&self, ready: Ready, transfers: usize) -> u64 {
        let bundle = self.number();
        let leaving = Leaving {
            ready,
            left: transfers,
        };
        self.waiting().bundles.insert(bundle, leaving);
        bundle
    }

    /// A transfer of so many octets begins.
    fn transfer(&self, number: u64, bundle: u64, octets: usize) {
        let mut waiting = self.waiting();
        waiting.octets += octets;
        waiting.transfers.insert(number, Transfer { octets, bundle });
    }

    /// A transfer has ended; with `whole` so has its bundle, else when it was the last. The bundle then.
    fn end(&self, transfer: u64, whole: bool) -> Option<Ready> {
        let mut waiting = self.waiting();
        let Transfer { octets, bundle } = waiting.transfers.remove(&transfer)?;
        waiting.octets -= octets;
        let leaving = waiting.bundles.get_mut(&bundle);
        let done = leaving.is_some_and(|it| {
            it.left = it.left.saturating_sub(1);
            whole || it.left == 0
        });
        let leaving = if done {
            waiting.bundles.remove(&bundle)
        } else {
            None
        };
        drop(waiting);
        self.changed.notify_waiters();
        self.changed.notify_one();
        leaving.map(|it| it.ready)
    }

    /// The neighbour has so much of a transfer. That it has all of it is told by the length: not everybody sets the flags.
    pub(super) fn acknowledged(&self, core: &Core, transfer: u64, length: u64) -> Result<(), End> {
        let octets = self.waiting().transfers.get(&transfer).map(|it| it.octets as u64);
        match octets {
            None => Ok(()),
            Some(octets) if length > octets => Err(End::Violation(format!(
                "it acknowledges {length} octets of a transfer of {octets}"
            ))),
            Some(octets) => {
                if length == octets
                    && let Some(ready) = self.end(transfer, false)
                {
                    core.forwarded(ready, true);
                }
                Ok(())
            }
        }
    }

    /// The neighbour does not take a transfer: not the bundle, then, whatever it has of it.
    pub(super) fn refused(&self, core: &Core, peer: &Peer, transfer: u64, reason: u8) {
        if reason == refusal::COMPLETED {
            if let Some(ready) = self.end(transfer, false) {
                core.forwarded(ready, true);
            }
            return;
        }
        let Some(ready) = self.end(transfer, true) else {
            return;
        };
        let (neighbour, bundle) = (&peer.neighbour.name, &ready.held.stored().key);
        match reason {
            refusal::NOT_ACCEPTABLE | refusal::EXTENSION_FAILURE => {
                let why = format!("it refuses it for good (XFER_REFUSE, reason {reason})");
                core.refused(ready, neighbour, &why);
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

type Sent = Result<(), mpsc::error::SendError<Frame>>;

/// Cuts a bundle into segments.
async fn send(data: &Bytes, transfer: u64, terms: &Terms, out: &mpsc::Sender<Frame>) -> Sent {
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
