//! Two nodes, and three: bundles cross over real sockets, wait for those that are away, and are answered for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use lightpost_bundle_node::{Count, Framing, NeighbourState, Node};
use lightpost_clock::Clock;
use lightpost_transport::bundle::agent::{Agent, Content, Outgoing, ReportEvent, Reports, SendError, Status};

use support::*;

#[tokio::test]
async fn there_and_back_over_tcpclv4() {
    there_and_back(Framing::Tcpcl).await;
}

#[tokio::test]
async fn there_and_back_over_stcp() {
    there_and_back(Framing::Stcp).await;
}

#[tokio::test]
async fn there_and_back_over_mtcp() {
    there_and_back(Framing::Mtcp).await;
}

async fn there_and_back(framing: Framing) {
    let folder = tempfile::tempdir().unwrap();
    let earth_address = free_address();
    let mut moon = config(2, folder.path());
    moon.listeners = vec![listener()];
    moon.listeners[0].framing = framing;
    neighbour(&mut moon, "earth", earth_address, &[1]);
    moon.neighbours[0].framing = framing;
    let (moon_node, moon) = open(&moon).await;
    let mut earth = config(1, folder.path());
    earth.listeners = vec![listener()];
    earth.listeners[0].framing = framing;
    earth.listeners[0].address = earth_address;
    neighbour(&mut earth, "moon", moon_node.addresses()[0], &[2]);
    earth.neighbours[0].framing = framing;
    let (earth_node, earth) = open(&earth).await;

    for size in [0, 1, 4096, 65_536, 300_000, 3_000_000] {
        let payload: Vec<u8> = (0..size).map(|it| (it % 251) as u8).collect();
        let id = earth.send(outgoing("ipn:2.25", payload.clone())).await.unwrap();
        let came = bundle(&moon).await;
        assert_eq!((&came.id, came.payload.len()), (&id, size));
        assert!(came.payload == payload && came.verified.is_none() && came.id.source == eid("ipn:1.25"));
        let answer = moon
            .send(outgoing(&came.id.source.to_string(), "reply"))
            .await
            .unwrap();
        assert_eq!(bundle(&earth).await.id, answer);
    }
    until("all is let go", async || earth_node.status().await.stored == 0).await;
    assert_eq!(earth_node.count(Count::Forwarded), 6);
    assert_eq!(moon_node.status().await.neighbours[0].state, NeighbourState::Up);
    assert_eq!(earth.status().await, Status::Up);
    moon.close().await;
    assert!(matches!(moon.status().await, Status::Down { .. }));
    assert!(matches!(
        moon.send(outgoing("ipn:1.25", "late")).await,
        Err(SendError::Down { .. })
    ));
    earth.close().await;
}

#[tokio::test]
async fn custody_outlives_restarts_of_either_end() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut earth = config(1, folder.path());
    neighbour(&mut earth, "moon", address, &[2]);
    let mut moon = config(2, folder.path());
    moon.listeners = vec![listener()];
    moon.listeners[0].address = address;

    let mut sent = Vec::new();
    for round in 0..3 {
        let (node, agent) = open(&earth).await;
        for part in 0..20 {
            let payload = format!(
                "{round} {part} {}",
                "x".repeat(if part == 0 { 400_000 } else { 100 })
            );
            sent.push((
                agent.send(outgoing("ipn:2.25", payload.clone())).await.unwrap(),
                payload,
            ));
        }
        assert_eq!(node.status().await.neighbours[0].waiting, Some(sent.len() as u64));
        node.close().await;
    }
    // Now the other end is there, but goes before anything was dealt with.
    let (earth_node, _earth) = open(&earth).await;
    {
        let (node, agent) = open(&moon).await;
        until("all arrived", async || {
            node.count(Count::Received) == sent.len() as u64
        })
        .await;
        drop(receive(&agent).await);
        node.close().await;
    }
    until("all is acknowledged", async || {
        earth_node.status().await.stored == 0
    })
    .await;
    let (node, agent) = open(&moon).await;
    for (id, payload) in &sent {
        let came = bundle(&agent).await;
        assert!(&came.id == id && came.payload == payload.as_bytes());
    }
    until("all is dealt with", async || node.status().await.stored == 0).await;
}

#[tokio::test]
async fn what_is_not_dealt_with_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let (_node, agent) = open(&config(1, folder.path())).await;
    let id = agent.send(outgoing("ipn:1.25", "to myself")).await.unwrap();
    for _ in 0..3 {
        let delivery = receive(&agent).await;
        assert!(matches!(&delivery.content, Content::Bundle(bundle) if bundle.id == id));
    }
    assert_eq!(bundle(&agent).await.id, id);
    let next = agent.send(outgoing("ipn:1.25", "another")).await.unwrap();
    assert_eq!(bundle(&agent).await.id, next);
}

