//! Connections that are being opened while nobody waits for them any more.

use std::{sync::Arc, time::Duration};

use lightpost_clock::Clock;

use super::support::{Loopback, Papers, Pieces, deadline, exchange, send};
use crate::{
    Failure, Outcome, Path, Transport,
    quic::client::{QuicTransport, Settings},
};

fn client(path: Path) -> (quinn::Endpoint, QuicTransport) {
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let papers = Papers::new();
    let settings = Settings {
        trust: Some(papers.ca()),
        identity: None,
        paths: vec![path],
        ..Settings::default()
    };
    let hosts = Arc::new(Loopback);
    let client = QuicTransport::with_endpoint(endpoint.clone(), settings, hosts, Clock::system()).unwrap();
    (endpoint, client)
}

async fn until_open(endpoint: &quinn::Endpoint, connections: usize) {
    let clock = Clock::system();
    let reached = async {
        while endpoint.open_connections() != connections {
            clock.sleep(Duration::from_millis(20)).await;
        }
    };
    let reached = clock.timeout(Duration::from_secs(20), reached).await;
    reached.unwrap_or_else(|_| panic!("{} open, not {connections}", endpoint.open_connections()));
}

/// Sends to a gateway that answers nothing, and gives up before the connection does.
async fn give_up(client: &QuicTransport, endpoint: &quinn::Endpoint) -> std::net::UdpSocket {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = exchange(silent.local_addr().unwrap().port(), "/echo", Pieces::of("x"));
    tokio::select! {
        outcome = client.send(to, deadline(Duration::from_secs(60))) => panic!("{outcome:?}"),
        () = until_open(endpoint, 1) => {}
    }
    silent
}

#[tokio::test]
async fn an_opening_ends_by_itself() {
    let quick = Path {
        one_way_max: Duration::from_millis(1),
        ..Path::earth()
    };
    let (endpoint, client) = client(quick);
    let _silent = give_up(&client, &endpoint).await;
    until_open(&endpoint, 0).await;
    assert_eq!(client.known(), 1);
}

#[tokio::test]
async fn an_opening_ends_with_the_client() {
    let patient = Path {
        one_way_max: Duration::from_millis(1),
        outage_max: Duration::from_secs(86_400),
        ..Path::earth()
    };
    let (endpoint, client) = client(patient);
    let _silent = give_up(&client, &endpoint).await;
    drop(client);
    until_open(&endpoint, 0).await;
}

#[tokio::test]
async fn gateways_that_failed_are_forgotten() {
    let (_endpoint, client) = client(Path::earth());
    for port in 1..500 {
        let mut to = exchange(port, "/echo", Pieces::of("x"));
        to.gateway = format!("https://unknown.example:{port}/").parse().unwrap();
        let outcome = send(&client, to).await;
        assert!(
            matches!(outcome, Outcome::Failed(Failure::Unreachable { .. })),
            "{outcome:?}"
        );
    }
    assert!(client.known() < 200, "{}", client.known());
}
