//! The thread that hands bundles over to the node, one after the other.

use std::sync::mpsc as channel;
use std::time::Duration;

use bytes::Bytes;
use lightpost_clock::{Clock, Instant};

use super::Events;
use crate::{
    library::{Node, Source, Transaction, Way},
    protocol::{Event, Order, Outcome, Trouble},
    words,
};

/// What is to be done.
pub(super) enum Work {
    Send {
        order: Order,
        payload: Bytes,
        /// Not begun later.
        until: Instant,
    },
    Cancel {
        id: u64,
        time: u64,
        sequence: u64,
    },
    Ping {
        id: u64,
    },
}

impl Work {
    pub(super) fn send(order: Order, payload: Bytes, now: Instant) -> Self {
        let until = now + Duration::from_millis(order.patience);
        Self::Send {
            order,
            payload,
            until,
        }
    }
}

/// Works until nobody can ask any more, or the node is gone: then what is wrong.
pub(super) fn run(
    node: &Node,
    work: &channel::Receiver<Work>,
    events: &Events,
    clock: &Clock,
) -> Option<Trouble> {
    while let Ok(work) = work.recv() {
        let (id, outcome) = match work {
            // The relay has given up on it, and told so.
            Work::Send { order, until, .. } if until < clock.instant() => {
                (order.id, Outcome::Down(words::locked()))
            }
            Work::Send { order, payload, .. } => (order.id, send(node, &order, &payload)),
            Work::Cancel { id, time, sequence } => (id, cancel(node, time, sequence)),
            Work::Ping { id } => (id, ping(node)),
        };
        let down = match &outcome {
            Outcome::Down(trouble) => Some(trouble.clone()),
            _ => None,
        };
        let _ = events.send(Event::Answer { id, outcome });
        if down.is_some() {
            return down;
        }
    }
    None
}

/// A transaction with a node that serves.
fn begin(node: &Node) -> Result<Transaction<'_>, Outcome> {
    if !node.is_started() {
        return Err(Outcome::Down(words::stopped()));
    }
    node.begin()
        .ok_or_else(|| Outcome::Down(words::lost(&node.said())))
}

fn ping(node: &Node) -> Outcome {
    match begin(node) {
        Ok(_) => Outcome::Alive,
        Err(outcome) => outcome,
    }
}

fn cancel(node: &Node, time: u64, sequence: u64) -> Outcome {
    let transaction = match begin(node) {
        Ok(transaction) => transaction,
        Err(outcome) => return outcome,
    };
    match transaction.cancel(time, sequence) {
        Ok(had) => Outcome::Cancelled { had },
        Err(why) => Outcome::Refused { why },
    }
}

/// Hands one bundle over: payload, bundle and the reading of its id are one transaction.
fn send(node: &Node, order: &Order, payload: &[u8]) -> Outcome {
    let transaction = match begin(node) {
        Ok(transaction) => transaction,
        Err(outcome) => return outcome,
    };
    let known = super::numbers(&order.destination).is_some_and(|(number, _)| transaction.has_route(number));
    if !known {
        return Outcome::NoRoute;
    }
    // ION counts payloads only: many small bundles fill its heap with what belongs to them, and a full heap ends ION.
    if transaction.is_depleted() {
        return Outcome::NoRoom {
            why: "less than a sixteenth of ION's heap is free".into(),
        };
    }
    let (enough, most) = transaction.room(order.octets, order.file.is_some());
    if !enough {
        return if order.octets >= most {
            Outcome::TooLarge { most }
        } else {
            Outcome::NoRoom {
                why: format!("ION's account for outbound payloads, {most} octets, is used up"),
            }
        };
    }
    let source = match &order.file {
        Some(file) => transaction.refer(file),
        None => transaction.insert(payload),
    };
    let Some(source) = source else {
        let why = node.said();
        return match order.file {
            Some(_) => Outcome::Refused { why },
            None => Outcome::NoRoom { why },
        };
    };
    hand_over(&transaction, source, order)
}

fn hand_over(transaction: &Transaction<'_>, source: Source, order: &Order) -> Outcome {
    let way = Way {
        destination: &order.destination,
        report_to: order.report_to.as_deref(),
        lifetime: order.lifetime,
        class: order.class,
        reports: order.reports,
    };
    match transaction.send(source, order.octets, &way) {
        Ok(Some(Some((time, sequence)))) => Outcome::Sent { time, sequence },
        // Sent, but nobody will know it again. It is said as it is; a repeat by the sender does no harm.
        Ok(Some(None)) => Outcome::Refused {
            why: "this release of ION keeps bundles in a form that is not known here (4.1.3 is)".into(),
        },
        Ok(None) => Outcome::NoRoom {
            why: "other programs wait for ION's space".into(),
        },
        Err(why) => Outcome::Refused { why },
    }
}
