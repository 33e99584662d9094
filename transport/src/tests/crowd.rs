//! Strangers in numbers: they find room, and never at the cost of those who have proven themselves.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::{TokioExecutor, TokioIo};
use lightpost_clock::Clock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    http::{connect, post},
    support::{CLIENT, Papers, Pieces, exchange, json_of, replied, router, send},
    truncated::raw,
};
use crate::{
    Path,
    gate::Limits,
    quic::{listener::Listener, unidirectional::EXCESSIVE_LOAD},
    web::tests::serve_tls_within,
};

const LIMITS: Limits = Limits {
    strangers: 6,
    per_source: 4,
    proven: 100,
    pressure: 3,
    octets: 1 << 20,
    rate: f64::INFINITY,
};

fn crowded(papers: &Papers, path: Path) -> (quinn::Endpoint, u16) {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let listener = Listener::bind(address, &papers.server_tls(), &[path], &Default::default()).unwrap();
    let endpoint = listener.endpoint().clone();
    let port = endpoint.local_addr().unwrap().port();
    let stop = CancellationToken::new();
    tokio::spawn(listener.serve_within(LIMITS, router().0, Clock::system(), stop));
    (endpoint, port)
}

/// A path for which Retry cannot work, over loopback.
fn deep() -> Path {
    Path {
        one_way_max: Duration::from_secs(182),
        rate_up: lightpost_config::Rate(1e6),
        rate_down: lightpost_config::Rate(1e6),
        ..Path::earth()
    }
}

/// First packets from a source of its own each, whose answers nobody reads: what forged addresses look like.
async fn flood(port: u16, sources: std::ops::Range<u8>) {
    for source in sources {
        let silent = Silent::new(Ipv4Addr::new(127, 0, 1, source)).await;
        silent.knock(port).await;
    }
}

/// Makes a client's first packet go out from an address of our choice.
struct Silent {
    from: tokio::net::UdpSocket,
    inside: tokio::net::UdpSocket,
}

impl Silent {
    async fn new(address: Ipv4Addr) -> Self {
        Self {
            from: tokio::net::UdpSocket::bind((address, 0)).await.unwrap(),
            inside: tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .unwrap(),
        }
    }

    async fn knock(&self, port: u16) {
        let papers = Papers::new();
        let tls = crate::tls::quic_client(crate::tls::client(Some(&papers.ca()), None, &[b"h3"]).unwrap());
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let client = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let inside = self.inside.local_addr().unwrap();
        let _connecting = client.connect_with(config, inside, "x.example").unwrap();
        let mut packet = vec![0; 2000];
        let length = self.inside.recv(&mut packet).await.unwrap();
        self.from
            .send_to(&packet[..length], ("127.0.0.1", port))
            .await
            .unwrap();
        // An answer of any kind shows that the packet was worked on.
        self.from.recv(&mut packet).await.unwrap();
    }
}

#[tokio::test]
async fn forged_first_packets_on_a_deep_path() {
    let papers = Papers::new();
    let (endpoint, port) = crowded(&papers, deep());
    let known = papers.client_on(true, deep());
    let proven = replied(send(&known, exchange(port, "/echo", Pieces::of("x"))).await);
    assert_eq!(json_of(&proven)["names"][0], CLIENT);
    flood(port, 1..30).await;
    assert_eq!(endpoint.stats().accepted_handshakes, 30, "no Retry, no refusal");
    // Newcomers find room, with and without a certificate, and the known one is still here.
    for identity in [true, false] {
        let client = papers.client_on(identity, deep());
        replied(send(&client, exchange(port, "/echo", Pieces::of("x"))).await);
    }
    replied(send(&known, exchange(port, "/echo", Pieces::of("x"))).await);
    assert_eq!(endpoint.stats().accepted_handshakes, 32);
    // What was let go is soon forgotten, although this path's profile waits long.
    let forgotten = async {
        while endpoint.open_connections() > 3 + LIMITS.pressure + LIMITS.strangers {
            Clock::system().sleep(Duration::from_millis(50)).await;
        }
    };
    let clock = Clock::system();
    let waited = clock.timeout(Duration::from_secs(30), forgotten).await;
    waited.expect("ends are remembered for too long");
}

