//! Signed and encrypted bundles (RFC 9172, RFC 9173): who may say what, and how keys are changed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{path::Path, sync::Arc, time::Duration};

use lightpost_bundle_node::{
    Accept, Count, KeyFile, KeyKind, Node, NodeAgent, NodeConfig, Pattern, Protect, Security,
};
use lightpost_clock::Clock;
use lightpost_transport::bundle::agent::{Agent, Outgoing, ReportEvent, Reports};

use support::*;

/// Keys in files: `sign-1`, `sign-2` and `secret`.
fn keys(folder: &Path) -> Vec<KeyFile> {
    [("sign-1", "11"), ("sign-2", "22"), ("secret", "33")]
        .map(|(id, octet)| {
            std::fs::create_dir_all(folder).unwrap();
            let path = folder.join(id);
            std::fs::write(&path, format!("{}\n", octet.repeat(32))).unwrap();
            let kind = if id == "secret" {
                KeyKind::Confidentiality
            } else {
                KeyKind::Integrity
            };
            KeyFile {
                id: id.to_owned(),
                path,
                kind,
            }
        })
        .to_vec()
}

fn protect(sign: Option<&str>, encrypt: Option<&str>) -> Vec<Protect> {
    vec![Protect {
        destinations: Pattern::node(2),
        sign: sign.map(str::to_owned),
        encrypt: encrypt.map(str::to_owned),
    }]
}

/// A moon that accepts `keys` from Earth and wants one of them.
async fn moon(folder: &Path, accepted: &[&str]) -> (Node, Arc<NodeAgent>) {
    let mut moon = config(2, folder);
    moon.listeners = vec![listener()];
    moon.security = Security {
        keys: keys(folder),
        outgoing: Vec::new(),
        incoming: vec![Accept {
            sources: Pattern::node(1),
            keys: accepted.iter().map(|it| (*it).to_owned()).collect(),
            required: true,
        }],
    };
    open(&moon).await
}

/// Earth, whose bundles are protected so.
fn earth(folder: &Path, moon: &Node, outgoing: Vec<Protect>) -> NodeConfig {
    let mut earth = config(1, folder);
    neighbour(&mut earth, "moon", moon.addresses()[0], &[2]);
    earth.security = Security {
        keys: keys(folder),
        outgoing,
        incoming: Vec::new(),
    };
    earth
}

#[tokio::test]
async fn keys_are_changed_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (moon_node, moon) = moon(folder.path(), &["sign-1", "sign-2", "secret"]).await;
    for (sign, encrypt) in [
        ("sign-1", None),
        ("sign-2", None),
        ("sign-1", Some("secret")),
        ("sign-2", Some("secret")),
    ] {
        let (earth_node, earth) = open(&earth(folder.path(), &moon_node, protect(Some(sign), encrypt))).await;
        let id = earth.send(outgoing("ipn:2.25", "a mail")).await.unwrap();
        let came = bundle(&moon).await;
        assert_eq!(
            (came.id, came.payload, came.verified.as_deref()),
            (id, "a mail".into(), Some(sign))
        );
        earth_node.close().await;
    }
}

#[tokio::test]
async fn the_payload_of_encrypted_bundles_is_nowhere_to_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let stores = folder.path().join("stores");
    let (moon_node, moon) = moon(&stores, &["sign-1", "secret"]).await;
    let (_earth_node, earth) = open(&earth(
        &stores,
        &moon_node,
        protect(Some("sign-1"), Some("secret")),
    ))
    .await;
    earth
        .send(outgoing("ipn:2.25", "for nobody else's eyes"))
        .await
        .unwrap();
    let delivery = receive(&moon).await;
    for number in ["1", "2"] {
        for entry in std::fs::read_dir(stores.join(number)).unwrap() {
            let octets = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!octets.windows(12).any(|it| it == b"nobody else'"));
        }
    }
    delivery.done();
}

