//! What is said about a certificate chain before the start is what happens on the wire.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use lightpost_clock::Clock;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::support::{GATEWAY, Papers, router};
use crate::{
    Path,
    quic::{
        flight::{Handshake, handshake},
        listener::{Listener, Options},
    },
    tls,
};

/// A gateway's TLS whose chain has grown by `extra` octets of names.
fn server(papers: &Papers, extra: usize) -> rustls::ServerConfig {
    let names = (0..extra / 64).map(|number| format!("{number:0>56}.example"));
    let (chain, key) = papers.issue_for(std::iter::once(GATEWAY.to_owned()).chain(names).collect());
    tls::server(&chain, &key, Some(&papers.ca()), &[b"h3"]).unwrap()
}

/// A path on which the gateway does not repeat itself soon.
fn moon() -> Path {
    Path {
        one_way_max: Duration::from_secs(2),
        ..Path::earth()
    }
}

fn held(tls: &rustls::ServerConfig, copies: usize) -> Handshake {
    let now = Clock::system().instant().into_std();
    handshake(tls, &[moon()], copies, now).unwrap()
}

/// Octets that a listener sends to a client that says nothing after its first datagram.
async fn on_the_wire(papers: &Papers, tls: &rustls::ServerConfig) -> usize {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::bind(address, tls, &[moon()], &Options::default()).unwrap();
    let gateway = listener.endpoint().local_addr().unwrap();
    let serving = listener.serve(router().0, Clock::system(), CancellationToken::new());
    tokio::spawn(serving);
    let (inside, outside) = (
        UdpSocket::bind(address).await.unwrap(),
        UdpSocket::bind(address).await.unwrap(),
    );
    let tls = tls::quic_client(tls::client(Some(&papers.ca()), None, &[b"h3"]).unwrap());
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let client = quinn::Endpoint::client(address).unwrap();
    let _connecting = client.connect_with(config, inside.local_addr().unwrap(), GATEWAY);
    let mut buffer = [0; 2_000];
    let length = inside.recv(&mut buffer).await.unwrap();
    outside.send_to(&buffer[..length], gateway).await.unwrap();
    let (clock, mut flight) = (Clock::system(), HashSet::new());
    while let Ok(length) = clock
        .timeout(Duration::from_millis(250), outside.recv(&mut buffer))
        .await
    {
        // Repeats for the case of loss are the same octets.
        flight.insert(buffer[..length.unwrap()].to_vec());
    }
    flight.iter().map(Vec::len).sum()
}

#[tokio::test]
async fn a_chain_that_is_too_long_costs_a_round_trip() {
    let papers = Papers::new();
    let mut longest_that_fits = 0;
    for (extra, round_trips) in [(0, 1), (1_200, 1), (1_800, 1), (3_200, 2), (6_400, 2)] {
        let tls = server(&papers, extra);
        let expected = held(&tls, 1);
        assert_eq!(expected.round_trips, round_trips, "{extra}: {expected:?}");
        let measured = on_the_wire(&papers, &tls).await;
        // A signature is a few octets longer or shorter each time, and the listener adds its HTTP/3 settings where there is room.
        assert!(
            (expected.first_flight - 20..expected.first_flight + 300).contains(&measured),
            "{extra}: {measured}, {expected:?}"
        );
        assert!(expected.first_flight <= 3 * 1_200, "{expected:?}");
        match round_trips {
            1 => longest_that_fits = expected.octets,
            _ => assert!(expected.octets > longest_that_fits),
        }
        // The same first datagram twice allows for twice as much.
        assert_eq!(held(&tls, 2).round_trips, if extra > 6_000 { 2 } else { 1 });
    }
}

#[test]
fn a_handshake_that_cannot_be_held_is_told() {
    let papers = Papers::new();
    let mut tls = server(&papers, 0);
    tls.cert_resolver = Arc::new(rustls::server::ResolvesServerCertUsingSni::new());
    let now = Clock::system().instant().into_std();
    let error = handshake(&tls, &[], 1, now).unwrap_err().to_string();
    assert!(error.contains("no server certificate chain resolved"), "{error}");
}
