//! A gateway under attack with the limits that it is shipped with: its memory is bounded, it says so once, and others are served.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    time::Duration,
};

use lightpost_clock::Clock;
use quinn::{NoneTokenStore, crypto::rustls::QuicClientConfig};
use quinn_proto::{ClientConfig, Endpoint, EndpointConfig};
use tokio_util::sync::CancellationToken;

use super::{
    resumption::Client,
    support::{CLIENT, GATEWAY, Papers, Pieces, exchange, json_of, replied, router, send},
    truncated::{headers, raw_with},
};
use crate::{
    Path,
    quic::listener::{Listener, Options},
    tls,
};

/// Half-open handshakes in all, and the addresses that they come from.
const HANDSHAKES: usize = 10_000;
const SOURCES: usize = 200;

/// A path for which Retry cannot work, over loopback.
fn deep() -> Path {
    Path {
        one_way_max: Duration::from_secs(182),
        rate_up: lightpost_config::Rate(1e6),
        rate_down: lightpost_config::Rate(1e6),
        ..Path::earth()
    }
}

/// A gateway on all of this host's addresses.
fn gateway(papers: &Papers, path: Path) -> (quinn::Endpoint, u16) {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let listener = Listener::bind(address, &papers.server_tls(), &[path], &Options::default()).unwrap();
    let endpoint = listener.endpoint().clone();
    let port = endpoint.local_addr().unwrap().port();
    let serving = listener.serve(router().0, Clock::system(), CancellationToken::new());
    tokio::spawn(serving);
    (endpoint, port)
}

/// First datagrams of clients that never say more.
struct Knocks {
    endpoint: Endpoint,
    config: ClientConfig,
}

impl Knocks {
    fn new(papers: &Papers) -> Self {
        let tls = tls::quic_client(tls::client(Some(&papers.ca()), None, &[b"h3"]).unwrap());
        Self {
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None),
            config: ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())),
        }
    }

    fn next(&mut self) -> Vec<u8> {
        let now = Clock::system().instant().into_std();
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let connected = self.endpoint.connect(now, self.config.clone(), anywhere, GATEWAY);
        let (_, mut connection) = connected.unwrap();
        let mut datagram = Vec::new();
        let _ = connection.poll_transmit(now, 1, &mut datagram).unwrap();
        datagram
    }
}

/// Octets of memory that this process occupies.
fn occupied() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// A log that is kept.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn lines(&self, about: &str) -> usize {
        self.text().lines().filter(|line| line.contains(about)).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn ten_thousand_half_open_handshakes() {
    let (log, _guard) = Log::start();
    let papers = Papers::new();
    let (endpoint, port) = gateway(&papers, deep());
    let gateway = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let known = papers.client_on(true, deep());
    let ask = async || replied(send(&known, exchange(port, "/echo", Pieces::of("x"))).await);
    assert_eq!(json_of(&ask().await)["names"][0], CLIENT);
    let returning = Client::new(&papers, Arc::new(NoneTokenStore));
    returning.cold(port).await;
    let sources: Vec<_> = (0..SOURCES as u8)
        .map(|host| UdpSocket::bind((Ipv4Addr::new(127, 1, 1, host), 0)).unwrap())
        .collect();
    let mut knocks = Knocks::new(&papers);
    let before = occupied();
    let mut most = 0;
    for number in 0..HANDSHAKES {
        let source = &sources[number % SOURCES];
        source.send_to(&knocks.next(), gateway).unwrap();
        source.send_to(&[number as u8; 1_200], gateway).unwrap();
        // The kernel's buffer is small; what it drops would not be an attack.
        tokio::task::yield_now().await;
        if number % 2_000 == 1_999 {
            ask().await;
            assert!(returning.early(port).await, "{number}");
            most = most.max(occupied());
        }
    }
    let stats = endpoint.stats();
    assert_eq!(stats.refused_handshakes, 0, "nobody is told to go away");
    let (accepted, ignored) = (stats.accepted_handshakes, stats.ignored_handshakes);
    assert!(
        accepted + ignored > HANDSHAKES as u64 * 9 / 10,
        "only {accepted} and {ignored} came through"
    );
    let grown = most.saturating_sub(before) >> 20;
    println!(
        "{accepted} handshakes, {ignored} not heard, {grown} MiB more, {} open",
        endpoint.open_connections()
    );
    // 140 KiB for each that was let in; with all of them let in, and room for ten thousand requests each, it was 1,720 MiB.
    assert!(grown < 128, "{grown} MiB");
    assert_eq!(log.lines("many connections have proven nothing"), 1);
    assert_eq!(log.lines("transport::gate"), 1, "{}", log.text());
    // What is no QUIC at all came 3,750 times and more.
    let faults = log.lines("not what it has to be");
    assert!((1..=2).contains(&faults), "{}", log.text());
}

/// A client that does all as it has to is not told of.
#[tokio::test]
async fn nothing_is_told_of_a_good_client() {
    let (log, _guard) = Log::start();
    let papers = Papers::new();
    let (_endpoint, port) = gateway(&papers, deep());
    let client = papers.client_on(true, deep());
    for _ in 0..20 {
        replied(send(&client, exchange(port, "/echo", Pieces::of("x"))).await);
    }
    assert_eq!(log.lines("not what it has to be"), 0, "{}", log.text());
}

/// Strangers that take no octet of their answers are in use, but not for ever.
#[tokio::test]
async fn answers_that_nobody_takes() {
    let papers = Papers::new();
    let (_endpoint, port) = gateway(&papers, Path::earth());
    let mut transport = quinn::TransportConfig::default();
    // The settings of HTTP/3 fit, an answer does not.
    transport.stream_receive_window(40u32.into());
    let stubborn = raw_with(&papers, port, transport).await;
    let (mut stream, mut answer) = stubborn.open_bi().await.unwrap();
    stream.write_all(&headers(None)).await.unwrap();
    stream.finish().unwrap();
    let clock = Clock::system();
    let waited = clock.timeout(Duration::from_secs(30), answer.received_reset());
    let reset = waited.await.expect("waited for without end").unwrap();
    assert!(reset.is_some(), "{reset:?}");
    assert!(stubborn.close_reason().is_none());
}
