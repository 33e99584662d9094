use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use super::*;

/// A node that counts its transactions and does by each order's destination what is asked for here.
#[derive(Default)]
struct Fake {
    /// Orders' ids by their bundles' sequence numbers: what the node has.
    held: RefCell<BTreeMap<u64, u64>>,
    /// What left at once.
    left: RefCell<Vec<u64>>,
    next: Cell<u64>,
    transactions: Cell<u64>,
    /// Transactions from here on are undone when something in them breaks, and so is the number of the next bundle.
    undoes: Cell<bool>,
    gone: Cell<bool>,
}

struct FakeOpen<'f> {
    node: &'f Fake,
    before: (BTreeMap<u64, u64>, u64),
    broken: bool,
}

impl Carrier for Fake {
    type Open<'c> = FakeOpen<'c>;

    fn begin(&self) -> Result<FakeOpen<'_>, Outcome> {
        if self.gone.get() {
            return Err(Outcome::Down(crate::words::stopped()));
        }
        self.transactions.set(self.transactions.get() + 1);
        Ok(FakeOpen {
            node: self,
            before: (self.held.borrow().clone(), self.next.get()),
            broken: false,
        })
    }

    fn has(&self, _: u64, sequence: u64) -> Result<bool, Outcome> {
        Ok(self.held.borrow().contains_key(&sequence))
    }
}

impl Carry for FakeOpen<'_> {
    fn hand_over(&mut self, order: &Order, _: &[u8]) -> Result<Outcome, Broken> {
        match order.destination.as_str() {
            "nowhere" => return Ok(Outcome::NoRoute),
            "full" => return Ok(Outcome::NoRoom { why: "full".into() }),
            "breaks" => {
                self.broken = true;
                return Err(Broken(Outcome::Refused { why: "broken".into() }));
            }
            // Breaks what shares a transaction with others, and nobody is told before the end.
            "spoils" if self.before.0.len() < self.node.held.borrow().len() => self.broken = true,
            _ => {}
        }
        let sequence = self.node.next.replace(self.node.next.get() + 1);
        self.node.held.borrow_mut().insert(sequence, order.id);
        if order.destination == "near" {
            self.node.left.borrow_mut().push(sequence);
        }
        Ok(Outcome::Sent { time: 1, sequence })
    }

    fn end(self) -> bool {
        if self.broken && self.node.undoes.get() {
            *self.node.held.borrow_mut() = self.before.0;
            self.node.next.set(self.before.1);
            return false;
        }
        for sequence in self.node.left.borrow_mut().drain(..) {
            self.node.held.borrow_mut().remove(&sequence);
        }
        true
    }
}

fn now() -> Instant {
    lightpost_clock::Clock::system().instant()
}

fn parcel(id: u64, destination: &str, octets: u64) -> Parcel {
    let order = Order {
        id,
        destination: destination.into(),
        lifetime: 60,
        class: 1,
        report_to: None,
        reports: 0,
        patience: 1000,
        file: None,
        octets,
    };
    Parcel::new(order, Bytes::new(), now() + Duration::from_secs(60))
}

fn queue(destinations: &[&str]) -> VecDeque<Parcel> {
    let ids = 1..;
    ids.zip(destinations)
        .map(|(id, destination)| parcel(id, destination, 100))
        .collect()
}

/// What becomes of all, each answered once: whether it was sent, by its id.
fn all(node: &Fake, queue: &mut VecDeque<Parcel>) -> BTreeMap<u64, bool> {
    let mut answers = BTreeMap::new();
    while !queue.is_empty() {
        for (id, outcome) in carry_out(node, queue, now()) {
            let sent = matches!(outcome, Outcome::Sent { .. });
            assert_eq!(answers.insert(id, sent), None, "{id} is answered twice");
        }
    }
    answers
}

#[test]
fn what_is_refused_does_not_touch_what_shares_its_transaction() {
    let node = Fake::default();
    let mut queue = queue(&["far", "nowhere", "far", "full", "far"]);
    let outcomes = carry_out(&node, &mut queue, now());
    assert!(queue.is_empty());
    let ids: Vec<u64> = outcomes.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5], "in their order");
    assert_eq!(outcomes[1].1, Outcome::NoRoute);
    assert!(matches!(outcomes[3].1, Outcome::NoRoom { .. }));
    assert_eq!(outcomes[4].1, Outcome::Sent { time: 1, sequence: 2 });
    assert_eq!(node.transactions.get(), 1);
}

#[test]
fn what_was_undone_goes_again_alone_and_once() {
    let node = Fake::default();
    node.undoes.set(true);
    let mut queue = queue(&["far", "far", "breaks", "far", "far"]);
    let answers = all(&node, &mut queue);
    assert_eq!(
        answers,
        [(1, true), (2, true), (3, false), (4, true), (5, true)].into()
    );
    let held: Vec<u64> = node.held.borrow().values().copied().collect();
    assert_eq!(held, [1, 2, 4, 5]);
    assert_eq!(
        node.transactions.get(),
        4,
        "the two that were undone alone, what waited together"
    );
}

#[test]
fn what_was_not_undone_does_not_go_again() {
    let node = Fake::default();
    let mut queue = queue(&["far", "far", "breaks", "far"]);
    let answers = all(&node, &mut queue);
    assert_eq!(answers, [(1, true), (2, true), (3, false), (4, true)].into());
    let held: Vec<u64> = node.held.borrow().values().copied().collect();
    assert_eq!(held, [1, 2, 4]);
}

#[test]
fn nothing_is_sent_before_its_transaction_has_ended() {
    let node = Fake::default();
    node.undoes.set(true);
    // The third one spoils the whole, and all calls say that all is well.
    let mut queue = queue(&["far", "far", "spoils"]);
    assert_eq!(carry_out(&node, &mut queue, now()), []);
    assert!(node.held.borrow().is_empty());
    let answers = all(&node, &mut queue);
    assert_eq!(answers, [(1, true), (2, true), (3, true)].into());
    assert_eq!(node.held.borrow().len(), 3);
}

#[test]
fn what_left_in_the_moment_of_doubt_goes_twice_rather_than_never() {
    let node = Fake::default();
    let mut queue = queue(&["near", "breaks"]);
    let answers = all(&node, &mut queue);
    // Alone and not there afterwards: sent, because nothing was undone then.
    assert_eq!(answers, [(1, true), (2, false)].into());
    assert_eq!(node.next.get(), 2, "two bundles of one order");
}

#[test]
fn large_ones_are_alone_and_no_transaction_is_too_long() {
    let node = Fake::default();
    let mut queue: VecDeque<Parcel> = (0..200).map(|id| parcel(id, "far", 100)).collect();
    queue.insert(10, parcel(1000, "far", SMALL + 1));
    let mut sizes = Vec::new();
    while !queue.is_empty() {
        sizes.push(carry_out(&node, &mut queue, now()).len());
    }
    assert_eq!(sizes, [10, 1, 64, 64, 62]);
}

#[test]
fn what_is_late_is_not_begun_and_a_node_that_is_gone_is_told_to_all() {
    let node = Fake::default();
    let mut parcels = queue(&["far", "far", "far"]);
    let later = now() + Duration::from_secs(120);
    parcels[0].until = later;
    assert_eq!(carry_out(&node, &mut parcels, later).len(), 1);
    assert_eq!(parcels.len(), 2);
    node.gone.set(true);
    let outcomes = carry_out(&node, &mut parcels, now());
    assert!(outcomes.len() == 2 && outcomes.iter().all(|(_, it)| matches!(it, Outcome::Down(_))));
}
