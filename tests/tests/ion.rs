//! The ION agent against real ION: two nodes with the samples of `deploy/ion`, a relay on each.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{collections::BTreeSet, time::Duration};

use lightpost_tests::{
    Site,
    ion::{self, Node, Relay, last, with},
    wait,
};
use serde_json::Value;

const RELAY: &str = env!("CARGO_BIN_EXE_ion-relay");
const PATIENCE: Duration = Duration::from_secs(90);

/// A relay on each of two nodes, up.
fn relays(site: &Site, nodes: &[Node; 2]) -> [Relay; 2] {
    let relays = [&nodes[0], &nodes[1]].map(|node| Relay::start(node, 25, &site.path(node.name), RELAY));
    relays.iter().for_each(Relay::wait_up);
    relays
}

/// The numbers of the payloads that came, each whole.
fn got(told: &[Value]) -> BTreeSet<u64> {
    with(told, "got")
        .map(|line| {
            assert_eq!(line["sound"], true, "{line}");
            line["got"].as_u64().unwrap()
        })
        .collect()
}

#[test]
fn payloads_of_all_sizes_cross_both_ways() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let nodes = Node::pair(&site);
    let mut relays = relays(&site, &nodes);
    let sizes = [8, 4_096, 262_144, 262_145, 20_000_000];
    for (from, to) in [(0, 1), (1, 0)] {
        let destination = format!("ipn:{}.25", nodes[to].number);
        for (number, size) in sizes.iter().enumerate() {
            relays[from].tell(&format!("send {destination} {size} normal {number}"));
        }
        let told = relays[to].wait("all payloads", PATIENCE, |told| {
            with(told, "got").count() >= sizes.len()
        });
        assert_eq!(got(&told).len(), sizes.len());
        let octets: BTreeSet<u64> = with(&told, "got")
            .map(|line| line["octets"].as_u64().unwrap())
            .collect();
        assert_eq!(octets, sizes.into());
        let sent = relays[from].wait("all ids", PATIENCE, |told| {
            with(told, "sent").count() >= sizes.len()
        });
        let ids = |told: &[Value], key: &'static str| -> BTreeSet<String> {
            with(told, key).map(|line| line["id"].to_string()).collect()
        };
        assert_eq!(
            ids(&sent, "sent"),
            ids(&told, "got"),
            "the sender knows the ids that arrive"
        );
        assert!(with(&told, "got").all(|line| line["expires"].is_string()));
    }
    for node in &nodes {
        let left: Vec<_> = std::fs::read_dir(site.path(node.name).join("sent"))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "files of bundles that are gone: {left:?}");
    }
    for relay in relays {
        relay.close();
    }
    for node in &nodes {
        assert!(
            node.processes("ion-agent").is_empty(),
            "the helper ends with its relay"
        );
    }
}

#[test]
fn classes_go_in_their_order() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let nodes = Node::pair(&site);
    let mut relays = relays(&site, &nodes);
    // They gather before the contact begins; the first is taken by what sends them.
    let later = "d contact * 1 2\na contact +12 +3600 1 2 1000000\nq\n";
    nodes[0].feed("ionadmin", &[], later);
    relays[0].tell("send ipn:2.25 4096 expedited 9");
    for (number, class) in ["bulk", "normal", "expedited", "bulk", "normal", "expedited"]
        .iter()
        .enumerate()
    {
        relays[0].tell(&format!("send ipn:2.25 4096 {class} {number}"));
    }
    relays[0].wait("all ids", PATIENCE, |told| with(told, "sent").count() == 7);
    let told = relays[1].wait("all payloads", PATIENCE, |told| with(told, "got").count() == 7);
    let order: Vec<u64> = with(&told, "got")
        .map(|line| line["got"].as_u64().unwrap())
        .collect();
    assert_eq!(order, [9, 2, 5, 1, 4, 0, 3]);
}

#[test]
fn a_node_without_room_says_so_and_has_room_later() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let nodes = Node::pair(&site);
    let mut relays = relays(&site, &nodes);
    nodes[0].block(2, true);
    relays[0].tell("flood ipn:2.25 250000 150 8");
    relays[0].wait("no room", PATIENCE, |told| with(told, "no-room").count() > 0);
    let why = last(&relays[0].told(), "no-room").unwrap().to_string();
    assert!(why.contains("octets") && why.contains("used up"), "{why}");
    assert_eq!(last(&relays[0].told(), "status"), Some(&Value::from("up")));
    nodes[0].block(2, false);
    let told = relays[1].wait("all payloads", PATIENCE, |told| got(told).len() == 150);
    assert_eq!(with(&told, "got").count(), 150, "nothing twice");
    relays[0].wait("the flood's end", PATIENCE, |told| last(told, "flood").is_some());
}

