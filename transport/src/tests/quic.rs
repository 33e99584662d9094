use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use sha2::{Digest, Sha256};

use super::support::{CLIENT, Papers, Pieces, deadline, exchange, gateway, hex, json_of, replied, send};
use crate::{Failure, Outcome, Path, Transport};

#[tokio::test]
async fn a_request_and_its_reply() {
    let papers = Papers::new();
    let running = gateway(&papers);
    let client = papers.client(true);
    let sent = exchange(running.port, "/echo", Pieces::of("EHLO relay"));
    let id = sent.id;
    let reply = replied(send(&client, sent).await);
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    assert_eq!(reply.exchange, id);
    let said = json_of(&reply);
    assert_eq!(said["octets"], 10);
    assert_eq!(said["names"][0], CLIENT);
    assert_eq!(said["carrier"], "HTTP/3");
    assert_eq!(said["local"], true);
    assert_eq!(said["type"], "application/batch-SMTP");
    assert_eq!(said["length"], "10");
    client.close().await;
}

#[tokio::test]
async fn a_client_without_a_certificate_has_no_names() {
    let papers = Papers::new();
    let running = gateway(&papers);
    let said = json_of(&replied(
        send(
            &papers.client(false),
            exchange(running.port, "/echo", Pieces::of("x")),
        )
        .await,
    ));
    assert_eq!(said["names"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_gateway_of_another_ca_is_unreachable() {
    let running = gateway(&Papers::new());
    match send(
        &Papers::new().client(false),
        exchange(running.port, "/echo", Pieces::of("x")),
    )
    .await
    {
        Outcome::Failed(Failure::Unreachable { cause, .. }) => {
            assert!(cause.contains("invalid peer certificate"), "{cause}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_of_another_ca_is_turned_away() {
    let (papers, others) = (Papers::new(), Papers::new());
    let mut running = gateway(&papers);
    let settings = crate::quic::client::Settings {
        trust: Some(papers.ca()),
        identity: Some(others.issue(CLIENT)),
        paths: vec![Path::earth()],
        ..Default::default()
    };
    let hosts = std::sync::Arc::new(super::support::Loopback);
    let clock = lightpost_clock::Clock::system();
    let client = crate::quic::client::QuicTransport::new(settings, hosts, clock).unwrap();
    match send(&client, exchange(running.port, "/echo", Pieces::of("x"))).await {
        Outcome::Failed(Failure::Interrupted { .. } | Failure::Unreachable { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(running.seen.try_recv().is_err());
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let papers = Papers::new();
    let running = gateway(&papers);
    let client = papers.client(false);
    let pieces: Vec<Bytes> = (0..160u32)
        .map(|piece| {
            (0..131_072u32)
                .map(|at| (at.wrapping_mul(piece + 7) >> 5) as u8)
                .collect()
        })
        .collect();
    let mut hash = Sha256::new();
    pieces.iter().for_each(|piece| hash.update(piece));
    let digest = hex(&hash.finalize());
    for sized in [true, false] {
        let object = Pieces {
            pieces: pieces.clone(),
            sized,
            stuck: false,
        };
        let said = json_of(&replied(
            send(&client, exchange(running.port, "/echo", object)).await,
        ));
        assert_eq!(said["octets"], 160 * 131_072);
        assert_eq!(said["sha256"], digest);
        assert_eq!(said["length"].is_null(), !sized);
    }
}

#[tokio::test]
async fn many_exchanges_share_one_connection() {
    let papers = Papers::new();
    let running = gateway(&papers);
    let client = papers.client(true);
    let sending = (0..200).map(|number| {
        let object = Pieces::of(vec![b'x'; number]);
        send(&client, exchange(running.port, "/echo", object))
    });
    let outcomes = futures_util::future::join_all(sending).await;
    for (number, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(json_of(&replied(outcome))["octets"], number);
    }
    assert_eq!(running.endpoint.stats().accepted_handshakes, 1);
}

#[tokio::test]
async fn an_unreachable_gateway_is_known_soon() {
    let papers = Papers::new();
    let client = papers.client(false);
    // A socket that answers nothing.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    #[allow(clippy::disallowed_methods)]
    let start = Instant::now();
    match send(&client, exchange(port, "/echo", Pieces::of("x"))).await {
        Outcome::Failed(Failure::Unreachable { cause, .. }) => {
            assert!(cause.contains("no answer within"), "{cause}")
        }
        other => panic!("{other:?}"),
    }
    assert!(start.elapsed() < Duration::from_secs(10));

    let mut unknown = exchange(port, "/echo", Pieces::of("x"));
    unknown.gateway = "https://unknown.example/echo".parse().unwrap();
    match send(&client, unknown).await {
        Outcome::Failed(Failure::Unreachable { cause, .. }) => assert_eq!(cause, "NXDOMAIN"),
        other => panic!("{other:?}"),
    }
    let mut plain = exchange(port, "/echo", Pieces::of("x"));
    plain.gateway = "http://gw1.moon.example/echo".parse().unwrap();
    match send(&client, plain).await {
        Outcome::Failed(Failure::Unreachable { cause, .. }) => {
            assert!(cause.contains("not an https"), "{cause}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_deadline_ends_the_wait() {
    let papers = Papers::new();
    let running = gateway(&papers);
    let client = papers.client(false);
    let silent = exchange(running.port, "/silent", Pieces::of("x"));
    match client.send(silent, deadline(Duration::from_millis(500))).await {
        Outcome::Failed(Failure::NoReply { waited, .. }) => assert!(waited >= Duration::from_millis(500)),
        other => panic!("{other:?}"),
    }
    // The next one opens a connection of its own.
    replied(send(&client, exchange(running.port, "/echo", Pieces::of("x"))).await);
    assert_eq!(running.endpoint.stats().accepted_handshakes, 2);
}

#[tokio::test]
async fn replies_early_large_and_broken() {
    let papers = Papers::new();
    let running = gateway(&papers);
    let client = papers.client(false);
    let endless = Pieces {
        pieces: vec![Bytes::from(vec![0; 1 << 20]); 8],
        sized: false,
        stuck: true,
    };
    let early = replied(send(&client, exchange(running.port, "/refuse", endless)).await);
    assert_eq!(early.status, StatusCode::PAYLOAD_TOO_LARGE);
    let large = replied(send(&client, exchange(running.port, "/large", Pieces::of("x"))).await);
    assert_eq!(large.body.len(), 65_536);
    match send(&client, exchange(running.port, "/broken", Pieces::of("x"))).await {
        Outcome::Failed(Failure::Interrupted { .. }) => {}
        other => panic!("{other:?}"),
    }
    // None of this harmed the connection.
    replied(send(&client, exchange(running.port, "/echo", Pieces::of("x"))).await);
    assert_eq!(running.endpoint.stats().accepted_handshakes, 1);
}

#[tokio::test]
async fn garbage_harms_nobody() {
    let papers = Papers::new();
    let running = gateway(&papers);
    let client = papers.client(false);
    let noise = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..2000u32 {
        let octets: Vec<u8> = (0..1300u32)
            .map(|at| (at.wrapping_mul(number.wrapping_mul(2_654_435_761)) >> 13) as u8)
            .collect();
        let _ = noise.send_to(&octets, ("127.0.0.1", running.port));
    }
    replied(send(&client, exchange(running.port, "/echo", Pieces::of("x"))).await);
}
