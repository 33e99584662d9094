//! Neighbours that die, repeat themselves, have no room, or are none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use bytes::Bytes;
use hardy_bpv7::{
    bpsec::no_keys,
    builder::Builder,
    bundle::{FragmentInfo, ParsedBundle},
    creation_timestamp::CreationTimestamp,
    dtn_time::DtnTime,
    editor::{Chunk, Editor},
};
use lightpost_bundle_node::Count;
use lightpost_transport::bundle::agent::Agent;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use support::{
    raw::{Heard, Raw},
    *,
};

fn foreign(sequence: u64, payload: &[u8]) -> Bytes {
    let stamp = CreationTimestamp::from_parts(Some(DtnTime::new(4_000_000_000_000)), sequence);
    let (_, data) = Builder::new(eid("ipn:9.25"), eid("ipn:1.25"))
        .with_payload(payload.into())
        .build(stamp)
        .unwrap();
    data.into()
}

/// A piece of what [`foreign`] would make of `whole`.
fn fragment(sequence: u64, whole: &[u8], piece: std::ops::Range<usize>) -> Bytes {
    let data = foreign(sequence, &whole[piece.clone()]);
    let bundle = ParsedBundle::parse(&data, no_keys).unwrap().bundle;
    let part = FragmentInfo {
        offset: piece.start as u64,
        total_adu_length: whole.len() as u64,
    };
    let editor = Editor::new(&bundle, &data).with_fragment_info(Some(part));
    let chunks = editor.map_err(|(_, error)| error).unwrap().rebuild().unwrap();
    Chunk::flatten(chunks, &data).into()
}

#[tokio::test]
async fn fragments_become_one_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(1, folder.path());
    config.listeners = vec![listener()];
    let whole: Vec<u8> = (0..9000_u32).map(|it| (it % 251) as u8).collect();
    let (node, agent) = open(&config).await;
    let mut raw = Raw::dial(node.addresses()[0]).await;
    for (transfer, piece) in [(0, 5000..9000), (1, 0..3000), (2, 2000..4000)] {
        raw.send(transfer, &fragment(1, &whole, piece)).await;
        assert!(matches!(raw.hear().await, Heard::Ack { .. }));
    }
    // Of something larger than anything may be.
    raw.send(3, &fragment(2, &vec![0; 65 << 20], 0..10)).await;
    assert_eq!(
        raw.hear().await,
        Heard::Refuse {
            reason: 4,
            transfer: 3
        }
    );
    node.close().await;
    drop((node, agent, raw));
    // The last one after a restart; and all of them again.
    let (node, agent) = open(&config).await;
    let mut raw = Raw::dial(node.addresses()[0]).await;
    for round in 0..2 {
        for (index, piece) in [4000..5000, 0..3000].into_iter().enumerate() {
            let transfer = round * 2 + index as u64;
            raw.send(transfer, &fragment(1, &whole, piece)).await;
            assert!(matches!(raw.hear().await, Heard::Ack { .. }));
        }
    }
    let came = bundle(&agent).await;
    assert!(came.payload == whole && came.id.sequence == 1);
    until("nothing is left", async || node.status().await.stored == 0).await;
    assert_eq!(node.count(Count::Delivered), 1);
}

#[tokio::test]
async fn a_neighbour_that_dies_within_a_transfer_gets_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(1, folder.path());
    neighbour(&mut config, "mortal", socket.local_addr().unwrap(), &[9]);
    let (node, agent) = open(&config).await;
    agent.send(outgoing("ipn:9.25", vec![7; 5000])).await.unwrap();
    let mut whole = Vec::new();
    for life in 0..4 {
        let mut raw = Raw::accept(&socket).await;
        whole.clear();
        // Dies after the first segment, after half, after all without a word.
        for _ in 0..[1, 3, 6, 6][life] {
            let Heard::Segment {
                data,
                transfer,
                flags,
            } = raw.hear().await
            else {
                panic!("no segment");
            };
            assert_eq!((transfer, flags & 2 != 0), (0, whole.is_empty()));
            whole.extend(data);
            if life == 3 {
                raw.ack(0, whole.len()).await;
            }
        }
        if life == 3 {
            until("it is let go", async || node.status().await.stored == 0).await;
        } else {
            assert_eq!(node.status().await.neighbours[0].waiting, Some(1));
        }
    }
    let read = ParsedBundle::parse(&whole, no_keys).unwrap();
    assert_eq!(read.bundle.blocks[&1].payload(&whole).unwrap(), vec![7; 5000]);
    assert_eq!(node.count(Count::Forwarded), 1);
}

