//! Client and gateway beside a bundle node that is not theirs, made of octets: it sends in any order, twice, too much, and nonsense.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    time::Duration,
};

use lightpost_tests::{
    bsmtp,
    bundles::{ALICE, BOB, World, hello},
    programs::Program,
    tcpcl::{self, Heard, Peer, bundle},
    wait,
};

const SOON: Duration = Duration::from_secs(60);
const BUNDLES: &str = "transports = [\"bundle\"]\nreply_within = \"300s\"\n";
const EARTH: &str = "ipn:1.26";
const MOON: &str = "ipn:2.25";
/// XFER_REFUSE: no resources; not acceptable.
const NO_RESOURCES: u8 = 2;
const NOT_ACCEPTABLE: u8 = 4;
const GIGABYTE: u64 = 1 << 30;
/// The largest bundle that a node takes when nothing else is configured, and what it has under way from others at most.
const LARGEST: u64 = 64 << 20;
const UNDER_WAY: u64 = 128 << 20;

/// Waits for a line in a program's log.
fn logged(program: &mut Program, what: &str) {
    wait::until(what, SOON, || program.process().output().contains(what));
}

/// Sends a bundle that the node takes, whatever is in it.
fn put(peer: &mut Peer, transfer: u64, data: &[u8]) {
    peer.send(transfer, data);
    let length = data.len() as u64;
    assert_eq!(peer.fate(transfer, length), Heard::Ack { transfer, length });
}

/// A bundle with a wrong octet.
fn broken(mut data: Vec<u8>) -> Vec<u8> {
    let at = data.len() - 8;
    data[at] ^= 1;
    data
}

/// Waits until four mails wait for their replies; returns them with their exchanges.
fn four_held(world: &World, from_earth: &mut Peer) -> Vec<(String, String)> {
    let ids: Vec<String> = (0..4)
        .map(|number| {
            world
                .client
                .submit(ALICE, &[BOB], &hello(&format!("mail-{number}")))
        })
        .collect();
    let asked: BTreeSet<String> = ids
        .iter()
        .map(|_| tcpcl::exchange(&from_earth.payload()))
        .collect();
    let exchange = |id: &str| {
        world.client.wait_status(id, "awaiting", SOON);
        let history = world.client.message(id).to_string();
        let of = asked.iter().find(|exchange| history.contains(*exchange));
        of.unwrap().clone()
    };
    ids.into_iter()
        .map(|id| {
            let exchange = exchange(&id);
            (id, exchange)
        })
        .collect()
}

fn reply(exchange: &str, status: u16) -> Vec<u8> {
    let key = format!("\"{exchange}\"");
    tcpcl::response(status, &[("idempotency-key", &key)], b"")
}

/// Sends the client what is no reply to `exchange`, and sees each be named in its log.
fn nonsense(world: &mut World, moon: &mut Peer, exchange: &str) {
    for (transfer, octets) in [
        b"nothing of the kind".to_vec(),
        broken(bundle(MOON, EARTH, 1, &reply(exchange, 202))),
    ]
    .iter()
    .enumerate()
    {
        let transfer = transfer as u64;
        moon.send(transfer, octets);
        let refused = Heard::Refuse {
            transfer,
            reason: NOT_ACCEPTABLE,
        };
        assert_eq!(moon.hear(), refused);
    }
    logged(&mut world.client, "a bundle node sent what cannot be used");
    let nobody = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let cases: [(&str, Vec<u8>, &str); 6] = [
        (
            MOON,
            b"neither of both".to_vec(),
            "a bundle that is no reply is dropped",
        ),
        (
            MOON,
            tcpcl::post(&[("idempotency-key", "\"1\"")], b""),
            "a request came to the endpoint for replies and is dropped",
        ),
        (
            MOON,
            tcpcl::response(202, &[], b""),
            "a reply that names no exchange is dropped",
        ),
        (
            MOON,
            reply("no id at all", 202),
            "a reply that names no exchange is dropped",
        ),
        (
            MOON,
            reply(nobody, 202),
            "news of an exchange that nobody waits for",
        ),
        // Nobody else answers for the gateway.
        (
            "ipn:3.25",
            reply(exchange, 422),
            "it does not come from the gateway",
        ),
    ];
    for (number, (from, payload, said)) in cases.into_iter().enumerate() {
        let number = number as u64 + 10;
        put(moon, number, &bundle(from, EARTH, number, &payload));
        logged(&mut world.client, said);
    }
    // An endpoint that there is not.
    put(moon, 20, &bundle(MOON, "ipn:1.99", 20, b"lost"));
}