#[tokio::test]
async fn what_is_not_signed_as_it_should_be_is_deleted_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let earth_address = free_address();
    let mut moon = config(2, folder.path());
    moon.listeners = vec![listener()];
    neighbour(&mut moon, "earth", earth_address, &[1]);
    moon.security = Security {
        keys: keys(folder.path()),
        outgoing: Vec::new(),
        incoming: vec![Accept {
            sources: Pattern::node(1),
            keys: vec!["sign-1".to_owned()],
            required: true,
        }],
    };
    let (moon_node, moon) = open(&moon).await;
    for (round, (sign, encrypt, reason)) in [
        (None, None, 12),
        (Some("sign-2"), None, 15),
        (Some("sign-1"), Some("secret"), 15),
    ]
    .into_iter()
    .enumerate()
    {
        let mut earth = earth(folder.path(), &moon_node, protect(sign, encrypt));
        earth.listeners = vec![listener()];
        earth.listeners[0].address = earth_address;
        let (node, agent) = open(&earth).await;
        let asked = Outgoing {
            report_to: Some(eid("ipn:1.25")),
            reports: Reports {
                deleted: true,
                ..Reports::default()
            },
            ..outgoing("ipn:2.25", "not to be believed")
        };
        let id = agent.send(asked).await.unwrap();
        let report = report(&agent).await;
        assert_eq!(
            (report.about, report.event, report.reason),
            (id, ReportEvent::Deleted, reason)
        );
        assert_eq!(moon_node.count(Count::Unverified), round as u64 + 1);
        node.close().await;
    }
    let (_node, agent) = open(&earth(folder.path(), &moon_node, protect(Some("sign-1"), None))).await;
    let id = agent.send(outgoing("ipn:2.25", "true")).await.unwrap();
    assert_eq!(bundle(&moon).await.id, id);
}

#[tokio::test]
async fn a_signature_passes_a_relay() {
    let folder = tempfile::tempdir().unwrap();
    let (moon_node, moon) = moon(folder.path(), &["sign-1"]).await;
    let mut relay = config(3, folder.path());
    relay.listeners = vec![listener()];
    neighbour(&mut relay, "moon", moon_node.addresses()[0], &[2]);
    let (relay_node, _relay) = open(&relay).await;
    let (_earth_node, earth) = open(&earth(folder.path(), &relay_node, protect(Some("sign-1"), None))).await;
    let id = earth.send(outgoing("ipn:2.25", "from afar")).await.unwrap();
    let came = bundle(&moon).await;
    assert_eq!((came.id, came.verified.as_deref()), (id, Some("sign-1")));
}

#[tokio::test]
async fn bad_keys_and_rules_are_all_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(1, folder.path());
    let file = |id: &str, content: &str, kind| {
        let path = folder.path().join(id);
        std::fs::write(&path, content).unwrap();
        KeyFile {
            id: id.to_owned(),
            path,
            kind,
        }
    };
    config.security = Security {
        keys: vec![
            file("short", "0011", KeyKind::Integrity),
            file("odd", &"ab".repeat(24), KeyKind::Confidentiality),
            file("words", "correct horse", KeyKind::Integrity),
            file("fine", &"ab".repeat(32), KeyKind::Confidentiality),
            KeyFile {
                id: "absent".to_owned(),
                path: folder.path().join("absent"),
                kind: KeyKind::Integrity,
            },
        ],
        outgoing: protect(Some("fine"), Some("unknown")),
        incoming: vec![Accept {
            sources: Pattern::node(2),
            keys: Vec::new(),
            required: true,
        }],
    };
    let error = Node::open(config, Clock::system())
        .await
        .err()
        .unwrap()
        .to_string();
    for part in [
        "2 octets; an integrity key has 32 to 64",
        "24 octets; a confidentiality key has 16 or 32",
        "no hexadecimal digits",
        "key absent",
        "key fine is of the other kind",
        "no key called unknown",
        "ipn:2.* have to be signed",
    ] {
        assert!(error.contains(part), "{part} is missing in {error}");
    }
}

#[tokio::test]
async fn what_is_signed_is_not_cut_and_its_end_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mut moon = config(2, folder.path());
    moon.listeners = vec![listener()];
    moon.limits.bundle = 64 << 10;
    let (moon_node, _moon) = open(&moon).await;
    let (earth_node, earth) = open(&earth(folder.path(), &moon_node, protect(Some("sign-1"), None))).await;
    let large = Outgoing {
        lifetime: Duration::from_secs(3),
        report_to: Some(eid("ipn:1.25")),
        reports: Reports {
            deleted: true,
            ..Reports::default()
        },
        ..outgoing("ipn:2.25", vec![7; 100_000])
    };
    let id = earth.send(large).await.unwrap();
    let said = report(&earth).await;
    assert_eq!(
        (said.about, said.event, said.reason),
        (id, ReportEvent::Deleted, 7)
    );
    assert!(earth_node.count(Count::Refused) > 0);
    assert_eq!(earth_node.count(Count::Forwarded), 0);
    assert_eq!(moon_node.count(Count::Malformed), 0, "no piece of it came");
    // What is small enough is sent as it is.
    earth.send(outgoing("ipn:2.25", "small")).await.unwrap();
    until("it is forwarded", async || {
        earth_node.count(Count::Forwarded) == 1
    })
    .await;
}