#[test]
fn bundles_survive_ion_stopped_and_started_again() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let nodes = Node::pair(&site);
    let mut relays = relays(&site, &nodes);
    nodes[0].block(2, true);
    for number in 0..5 {
        relays[0].tell(&format!(
            "send ipn:2.25 {} normal {number}",
            4_096 + number * 100_000
        ));
    }
    relays[0].wait("all ids", PATIENCE, |told| with(told, "sent").count() == 5);
    nodes[0].stop();
    let told = relays[0].wait("down", PATIENCE, |told| {
        last(told, "status") == Some(&Value::from("down"))
    });
    let why = last(&told, "why").unwrap().as_str().unwrap();
    assert!(why.contains("stopped") || why.contains("no ION node"), "{why}");
    relays[0].tell("send ipn:2.25 4096 normal 99");
    let told = relays[0].wait("a refusal", PATIENCE, |told| last(told, "failed").is_some());
    assert_eq!(last(&told, "kind"), Some(&Value::from("Down")));
    nodes[0].start();
    relays[0].wait_up();
    nodes[0].block(2, false);
    let told = relays[1].wait("all payloads", PATIENCE, |told| got(told).len() == 5);
    assert_eq!(got(&told), (0..5).collect());
    relays[0].tell("send ipn:2.25 4096 normal 7");
    relays[1].wait("one more", PATIENCE, |told| got(told).contains(&7));
}

#[test]
fn bundles_wait_for_a_contact() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let nodes = Node::pair(&site);
    let mut relays = relays(&site, &nodes);
    let later = "d contact * 1 2\na contact +25 +3600 1 2 1000000\nq\n";
    nodes[0].feed("ionadmin", &[], later);
    for number in 0..4 {
        relays[0].tell(&format!("send ipn:2.25 4096 normal {number}"));
    }
    relays[0].wait("all ids", PATIENCE, |told| with(told, "sent").count() == 4);
    // ION lets the first out at once.
    let early = wait::holds_within(Duration::from_secs(3), || {
        with(&relays[1].told(), "got").count() > 1
    });
    assert!(!early, "the contact has not begun");
    relays[1].wait("all payloads", PATIENCE, |told| got(told).len() == 4);
}

#[test]
fn reports_come_back_and_bundles_are_cancelled() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let nodes = Node::pair(&site);
    let mut relays = relays(&site, &nodes);
    relays[0].tell("send ipn:2.25 4096 normal 1 3600 report");
    let told = relays[0].wait("a report of the delivery", PATIENCE, |told| {
        with(told, "report").any(|line| line["report"] == "Delivered")
    });
    let delivered = with(&told, "report")
        .find(|line| line["report"] == "Delivered")
        .unwrap();
    assert_eq!(delivered["about"], with(&told, "sent").next().unwrap()["id"]);
    assert_eq!(delivered["from"], "ipn:2.0");
    assert!(delivered["at"].is_string());

    nodes[0].block(2, true);
    relays[0].tell("send ipn:2.25 4096 normal 2 3600 report");
    relays[0].tell("send ipn:2.25 300000 normal 3 3600");
    relays[0].tell("cancel 2");
    relays[0].tell("cancel 3");
    relays[0].tell("cancel 2");
    relays[0].tell("cancel 1");
    let told = relays[0].wait("the answers", PATIENCE, |told| {
        with(told, "cancelled").count() == 4
    });
    let had: Vec<_> = with(&told, "cancelled")
        .map(|line| line["had"].as_bool().unwrap())
        .collect();
    assert_eq!(had, [true, true, false, false]);
    let about = with(&told, "sent").find(|line| line["sent"] == 2).unwrap()["id"].clone();
    relays[0].wait("a report of the deletion", PATIENCE, |told| {
        with(told, "report").any(|line| line["report"] == "Deleted" && line["about"] == about)
    });
    nodes[0].block(2, false);
    relays[0].tell("send ipn:2.25 4096 normal 4");
    let told = relays[1].wait("the last", PATIENCE, |told| got(told).contains(&4));
    assert_eq!(got(&told), [1, 4].into());
}

#[test]
fn what_is_not_done_comes_again_after_a_restart() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let nodes = Node::pair(&site);
    let [mut earth, mut moon] = relays(&site, &nodes);
    earth.tell("send ipn:2.25 4096 normal 1");
    moon.wait("the first", PATIENCE, |told| got(told).contains(&1));
    moon.tell("hold");
    earth.tell("send ipn:2.25 4096 normal 2");
    earth.tell("send ipn:2.25 400000 normal 3");
    moon.wait("the others", PATIENCE, |told| got(told).len() == 3);
    moon.kill();
    earth.tell("send ipn:2.25 4096 normal 4");
    let moon = Relay::start(&nodes[1], 25, &site.path("moon"), RELAY);
    let told = moon.wait("what was not done", PATIENCE, |told| got(told).len() == 3);
    assert_eq!(got(&told), [2, 3, 4].into());
    moon.close();
}

#[test]
fn a_destination_that_the_node_does_not_know_is_refused() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let nodes = Node::pair(&site);
    let mut relays = relays(&site, &nodes);
    for (number, destination) in ["ipn:7.25", "dtn://moon/mail", "ipn:2.25"].iter().enumerate() {
        relays[0].tell(&format!("send {destination} 4096 normal {number}"));
    }
    let told = relays[0].wait("the answers", PATIENCE, |told| last(told, "sent").is_some());
    let kinds: Vec<_> = with(&told, "failed")
        .map(|line| line["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["NoRoute", "Refused"]);
    // A contact names it: from here on ION can find a way.
    nodes[0].feed(
        "ionadmin",
        &[],
        "a contact +0 +3600 2 7 1000000\na range +0 +3600 2 7 1\nq\n",
    );
    relays[0].tell("send ipn:7.25 4096 normal 9");
    relays[0].wait("its id", PATIENCE, |told| {
        last(told, "sent") == Some(&Value::from(9))
    });
}
