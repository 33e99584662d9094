//! Not a test but a measurement: `cargo test --release -p lightpost-transport throughput -- --ignored --nocapture`.
#![allow(clippy::disallowed_methods)]

use std::time::Instant;

use futures_util::StreamExt;

use super::support::{Papers, Pieces, exchange, gateway, replied, send};

/// 4 KiB requests on one connection over loopback, 64 under way, both ends in this process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn requests_per_second() {
    const REQUESTS: usize = 20_000;
    let papers = Papers::new();
    let running = gateway(&papers);
    let client = papers.client(true);
    replied(send(&client, exchange(running.port, "/echo", Pieces::of("warm"))).await);
    let start = Instant::now();
    let mut sending = futures_util::stream::iter(0..REQUESTS)
        .map(|_| {
            send(
                &client,
                exchange(running.port, "/echo", Pieces::of(vec![b'x'; 4096])),
            )
        })
        .buffer_unordered(64);
    while let Some(outcome) = sending.next().await {
        replied(outcome);
    }
    let rate = REQUESTS as f64 / start.elapsed().as_secs_f64();
    eprintln!("{rate:.0} requests/s");
    assert_eq!(running.endpoint.stats().accepted_handshakes, 1);
}
