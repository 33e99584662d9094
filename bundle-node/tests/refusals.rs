//! Bundles that a neighbour does not take, or not as they are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use hardy_bpv7::{bpsec::no_keys, bundle::ParsedBundle};
use lightpost_bundle_node::Count;
use lightpost_transport::bundle::agent::{Agent, Outgoing, ReportEvent, Reports};
use tokio::net::TcpListener;

use support::{raw::Raw, *};

/// The payload of a bundle as it stands on the wire, and its place in the whole if it is a fragment.
fn payload(data: &[u8]) -> (Vec<u8>, Option<(u64, u64)>) {
    let bundle = ParsedBundle::parse(data, no_keys).unwrap().bundle;
    let part = bundle.id.fragment_info.as_ref();
    let part = part.map(|it| (it.offset, it.total_adu_length));
    (bundle.blocks[&1].payload(data).unwrap().to_vec(), part)
}

fn counted(size: usize) -> Vec<u8> {
    (0..size).map(|it| (it % 251) as u8).collect()
}

#[tokio::test]
async fn what_is_refused_for_good_is_offered_again_and_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(1, folder.path());
    config.limits.redial_most = Duration::from_millis(500);
    config.limits.offer_most = Duration::from_secs(1);
    neighbour(&mut config, "choosy", socket.local_addr().unwrap(), &[9]);
    let (node, agent) = open(&config).await;
    let mut raw = Raw::accept(&socket).await;
    agent.send(outgoing("ipn:9.25", "unwanted")).await.unwrap();
    let mut transfer = 0;
    for round in 0..3_u64 {
        let (number, data) = raw.take().await;
        assert_eq!(payload(&data).0, b"unwanted");
        // Others are not kept waiting by it.
        let other = format!("wanted {round}");
        agent.send(outgoing("ipn:9.25", other.clone())).await.unwrap();
        raw.refuse(number, 4).await;
        let (number, data) = raw.take().await;
        assert_eq!(payload(&data).0, other.as_bytes());
        raw.ack(number, data.len()).await;
        transfer = number;
    }
    // Not on this connection alone.
    drop(raw);
    let mut raw = Raw::accept(&socket).await;
    let (number, data) = raw.take().await;
    assert!(transfer > 0 && payload(&data).0 == b"unwanted");
    raw.ack(number, data.len()).await;
    until("nothing is left", async || node.status().await.stored == 0).await;
    assert_eq!((node.count(Count::Refused), node.count(Count::Forwarded)), (3, 4));
}

#[tokio::test]
async fn the_end_of_what_was_refused_is_reported_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(1, folder.path());
    config.limits.redial_most = Duration::from_millis(100);
    config.limits.offer_most = Duration::from_millis(500);
    neighbour(&mut config, "choosy", socket.local_addr().unwrap(), &[9]);
    let (node, agent) = open(&config).await;
    let mut raw = Raw::accept(&socket).await;
    let unwanted = Outgoing {
        lifetime: Duration::from_secs(3),
        report_to: Some(eid("ipn:1.25")),
        reports: Reports {
            deleted: true,
            ..Reports::default()
        },
        ..outgoing("ipn:9.25", "unwanted")
    };
    let id = agent.send(unwanted).await.unwrap();
    let refusing = async {
        loop {
            let (number, _) = raw.take().await;
            raw.refuse(number, 4).await;
        }
    };
    let said = tokio::select! {
        said = report(&agent) => said,
        () = refusing => unreachable!(),
    };
    assert_eq!((said.about, said.event), (id, ReportEvent::Deleted));
    assert_eq!(
        said.reason, 7,
        "no timely contact with the next node on its route"
    );
    assert!(node.count(Count::Refused) > 0 && node.count(Count::Expired) == 1);
}

#[tokio::test]
async fn a_bundle_larger_than_a_neighbour_takes_leaves_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(1, folder.path());
    config.limits.redial_most = Duration::from_millis(100);
    neighbour(&mut config, "small", socket.local_addr().unwrap(), &[9]);
    let (node, agent) = open(&config).await;
    let whole = counted(200_000);
    agent.send(outgoing("ipn:9.25", whole.clone())).await.unwrap();
    // One piece is refused: none of them counts, and the bundle comes again.
    let mut raw = Raw::accept_up_to(&socket, 64_000).await;
    for round in 0..4 {
        let (number, data) = raw.take().await;
        if round == 2 {
            raw.refuse(number, 4).await;
        } else {
            raw.ack(number, data.len()).await;
        }
    }
    until("it is refused", async || node.count(Count::Refused) == 1).await;
    assert_eq!(node.status().await.neighbours[0].waiting, Some(1));
    // The connection dies between two of them.
    let (number, data) = raw.take().await;
    raw.ack(number, data.len()).await;
    drop(raw);
    let mut raw = Raw::accept_up_to(&socket, 64_000).await;
    let mut together = Vec::new();
    while together.len() < whole.len() {
        assert_eq!(node.status().await.neighbours[0].waiting, Some(1));
        let (number, data) = raw.take().await;
        assert!(data.len() <= 64_000, "{} octets", data.len());
        let (piece, part) = payload(&data);
        assert_eq!(part, Some((together.len() as u64, 200_000)));
        together.extend(piece);
        raw.ack(number, data.len()).await;
    }
    assert!(together == whole);
    until("nothing is left", async || node.status().await.stored == 0).await;
    assert_eq!(node.count(Count::Forwarded), 1, "it is one bundle still");
}

#[tokio::test]
async fn pieces_cross_a_relay_and_become_one_again() {
    let folder = tempfile::tempdir().unwrap();
    let (earth_address, moon_address) = (free_address(), free_address());
    let mut relay = config(3, folder.path());
    relay.listeners = vec![listener()];
    relay.limits.bundle = 64_000;
    neighbour(&mut relay, "earth", earth_address, &[1]);
    neighbour(&mut relay, "moon", moon_address, &[2]);
    let (relay_node, _relay) = open(&relay).await;
    let mut ends = Vec::new();
    for (number, address, other) in [(1, earth_address, 2), (2, moon_address, 1)] {
        let mut config = config(number, folder.path());
        config.listeners = vec![listener()];
        config.listeners[0].address = address;
        neighbour(&mut config, "relay", relay_node.addresses()[0], &[other]);
        ends.push(open(&config).await);
    }
    let [(earth_node, earth), (_, moon)] = &ends[..] else {
        unreachable!()
    };
    let whole = counted(3_000_000);
    let asked = Outgoing {
        report_to: Some(eid("ipn:1.25")),
        reports: Reports {
            delivered: true,
            ..Reports::default()
        },
        ..outgoing("ipn:2.25", whole.clone())
    };
    let id = earth.send(asked).await.unwrap();
    let came = bundle(moon).await;
    assert!(came.id == id && came.payload == whole);
    let said = report(earth).await;
    assert_eq!((said.about, said.event), (id, ReportEvent::Delivered));
    moon.send(outgoing("ipn:1.25", whole.clone())).await.unwrap();
    assert!(bundle(earth).await.payload == whole);
    until("all pieces are acknowledged", async || {
        relay_node.count(Count::Forwarded) > 90 && earth_node.count(Count::Forwarded) == 1
    })
    .await;
}