#[tokio::test]
async fn forged_first_packets_on_a_terrestrial_path() {
    let papers = Papers::new();
    let (endpoint, port) = crowded(&papers, Path::earth());
    flood(port, 1..30).await;
    let accepted = endpoint.stats().accepted_handshakes;
    assert_eq!(accepted, LIMITS.pressure as u64, "the others got a Retry");
    replied(send(&papers.client(false), exchange(port, "/echo", Pieces::of("x"))).await);
    assert_eq!(endpoint.stats().accepted_handshakes, accepted + 1);
}

#[tokio::test]
async fn one_source_has_its_share() {
    let papers = Papers::new();
    let (_endpoint, port) = crowded(&papers, deep());
    let mut strangers = Vec::new();
    for _ in 0..LIMITS.per_source + 1 {
        strangers.push(raw(&papers, port).await);
    }
    let reason = strangers[0].closed().await;
    assert!(
        matches!(&reason, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == EXCESSIVE_LOAD),
        "{reason:?}"
    );
    assert!(strangers[1..].iter().all(|other| other.close_reason().is_none()));
}

#[tokio::test]
async fn a_stranger_keeps_only_so_much_in_memory() {
    let papers = Papers::new();
    let (_endpoint, port) = crowded(&papers, deep());
    let (light, heavy) = (raw(&papers, port).await, raw(&papers, port).await);
    // Requests that never come to their end fill the windows.
    let mut streams = Vec::new();
    let filling = async {
        loop {
            let (mut stream, answer) = heavy.open_bi().await?;
            stream
                .write_all(&[1, 0x80, 0, 0xff, 0xff])
                .await
                .unwrap_or_default();
            stream.write_all(&[0; 60_000]).await.unwrap_or_default();
            streams.push((stream, answer));
        }
    };
    let reason: quinn::ConnectionError = Clock::system()
        .timeout(Duration::from_secs(20), filling)
        .await
        .map_or_else(|_| panic!("never stopped"), |end: Result<(), _>| end.unwrap_err());
    assert!(
        matches!(&reason, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == EXCESSIVE_LOAD),
        "{reason:?}"
    );
    assert!(light.close_reason().is_none());
}

/// A running TLS listener with small limits.
async fn web(papers: &Papers, unused: Duration) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let limits = (LIMITS, unused);
    let serving = serve_tls_within(
        limits,
        listener,
        papers.server_tls(),
        router().0,
        CancellationToken::new(),
    );
    tokio::spawn(serving);
    port
}

#[tokio::test]
async fn tcp_strangers_make_room() {
    use tokio::io::AsyncReadExt;
    let papers = Papers::new();
    let port = web(&papers, Duration::from_secs(600)).await;
    let known = TokioIo::new(connect(&papers, port, b"h2", true).await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), known)
        .await
        .unwrap();
    tokio::spawn(connection);
    // One that says nothing, others that have said what TLS needs.
    let mut mute = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut strangers = Vec::new();
    for _ in 0..LIMITS.per_source + 1 {
        strangers.push(connect(&papers, port, b"h2", false).await);
    }
    assert_eq!(
        mute.read(&mut [0; 9]).await.unwrap_or(0),
        0,
        "the mute one goes first"
    );
    let mut octets = Vec::new();
    let _ = strangers[0].read_to_end(&mut octets).await;
    assert_eq!(sender.send_request(post("x".into())).await.unwrap().status(), 202);
}

#[tokio::test]
async fn tcp_strangers_that_do_nothing_go() {
    let papers = Papers::new();
    let port = web(&papers, Duration::from_millis(300)).await;
    let handshake = async |identity| {
        let stream = TokioIo::new(connect(&papers, port, b"h2", identity).await);
        hyper::client::conn::http2::handshake::<_, _, axum::body::Body>(TokioExecutor::new(), stream)
            .await
            .unwrap()
    };
    let (known, known_connection) = handshake(true).await;
    let known_connection = tokio::spawn(known_connection);
    // It answers every PING, and says nothing else.
    let (_stranger, connection) = handshake(false).await;
    let clock = Clock::system();
    let ended = clock.timeout(Duration::from_secs(20), connection).await;
    ended.expect("never told to go").unwrap();
    // Who was granted a request may stay as well.
    let (mut granted, connection) = handshake(false).await;
    let granted_connection = tokio::spawn(connection);
    assert_eq!(
        granted.send_request(post("x".into())).await.unwrap().status(),
        202
    );
    Clock::system().sleep(Duration::from_millis(1000)).await;
    assert!(!known_connection.is_finished() && !granted_connection.is_finished());
    drop((known, granted));
}