#[test]
fn replies_in_any_order_settle_their_own_exchanges_among_nonsense() {
    let mut world = World::new(BUNDLES, "", MOON);
    let listener = TcpListener::bind(world.moon).unwrap();
    world.client.start(&world.site);
    let mut from_earth = Peer::accept(&listener, "ipn:2.0");
    let held = four_held(&world, &mut from_earth);
    let mut moon = Peer::dial(world.earth, "ipn:2.0");
    nonsense(&mut world, &mut moon, &held[0].1);
    for (id, _) in &held {
        assert_eq!(world.client.statuses(id), ["awaiting"]);
    }

    // The last one first, each twice, the second time on another connection and before the next.
    let mut other = Peer::dial(world.earth, "ipn:2.0");
    for (number, (id, exchange)) in held.iter().enumerate().rev() {
        let number = number as u64 + 30;
        let status = if number == 31 { 422 } else { 202 };
        let data = bundle(MOON, EARTH, number, &reply(exchange, status));
        put(&mut moon, number, &data);
        put(&mut other, number, &data);
        let again = bundle(MOON, EARTH, number + 10, &reply(exchange, status));
        put(&mut other, number + 10, &again);
        let wanted = if status == 422 { "failed" } else { "delivered" };
        world.client.wait_status(id, wanted, SOON);
        let history = world.client.message(id)["history"].to_string();
        assert_eq!(
            history.matches("by bundle from ipn:2.25").count(),
            usize::from(status == 202),
            "{history}"
        );
    }
}

#[test]
fn requests_in_any_order_are_served_once_among_nonsense() {
    let mut world = World::new(BUNDLES, "", MOON);
    let listener = TcpListener::bind(world.earth).unwrap();
    let gateway = &mut world.gateway.program;
    gateway.start(&world.site);
    let mut replies = Peer::accept(&listener, "ipn:1.0");
    let mut peers = [(); 2].map(|()| Peer::dial(world.moon, "ipn:1.0"));
    let request = |number: usize| {
        let message = hello(&format!("mail-{number}"));
        let object = bsmtp::object(&format!("<{ALICE}>"), &[&format!("<{BOB}>")], &message);
        let key = format!("\"exchange{number}\"");
        tcpcl::post(
            &[
                ("content-type", "application/batch-SMTP"),
                ("idempotency-key", &key),
            ],
            &object,
        )
    };
    // From the last to the first over two connections; the same bundles again; the same requests in other bundles.
    let (mails, mut transfer) = (6, 0);
    for sequence in [0, 0, 100] {
        for number in (0..mails).rev() {
            let data = bundle(EARTH, MOON, sequence + number as u64, &request(number));
            put(&mut peers[number % 2], transfer, &data);
            transfer += 1;
        }
    }
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..2 * mails {
        let payload = replies.payload();
        // A response of known length; its status, 202, as a variable-length integer.
        assert_eq!(payload[..3], [1, 0x40, 202], "{payload:?}");
        *answers.entry(tcpcl::exchange(&payload)).or_default() += 1;
    }
    let wanted = (0..mails).map(|number| (format!("exchange{number}"), 2));
    assert_eq!(answers, wanted.collect());
    world.dovecot.wait_mails(BOB, mails);

    let cases: [(&str, Vec<u8>, &str); 3] = [
        (
            EARTH,
            b"neither of both".to_vec(),
            "a bundle that is no request is dropped",
        ),
        (
            EARTH,
            tcpcl::response(202, &[], b""),
            "a reply came to the gateway's endpoint and is dropped",
        ),
        ("ipn:3.26", request(99), "nobody's `endpoints` is dropped"),
    ];
    for (from, payload, said) in cases {
        put(&mut peers[0], transfer, &bundle(from, MOON, transfer, &payload));
        logged(gateway, said);
        transfer += 1;
    }
    // What is no mail is answered.
    let bad = tcpcl::post(
        &[("content-type", "text/plain"), ("idempotency-key", "\"bad\"")],
        b"Hello",
    );
    put(&mut peers[0], transfer, &bundle(EARTH, MOON, transfer, &bad));
    let answer = replies.payload();
    assert_eq!(tcpcl::exchange(&answer), "bad");
    assert_eq!(answer[..3], [1, 0x41, 0x9f], "415: {answer:?}");
    wait::until("the gateway has handed everything on", SOON, || {
        gateway.unfinished() == Some(0)
    });
    assert_eq!(world.dovecot.copies(&[BOB]).values().sum::<usize>(), mails);
}

