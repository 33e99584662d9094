//! Several bundles in one transaction of the node.
//!
//! A transaction locks the whole node and costs more than a small bundle, so what waits together is handed over together. Each keeps an outcome of
//! its own: what is refused before ION is asked, for want of a route or of room, and what ION refuses as malformed leaves nothing behind, so the
//! others are not touched by it. When ION itself fails it may undo everything in the transaction, and it does not say whether it has: then the node is
//! asked for each bundle that it had taken, and what it does not have is handed over again, alone. A bundle that has left within that moment
//! goes twice, which the far end knows by the exchange's id.
//!
//! `Sent` is said only once the transaction has ended.

use std::collections::VecDeque;

use bytes::Bytes;
use lightpost_clock::Instant;

use crate::protocol::{Order, Outcome};

/// At most so many bundles share a transaction.
const MOST: usize = 64;
/// Larger payloads, and those in files, have a transaction of their own: they gain nothing, and are where ION fails. Where it runs out of heap in a
/// transaction that has changed something, and is not configured to undo it, it ends this process and leaves the node locked.
const SMALL: u64 = 64 << 10;

/// A bundle that waits for its turn.
pub(super) struct Parcel {
    pub(super) order: Order,
    pub(super) payload: Bytes,
    /// Not begun later.
    pub(super) until: Instant,
    /// It shares no transaction.
    alone: bool,
}

/// ION failed, and may have undone the whole transaction; what became of the bundle at which it did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken(pub(super) Outcome);

/// A node.
pub(super) trait Carrier {
    /// A transaction.
    type Open<'c>: Carry
    where
        Self: 'c;

    /// Begins a transaction.
    ///
    /// # Errors
    /// The node does not serve: what is answered to whoever asks.
    fn begin(&self) -> Result<Self::Open<'_>, Outcome>;

    /// Whether the node has a bundle of ours.
    ///
    /// # Errors
    /// As for [`Carrier::begin`].
    fn has(&self, time: u64, sequence: u64) -> Result<bool, Outcome>;
}

/// A transaction of a node.
pub(super) trait Carry {
    /// Hands one bundle over.
    ///
    /// # Errors
    /// [`Broken`]; nothing more can be done in this transaction.
    fn hand_over(&mut self, order: &Order, payload: &[u8]) -> Result<Outcome, Broken>;

    /// Ends it; whether it was one until now.
    fn end(self) -> bool;
}

impl Parcel {
    pub(super) fn new(order: Order, payload: Bytes, until: Instant) -> Self {
        Self {
            alone: order.octets > SMALL || order.file.is_some(),
            order,
            payload,
            until,
        }
    }
}

/// Hands over what waits, up to what one transaction may hold, and tells what became of each by its order's id. What is to be tried again stands at the
/// queue's beginning afterwards.
pub(super) fn carry_out<C: Carrier>(
    carrier: &C,
    queue: &mut VecDeque<Parcel>,
    now: Instant,
) -> Vec<(u64, Outcome)> {
    let mut open = match carrier.begin() {
        Ok(open) => open,
        Err(outcome) => return queue.drain(..).map(|it| (it.order.id, outcome.clone())).collect(),
    };
    let mut taken = Vec::new();
    let mut broken = None;
    while let Some(parcel) = next(queue, &taken, now) {
        match open.hand_over(&parcel.order, &parcel.payload) {
            Ok(outcome) => taken.push((parcel, outcome)),
            Err(Broken(outcome)) => {
                broken = Some((parcel.order.id, outcome));
                break;
            }
        }
    }
    let whole = open.end();
    let mut outcomes = if whole && broken.is_none() {
        taken
            .into_iter()
            .map(|(parcel, outcome)| (parcel.order.id, outcome))
            .collect()
    } else {
        settle(carrier, taken, queue)
    };
    outcomes.extend(broken);
    outcomes
}

/// The next one that may share a transaction with those that were taken.
fn next(queue: &mut VecDeque<Parcel>, taken: &[(Parcel, Outcome)], now: Instant) -> Option<Parcel> {
    let parcel = queue.front()?;
    let shares =
        taken.is_empty() || (!parcel.alone && taken.len() < MOST && taken.iter().all(|(it, _)| !it.alone));
    (shares && parcel.until >= now).then(|| queue.pop_front())?
}

/// The outcomes of a transaction that may have been undone.
fn settle<C: Carrier>(
    carrier: &C,
    taken: Vec<(Parcel, Outcome)>,
    queue: &mut VecDeque<Parcel>,
) -> Vec<(u64, Outcome)> {
    let mut outcomes = Vec::with_capacity(taken.len());
    let mut again = Vec::new();
    // All are looked for before one is tried again: a new bundle can have the name of one that was undone.
    for (mut parcel, outcome) in taken {
        let outcome = match outcome {
            Outcome::Sent { time, sequence } => match carrier.has(time, sequence) {
                Ok(true) => outcome,
                Ok(false) if parcel.alone => Outcome::Refused {
                    why: "ION has undone the transaction".into(),
                },
                Ok(false) => {
                    parcel.alone = true;
                    again.push(parcel);
                    continue;
                }
                Err(outcome) => outcome,
            },
            // Refused before anything was changed.
            outcome => outcome,
        };
        outcomes.push((parcel.order.id, outcome));
    }
    for parcel in again.into_iter().rev() {
        queue.push_front(parcel);
    }
    outcomes
}

#[cfg(test)]
mod tests;
