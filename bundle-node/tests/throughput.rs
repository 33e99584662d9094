//! How many exchanges a second two nodes carry on this machine: `cargo nextest run --release -p lightpost-bundle-node --run-ignored only`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;

use lightpost_bundle_node::NodeAgent;
use lightpost_clock::Clock;
use lightpost_transport::bundle::agent::{Agent, Content};

use support::*;

const EXCHANGES: usize = 10_000;
/// Exchanges under way.
const WINDOW: usize = 128;

#[tokio::test]
#[ignore = "a measurement"]
async fn exchanges_per_second() {
    let folder = tempfile::tempdir().unwrap();
    let earth_address = free_address();
    let mut moon = config(2, folder.path());
    moon.listeners = vec![listener()];
    neighbour(&mut moon, "earth", earth_address, &[1]);
    let (moon_node, moon) = open(&moon).await;
    let mut earth = config(1, folder.path());
    earth.listeners = vec![listener()];
    earth.listeners[0].address = earth_address;
    neighbour(&mut earth, "moon", moon_node.addresses()[0], &[2]);
    let (_earth_node, earth) = open(&earth).await;

    let clock = Clock::system();
    let began = clock.instant();
    let answering = tokio::spawn(answer(moon));
    let window = Arc::new(tokio::sync::Semaphore::new(WINDOW));
    let sending = tokio::spawn(send(Arc::clone(&earth), Arc::clone(&window)));
    for _ in 0..EXCHANGES {
        let delivery = receive(&earth).await;
        assert!(matches!(delivery.content, Content::Bundle(_)));
        delivery.done();
        window.add_permits(1);
    }
    let took = clock.instant().duration_since(began);
    sending.await.unwrap();
    answering.await.unwrap();
    let rate = EXCHANGES as f64 / took.as_secs_f64();
    let processor = processor_time() / EXCHANGES as f64;
    println!(
        "{EXCHANGES} exchanges of 4 KiB in {took:?}: {rate:.0}/s, {processor:.3} ms of processor time each, at both nodes together"
    );
}

/// What this process has used, in milliseconds.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime and stime, in ticks of 10 ms.
    fields[11..13]
        .iter()
        .map(|it| it.parse::<f64>().unwrap() * 10.0)
        .sum()
}

async fn send(earth: Arc<NodeAgent>, window: Arc<tokio::sync::Semaphore>) {
    let payload = bytes::Bytes::from(vec![b'x'; 4096]);
    let mut under_way = tokio::task::JoinSet::new();
    for _ in 0..EXCHANGES {
        window.acquire().await.unwrap().forget();
        let (earth, payload) = (Arc::clone(&earth), payload.clone());
        under_way.spawn(async move { earth.send(outgoing("ipn:2.25", payload)).await.unwrap() });
    }
    under_way.join_all().await;
}

async fn answer(moon: Arc<NodeAgent>) {
    let mut under_way = tokio::task::JoinSet::new();
    for _ in 0..EXCHANGES {
        let delivery = receive(&moon).await;
        let moon = Arc::clone(&moon);
        under_way.spawn(async move {
            let Content::Bundle(bundle) = &delivery.content else {
                panic!("a report")
            };
            let reply = outgoing(&bundle.id.source.to_string(), vec![b'y'; 200]);
            moon.send(reply).await.unwrap();
            delivery.done();
        });
    }
    under_way.join_all().await;
}
