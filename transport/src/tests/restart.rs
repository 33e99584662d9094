use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use bytes::Bytes;
use http::StatusCode;
use lightpost_clock::Clock;
use tokio_util::sync::CancellationToken;

use super::support::{BEGINNING, End, Gated, Papers, Pieces, exchange, gateway_on, json_of, replied, send};
use crate::{
    Failure, Outcome, Path,
    quic::listener::{Listener, Options},
};

/// A gateway that vanishes without a word, as `kill -9` makes it, and comes back on the same port.
#[tokio::test]
async fn a_restarted_gateway_is_noticed_at_once() {
    let papers = Papers::new();
    let key = papers.file("reset.key");
    let first = gateway_on(&papers, 0, Some(&key));
    let port = first.port;
    // Between client and gateway stands a forwarder, so that the first gateway's goodbye can be kept from the client.
    let client = papers.client(false);
    let relay = Forwarder::start(port).await;
    replied(send(&client, exchange(relay.port, "/echo", Pieces::of("one"))).await);
    relay.mute();
    first.stop.cancel();
    first.task.await.unwrap();
    drop(first.endpoint);
    let second = gateway_on(&papers, 0, Some(&key));
    relay.lead_to(second.port);
    #[allow(clippy::disallowed_methods)]
    let start = Instant::now();
    replied(send(&client, exchange(relay.port, "/echo", Pieces::of("two"))).await);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(second.endpoint.stats().accepted_handshakes, 1);
}

/// What went over the lost connection may be stored, whatever is said of what went after it.
#[tokio::test]
async fn a_resend_that_is_not_taken_leaves_the_exchange_open() {
    let papers = Papers::new();
    let key = papers.file("reset.key");
    let first = gateway_on(&papers, 0, Some(&key));
    let client = papers.client(false);
    let relay = Forwarder::start(first.port).await;
    replied(send(&client, exchange(relay.port, "/echo", Pieces::of("one"))).await);
    relay.mute();
    first.stop.cancel();
    first.task.await.unwrap();
    drop(first.endpoint);
    let options = Options {
        reset_key: Some(key),
        ..Options::default()
    };
    let address = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let listener = Listener::bind(address, &papers.server_tls(), &[Path::earth()], &options).unwrap();
    let second = listener.endpoint().clone();
    let router = Router::new().fallback(async || StatusCode::SERVICE_UNAVAILABLE);
    let stop = CancellationToken::new();
    let task = tokio::spawn(listener.serve(router, Clock::system(), stop.clone()));
    relay.lead_to(second.local_addr().unwrap().port());
    let outcome = send(&client, exchange(relay.port, "/echo", Pieces::of("two"))).await;
    assert!(
        matches!(outcome, Outcome::Failed(Failure::Interrupted { .. })),
        "{outcome:?}"
    );
    assert_eq!(second.stats().accepted_handshakes, 1);
    // One that went once only has its answer.
    let reply = replied(send(&client, exchange(relay.port, "/echo", Pieces::of("three"))).await);
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_stopping_gateway_ends_what_runs_and_the_next_takes_over() {
    let papers = Papers::new();
    let mut first = gateway_on(&papers, 0, None);
    let relay = Forwarder::start(first.port).await;
    let client = papers.client(false);
    let (gate, object) = Gated::new();
    let mut running = exchange(relay.port, "/echo", Pieces::of(""));
    running.object = Arc::new(object);
    let stopping = async {
        assert_eq!(first.seen.recv().await, Some(End::Begun));
        first.stop.cancel();
        gate.send(Ok(Bytes::from_static(b"end"))).unwrap();
        drop(gate);
    };
    let (outcome, ()) = tokio::join!(send(&client, running), stopping);
    assert_eq!(json_of(&replied(outcome))["octets"], BEGINNING + 3);
    first.task.await.unwrap();
    let second = gateway_on(&papers, 0, None);
    relay.lead_to(second.port);
    replied(send(&client, exchange(relay.port, "/echo", Pieces::of("two"))).await);
    assert_eq!(second.endpoint.stats().accepted_handshakes, 1);
}

/// Forwards datagrams between one client and a gateway that can be exchanged.
struct Forwarder {
    port: u16,
    gateway: std::sync::Arc<std::sync::atomic::AtomicU16>,
}

impl Forwarder {
    async fn start(gateway: u16) -> Self {
        use std::sync::{
            Arc,
            atomic::{AtomicU16, Ordering},
        };
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let leads_to = Arc::new(AtomicU16::new(gateway));
        let gateway = leads_to.clone();
        tokio::spawn(async move {
            let (mut buffer, mut client, mut last) = (vec![0; 65_536], None, 0);
            loop {
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
                    continue;
                };
                let gateway = leads_to.load(Ordering::SeqCst);
                if gateway == 0 {
                    continue;
                }
                let from_gateway = from.port() == gateway || from.port() == last;
                last = gateway;
                let to = match from_gateway {
                    true => client,
                    false => {
                        client = Some(from);
                        Some(([127, 0, 0, 1], gateway).into())
                    }
                };
                if let Some(to) = to {
                    let _ = socket.send_to(&buffer[..length], to).await;
                }
            }
        });
        Self { port, gateway }
    }

    fn mute(&self) {
        self.lead_to(0);
    }

    fn lead_to(&self, port: u16) {
        self.gateway.store(port, std::sync::atomic::Ordering::SeqCst);
    }
}
