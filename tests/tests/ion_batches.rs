//! Bundles that share a transaction of a real ION node: each has its own outcome. Real ION, as in `ion`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{collections::BTreeSet, time::Duration};

use lightpost_tests::{
    Site,
    ion::{self, Node, Relay, last, with},
};
use serde_json::Value;

const RELAY: &str = env!("CARGO_BIN_EXE_ion-relay");
const PATIENCE: Duration = Duration::from_secs(120);

/// A relay on a node, up.
fn relay(site: &Site, node: &Node) -> Relay {
    let relay = Relay::start(node, 25, &site.path(node.name), RELAY);
    relay.wait_up();
    relay
}

/// The numbers under a key, for payloads each whole and none twice.
fn numbers(told: &[Value], key: &'static str) -> BTreeSet<u64> {
    let mut numbers = BTreeSet::new();
    for line in with(told, key) {
        assert_ne!(line["sound"], false, "{line}");
        assert!(numbers.insert(line[key].as_u64().unwrap()), "twice: {line}");
    }
    numbers
}

/// Waits until each of so many orders has an answer, and returns which were sent.
fn answered(relay: &Relay, count: usize) -> BTreeSet<u64> {
    let told = relay.wait("all answers", PATIENCE, |told| {
        with(told, "sent").count() + with(told, "failed").count() >= count
    });
    let (sent, failed) = (numbers(&told, "sent"), numbers(&told, "failed"));
    assert!(sent.is_disjoint(&failed) && sent.len() + failed.len() == count);
    sent
}

/// The other relay gets what was sent, and nothing else: what follows it, alone, is the last to come.
fn arrives(from: &mut Relay, to: &Relay, sent: &BTreeSet<u64>) {
    to.wait("what was sent", PATIENCE, |told| {
        numbers(told, "got").is_superset(sent)
    });
    from.tell("send ipn:2.25 4096 bulk 1000000");
    let told = to.wait("the last", PATIENCE, |told| {
        numbers(told, "got").contains(&1_000_000)
    });
    let mut all = sent.clone();
    all.insert(1_000_000);
    assert_eq!(numbers(&told, "got"), all);
    let ids = |told: &[Value], key: &'static str| -> BTreeSet<String> {
        with(told, key).map(|line| line["id"].to_string()).collect()
    };
    let known = from.wait("its id", PATIENCE, |told| {
        numbers(told, "sent").contains(&1_000_000)
    });
    assert_eq!(ids(&known, "sent"), ids(&told, "got"), "the sender knows the ids");
}

#[test]
fn one_without_a_route_is_refused_among_others_that_are_sent() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let [earth, moon] = Node::pair(&site);
    let (mut sender, receiver) = (relay(&site, &earth), relay(&site, &moon));
    sender.tell("burst 4096 300 ipn:2.25 ipn:2.25 ipn:7.25 ipn:2.25 ipn:2.26");
    let sent = answered(&sender, 300);
    let told = sender.told();
    assert_eq!(sent, (0..300).filter(|number| number % 5 != 2).collect());
    assert!(with(&told, "failed").all(|line| line["kind"] == "NoRoute"));
    let here: BTreeSet<u64> = sent.into_iter().filter(|number| number % 5 != 4).collect();
    receiver.wait("what was sent here", PATIENCE, |told| {
        numbers(told, "got") == here
    });
}

#[test]
fn what_finds_no_room_among_others_is_not_sent_and_the_others_are() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let [earth, moon] = Node::pair(&site);
    let (mut sender, receiver) = (relay(&site, &earth), relay(&site, &moon));
    earth.block(2, true);
    // A fifth of the heap is for payloads: 25.6 MB of the samples' 128.
    sender.tell("burst 60000 600 ipn:2.25");
    let sent = answered(&sender, 600);
    assert!((300..500).contains(&sent.len()), "{}", sent.len());
    let told = sender.told();
    assert!(with(&told, "failed").all(|line| line["kind"] == "NoRoom"));
    assert_eq!(last(&told, "status"), Some(&Value::from("up")));
    earth.block(2, false);
    arrives(&mut sender, &receiver, &sent);
}

#[test]
fn relays_killed_among_many_orders_lose_none_that_was_told() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let [earth, moon] = Node::pair(&site);
    let receiver = relay(&site, &moon);
    let mut told = BTreeSet::new();
    for round in 0..10_u64 {
        let mut sender = relay(&site, &earth);
        sender.tell(&format!("flood ipn:2.25 4096 1000000 64 {}", round * 1_000_000));
        let enough = usize::try_from(1 + round * 37 % 200).unwrap();
        sender.wait("the flood", PATIENCE, |told| {
            with(told, "flooded").count() >= enough
        });
        sender.kill();
        told.extend(numbers(&sender.told(), "flooded"));
    }
    receiver.wait("all that was told", PATIENCE, |got| {
        numbers(got, "got").is_superset(&told)
    });
    // The node is not locked.
    earth.feed("bpadmin", &[], "l plan\nq\n");
    let mut sender = relay(&site, &earth);
    sender.tell("send ipn:2.25 4096 normal 77000000");
    receiver.wait("one more", PATIENCE, |got| {
        numbers(got, "got").contains(&77_000_000)
    });
}