#[test]
fn a_bundle_of_a_gigabyte_is_refused_in_bounded_memory() {
    let mut world = World::new(BUNDLES, "", MOON);
    world.gateway.program.start(&world.site);
    world.client.start(&world.site);
    let id = world.client.submit(ALICE, &[BOB], &hello("before"));
    world.client.wait_status(&id, "delivered", SOON);
    let before = world.gateway.program.process().peak_memory();

    let mut peer = Peer::dial(world.moon, "ipn:9.0");
    for (transfer, announced) in [(0, true), (1, false)] {
        peer.flood(transfer, GIGABYTE, announced).unwrap();
        let refused = Heard::Refuse {
            transfer,
            reason: NOT_ACCEPTABLE,
        };
        assert_eq!(peer.fate(transfer, GIGABYTE), refused, "announced: {announced}");
    }
    // The same connection still serves.
    put(&mut peer, 2, &bundle("ipn:9.26", MOON, 2, b"stranger"));
    logged(
        &mut world.gateway.program,
        "although 67108864 are the most; it is refused",
    );
    let one = world.gateway.program.process().peak_memory();

    // Many at once, each a little smaller than the largest, and none ended.
    let mut flooding: Vec<Peer> = (0..6).map(|_| Peer::dial(world.moon, "ipn:9.0")).collect();
    std::thread::scope(|scope| {
        for peer in &mut flooding {
            scope.spawn(move || {
                peer.segment(2, 0, None, &[0; 1 << 20]).unwrap();
                for _ in 1..LARGEST >> 20 {
                    peer.segment(0, 0, None, &[0; 1 << 20]).unwrap();
                }
            });
        }
    });
    // No more of them than fit are kept; the others are told so.
    let mut refused = 0;
    for peer in &mut flooding {
        match peer.fate(0, LARGEST) {
            Heard::Ack { .. } => {}
            Heard::Refuse { reason, .. } => {
                assert_eq!(reason, NO_RESOURCES);
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(refused >= 4, "only {refused} were refused");
    let many = world.gateway.program.process().peak_memory();
    let mib = |octets: u64| octets >> 20;
    println!(
        "peak memory of the gateway: {} MiB before, {} MiB after two bundles of 1 GiB, {} MiB with six of 64 MiB under way",
        mib(before),
        mib(one),
        mib(many)
    );
    // A buffer that grows is twice as large as what is in it, and copied once.
    assert!(one < before + 3 * LARGEST, "{} MiB", mib(one));
    assert!(many < before + 3 * UNDER_WAY, "{} MiB", mib(many));
    drop(flooding);
    let id = world.client.submit(ALICE, &[BOB], &hello("after"));
    world.client.wait_status(&id, "delivered", SOON);
    world.dovecot.wait_mails(BOB, 2);
}
