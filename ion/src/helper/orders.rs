//! The thread that does what the relay asks for: hands bundles over to the node, drops them, looks whether it answers.

use std::{collections::VecDeque, sync::mpsc as channel, time::Duration};

use bytes::Bytes;
use lightpost_clock::{Clock, Instant};

use super::{
    batch::{self, Broken, Carrier, Carry, Parcel},
    relay::Events,
};
use crate::{
    library::{Node, SendFailure, Source, Transaction, Way},
    protocol::{Event, Order, Outcome, Trouble},
    words,
};

/// What is to be done.
pub(super) enum Work {
    Send(Parcel),
    Ask(Question),
}

/// What has a transaction of its own.
pub(super) enum Question {
    Cancel { id: u64, time: u64, sequence: u64 },
    Ping { id: u64 },
}

impl Work {
    pub(super) fn send(order: Order, payload: Bytes, now: Instant) -> Self {
        let until = now + Duration::from_millis(order.patience);
        Self::Send(Parcel::new(order, payload, until))
    }

    /// What its answer is known by.
    pub(super) fn id(&self) -> u64 {
        match self {
            Self::Send(parcel) => parcel.order.id,
            Self::Ask(Question::Cancel { id, .. } | Question::Ping { id }) => *id,
        }
    }
}

/// Works until nobody can ask any more, or the node is gone: then what is wrong.
pub(super) fn run(
    node: &Node,
    work: &channel::Receiver<Vec<Work>>,
    events: &Events,
    clock: &Clock,
) -> Option<Trouble> {
    let mut waiting = VecDeque::new();
    let mut parcels = VecDeque::new();
    loop {
        if waiting.is_empty() && parcels.is_empty() {
            match work.recv() {
                Ok(works) => waiting.extend(works),
                Err(_) => return None,
            }
        }
        waiting.extend(work.try_iter().flatten());
        // What waits is handed over together, in the order in which it came; a question waits for what was before it.
        while let Some(Work::Send(parcel)) = waiting.pop_front_if(|it| matches!(it, Work::Send(_))) {
            parcels.push_back(parcel);
        }
        let outcomes = if !parcels.is_empty() {
            send(node, &mut parcels, clock.instant())
        } else if let Some(Work::Ask(question)) = waiting.pop_front() {
            vec![answer(node, &question)]
        } else {
            Vec::new()
        };
        let down = outcomes.iter().find_map(|(_, outcome)| match outcome {
            Outcome::Down(trouble) => Some(trouble.clone()),
            _ => None,
        });
        let answers = outcomes
            .into_iter()
            .map(|(id, outcome)| Event::Answer { id, outcome });
        events.tell_all(answers.collect());
        if down.is_some() {
            return down;
        }
    }
}

fn answer(node: &Node, question: &Question) -> (u64, Outcome) {
    match *question {
        Question::Cancel { id, time, sequence } => (id, cancel(node, time, sequence)),
        Question::Ping { id } => (id, begin(node).map_or_else(|outcome| outcome, |_| Outcome::Alive)),
    }
}

fn send(node: &Node, parcels: &mut VecDeque<Parcel>, now: Instant) -> Vec<(u64, Outcome)> {
    // The relay has given up on it, and told so.
    if let Some(late) = parcels.pop_front_if(|it| it.until < now) {
        return vec![(late.order.id, Outcome::Down(words::locked()))];
    }
    batch::carry_out(node, parcels, now)
}

/// A transaction with a node that serves.
fn begin(node: &Node) -> Result<Transaction<'_>, Outcome> {
    if !node.is_started() {
        return Err(Outcome::Down(words::stopped()));
    }
    node.begin()
        .ok_or_else(|| Outcome::Down(words::lost(&node.said())))
}

fn cancel(node: &Node, time: u64, sequence: u64) -> Outcome {
    let transaction = match begin(node) {
        Ok(transaction) => transaction,
        Err(outcome) => return outcome,
    };
    let cancelled = transaction.cancel(time, sequence);
    match (cancelled, transaction.end()) {
        (Ok(had), true) => Outcome::Cancelled { had },
        (Ok(_), false) => Outcome::Refused { why: node.said() },
        (Err(why), _) => Outcome::Refused { why },
    }
}

impl Carrier for Node {
    type Open<'n> = Transaction<'n>;

    fn begin(&self) -> Result<Transaction<'_>, Outcome> {
        begin(self)
    }

    fn has(&self, time: u64, sequence: u64) -> Result<bool, Outcome> {
        let found = begin(self)?.has(time, sequence);
        found.map_err(|said| Outcome::Down(words::lost(&said)))
    }
}

impl Carry for Transaction<'_> {
    /// Payload, bundle and the reading of its id.
    fn hand_over(&mut self, order: &Order, payload: &[u8]) -> Result<Outcome, Broken> {
        let known = super::numbers(&order.destination).is_some_and(|(number, _)| self.has_route(number));
        if !known {
            return Ok(Outcome::NoRoute);
        }
        // ION counts payloads only: many small bundles fill its heap with what belongs to them, and a full heap ends ION.
        if self.is_depleted() {
            return Ok(Outcome::NoRoom {
                why: "less than a sixteenth of ION's heap is free".into(),
            });
        }
        let (enough, most) = self.room(order.octets, order.file.is_some());
        if !enough {
            return Ok(if order.octets >= most {
                Outcome::TooLarge { most }
            } else {
                Outcome::NoRoom {
                    why: format!("ION's account for outbound payloads, {most} octets, is used up"),
                }
            });
        }
        let source = match &order.file {
            Some(file) => self.refer(file),
            None => self.insert(payload),
        };
        let Some(source) = source else {
            let why = self.said();
            return Err(Broken(match order.file {
                Some(_) => Outcome::Refused { why },
                None => Outcome::NoRoom { why },
            }));
        };
        give(self, source, order)
    }

    fn end(self) -> bool {
        Transaction::end(self)
    }
}

fn give(transaction: &Transaction<'_>, source: Source, order: &Order) -> Result<Outcome, Broken> {
    let way = Way {
        destination: &order.destination,
        report_to: order.report_to.as_deref(),
        lifetime: order.lifetime,
        class: order.class,
        reports: order.reports,
    };
    Ok(match transaction.send(source, order.octets, &way) {
        Ok(Some((time, sequence))) => Outcome::Sent { time, sequence },
        // Sent, but nobody will know it again. It is said as it is; a repeat by the sender does no harm.
        Ok(None) => Outcome::Refused {
            why: "this release of ION keeps bundles in a form that is not known here (4.1.3 is)".into(),
        },
        Err(SendFailure::NoRoom) => Outcome::NoRoom {
            why: "other programs wait for ION's space".into(),
        },
        Err(SendFailure::Refused(why)) => Outcome::Refused { why },
        Err(SendFailure::Broken(why)) => return Err(Broken(Outcome::Refused { why })),
    })
}