#[tokio::test]
async fn what_comes_twice_is_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(1, folder.path());
    config.listeners = vec![listener()];
    let (node, agent) = open(&config).await;
    let data = foreign(1, b"once");
    let mut raw = Raw::dial(node.addresses()[0]).await;
    let length = data.len() as u64;
    for transfer in 0..3 {
        raw.send(transfer, &data).await;
        assert_eq!(raw.hear().await, Heard::Ack { transfer, length });
        if transfer == 1 {
            assert_eq!(bundle(&agent).await.payload, "once");
            until("it is dealt with", async || node.status().await.stored == 0).await;
        }
    }
    drop(raw);
    node.close().await;
    drop((node, agent));
    // After a restart, too.
    let (node, agent) = open(&config).await;
    let mut raw = Raw::dial(node.addresses()[0]).await;
    raw.send(0, &data).await;
    raw.send(1, &foreign(2, b"twice")).await;
    assert!(matches!(raw.hear().await, Heard::Ack { transfer: 0, .. }));
    assert!(matches!(raw.hear().await, Heard::Ack { transfer: 1, .. }));
    assert_eq!(
        (node.count(Count::Duplicates), node.count(Count::Received)),
        (1, 1)
    );
    assert_eq!(bundle(&agent).await.payload, "twice");
}

#[tokio::test]
async fn no_room_is_told_and_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut moon = config(2, folder.path());
    moon.listeners = vec![listener()];
    moon.limits.bundle = 64 << 10;
    moon.limits.store = 100 << 10;
    let (moon_node, moon) = open(&moon).await;
    let mut earth = config(1, folder.path());
    neighbour(&mut earth, "moon", moon_node.addresses()[0], &[2]);
    let (earth_node, earth) = open(&earth).await;
    let mut sent = Vec::new();
    for part in 0..4_u8 {
        sent.push(
            earth
                .send(outgoing("ipn:2.25", vec![part; 50_000]))
                .await
                .unwrap(),
        );
    }
    // Larger than the moon takes at all: it stays on Earth.
    earth.send(outgoing("ipn:2.25", vec![0; 70_000])).await.unwrap();
    until("it was refused", async || moon_node.count(Count::NoRoom) > 0).await;
    let mut came = Vec::new();
    for _ in 0..4 {
        came.push(bundle(&moon).await.id);
    }
    came.sort_by_key(|it| (it.time, it.sequence));
    assert_eq!(came, sent);
    until("one stays", async || {
        earth_node.status().await.neighbours[0].waiting == Some(1)
    })
    .await;
}

#[tokio::test]
async fn garbage_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(1, folder.path());
    config.listeners = vec![listener()];
    config.limits.sessions = 8;
    let (node, agent) = open(&config).await;
    let address = node.addresses()[0];
    let mut runner = TestRunner::deterministic();
    let octets = proptest::collection::vec(any::<u8>(), 1..2000);
    for round in 0..60 {
        let garbage = octets.new_tree(&mut runner).unwrap().current();
        if round % 2 == 0 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            drop(stream.write_all(&garbage).await);
        } else {
            drop(Raw::dial(address).await.0.write_all(&garbage).await);
        }
    }
    let mut raw = Raw::dial(address).await;
    // Not a bundle; a bundle with a hole; an announcement of far too much.
    raw.send(0, b"nothing of the kind").await;
    assert_eq!(
        raw.hear().await,
        Heard::Refuse {
            reason: 4,
            transfer: 0
        }
    );
    let mut broken = foreign(5, b"broken").to_vec();
    let at = broken.len() - 8;
    broken[at] ^= 1;
    raw.send(1, &broken).await;
    assert_eq!(
        raw.hear().await,
        Heard::Refuse {
            reason: 4,
            transfer: 1
        }
    );
    raw.send(2, &foreign(6, b"whole")).await;
    assert!(matches!(raw.hear().await, Heard::Ack { transfer: 2, .. }));
    let mut huge = vec![1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 13, 1, 0, 1, 0, 8];
    huge.extend((1_u64 << 40).to_be_bytes());
    huge.extend([0, 0, 0, 0, 0, 0, 0, 1, b'x']);
    raw.0.write_all(&huge).await.unwrap();
    assert_eq!(
        raw.hear().await,
        Heard::Refuse {
            reason: 4,
            transfer: 3
        }
    );
    raw.0.write_all(&[99]).await.unwrap();
    assert_eq!(raw.hear().await, Heard::Reject(99));
    assert_eq!(bundle(&agent).await.payload, "whole");
    assert!(node.count(Count::Malformed) >= 2 && node.count(Count::Violations) >= 1);
}