#[tokio::test]
async fn a_relay_in_the_middle() {
    let folder = tempfile::tempdir().unwrap();
    let [earth_address, relay_address] = [free_address(), free_address()];
    let mut moon = config(3, folder.path());
    moon.listeners = vec![listener()];
    neighbour(&mut moon, "relay", relay_address, &[1, 2]);
    let (moon_node, moon) = open(&moon).await;
    let mut relay = config(2, folder.path());
    relay.listeners = vec![listener()];
    relay.listeners[0].address = relay_address;
    neighbour(&mut relay, "earth", earth_address, &[1]);
    neighbour(&mut relay, "moon", moon_node.addresses()[0], &[3]);
    let mut earth = config(1, folder.path());
    earth.listeners = vec![listener()];
    earth.listeners[0].address = earth_address;
    neighbour(&mut earth, "relay", relay_address, &[2, 3]);
    let (_earth_node, earth) = open(&earth).await;

    let all = Outgoing {
        report_to: Some(eid("ipn:1.25")),
        reports: Reports {
            received: true,
            forwarded: true,
            delivered: true,
            deleted: true,
        },
        ..outgoing("ipn:3.25", "a mail")
    };
    // It waits at its source until the relay is there.
    let id = earth.send(all).await.unwrap();
    let (_relay_node, _relay) = open(&relay).await;
    assert_eq!(bundle(&moon).await.id, id);
    let mut reports = Vec::new();
    for _ in 0..5 {
        let report = report(&earth).await;
        assert!(
            report.about == id && report.reason == 0 && report.at.is_some(),
            "{report:?}"
        );
        reports.push((report.from.to_string(), report.event));
    }
    for expected in [
        ("ipn:1.0", ReportEvent::Forwarded),
        ("ipn:2.0", ReportEvent::Received),
        ("ipn:2.0", ReportEvent::Forwarded),
        ("ipn:3.0", ReportEvent::Received),
        ("ipn:3.0", ReportEvent::Delivered),
    ] {
        let times = reports
            .iter()
            .filter(|it| (it.0.as_str(), it.1) == expected)
            .count();
        assert_eq!(times, 1, "{expected:?} in {reports:?}");
    }
}

#[tokio::test]
async fn a_lifetime_ends_with_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let mut earth = config(1, folder.path());
    neighbour(&mut earth, "moon", free_address(), &[2]);
    let (node, agent) = open(&earth).await;
    let mortal = Outgoing {
        lifetime: Duration::from_millis(50),
        report_to: Some(eid("ipn:1.0")),
        reports: Reports {
            deleted: true,
            ..Reports::default()
        },
        ..outgoing("ipn:2.25", "too late")
    };
    let id = agent.send(mortal).await.unwrap();
    let report = report(&agent).await;
    assert_eq!(
        (report.about, report.event, report.reason),
        (id, ReportEvent::Deleted, 1)
    );
    assert_eq!(node.count(Count::Expired), 1);
    assert_eq!(node.status().await.neighbours[0].waiting, Some(0));
}

#[tokio::test]
async fn bounds_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut earth = config(1, folder.path());
    earth.limits.bundle = 1 << 20;
    earth.limits.inbound = 1 << 20;
    earth.limits.store = 2 << 20;
    neighbour(&mut earth, "moon", free_address(), &[2]);
    let (node, agent) = open(&earth).await;
    let large = vec![0; 1 << 20];
    let most = (1 << 20) - 4096;
    assert_eq!(
        agent.send(outgoing("ipn:2.25", large.clone())).await,
        Err(SendError::TooLarge {
            octets: 1 << 20,
            most
        })
    );
    assert!(matches!(
        agent.send(outgoing("ipn:9.25", "x")).await,
        Err(SendError::NoRoute { destination }) if destination == eid("ipn:9.25")
    ));
    assert!(matches!(
        agent.send(outgoing("ipn:1.26", "x")).await,
        Err(SendError::NoRoute { .. })
    ));
    let id = agent
        .send(outgoing("ipn:2.25", large[..900_000].to_vec()))
        .await
        .unwrap();
    agent
        .send(outgoing("ipn:2.25", large[..900_000].to_vec()))
        .await
        .unwrap();
    assert!(matches!(
        agent.send(outgoing("ipn:2.25", large[..900_000].to_vec())).await,
        Err(SendError::NoRoom { octets: 900_000, .. })
    ));
    assert!(agent.cancel(&id).await.unwrap());
    assert!(!agent.cancel(&id).await.unwrap());
    agent
        .send(outgoing("ipn:2.25", large[..900_000].to_vec()))
        .await
        .unwrap();
    assert_eq!(node.status().await.neighbours[0].waiting, Some(2));
}

#[tokio::test]
async fn a_folder_has_one_node() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(1, folder.path());
    let (node, _agent) = open(&config).await;
    let error = Node::open(config.clone(), Clock::system())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("another bundle node"), "{error}");
    node.close().await;
    open(&config).await;
}

#[tokio::test]
async fn routes_may_change_while_bundles_wait() {
    let folder = tempfile::tempdir().unwrap();
    let mut moon = config(2, folder.path());
    moon.listeners = vec![listener()];
    let (moon_node, moon) = open(&moon).await;
    let mut earth = config(1, folder.path());
    neighbour(&mut earth, "old", free_address(), &[2]);
    let (node, agent) = open(&earth).await;
    let id = agent.send(outgoing("ipn:2.25", "patient")).await.unwrap();
    node.close().await;
    drop((node, agent));
    let mut nowhere = config(1, folder.path());
    nowhere.services.clear();
    Node::open(nowhere, Clock::system()).await.unwrap().close().await;
    let mut earth = config(1, folder.path());
    neighbour(&mut earth, "new", moon_node.addresses()[0], &[2]);
    let (_node, _agent) = open(&earth).await;
    assert_eq!(bundle(&moon).await.id, id);
}
