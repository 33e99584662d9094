//! Clients that come back: early data whatever the distance, across restarts, and once only.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use lightpost_clock::Clock;
use quinn::{NoneTokenStore, TokenMemoryCache, TokenStore, crypto::rustls::QuicClientConfig};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    support::{CLIENT, End, GATEWAY, Papers, router},
    truncated::headers,
};
use crate::{
    EarlyData, Path,
    quic::{
        listener::{Listener, Options},
        tickets::{self, Place, Tickets},
    },
    tls,
};

const SOON: Duration = Duration::from_secs(20);

/// A clock that goes when it is told to.
#[derive(Clone, Debug)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_900_000_000)))
    }

    fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl TimeProvider for Hand {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.0.load(Ordering::SeqCst);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// What a gateway keeps while it does not run.
struct Site {
    papers: Papers,
    tls: rustls::ServerConfig,
    options: Options,
    hand: Hand,
    /// Whether requests in early data wait for the handshake.
    careful: bool,
}

impl Site {
    fn new(tolerance: Duration) -> Self {
        let papers = Papers::new();
        let hand = Hand::new();
        let mut tls = (*papers.server_tls()).clone();
        tls.time_provider = Arc::new(hand.clone());
        let tickets = Tickets {
            sessions: Some(Place {
                file: papers.file("inbox.sessions"),
                scope: tickets::scope(&[&papers.ca()]).unwrap(),
            }),
            token_key: Some(papers.file("inbox.token-key")),
            age_tolerance: Some(tolerance),
        };
        let options = Options {
            tickets,
            ..Options::default()
        };
        Self {
            papers,
            tls,
            options,
            hand,
            careful: false,
        }
    }

    fn sessions(&self) -> PathBuf {
        self.papers.file("inbox.sessions")
    }

    fn start(&self) -> Gateway {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Listener::bind(address, &self.tls, &[Path::earth()], &self.options).unwrap();
        let port = listener.endpoint().local_addr().unwrap().port();
        let (mut router, seen) = router();
        if self.careful {
            router = router.layer(axum::middleware::from_fn(confirmed));
        }
        let stop = CancellationToken::new();
        let task = tokio::spawn(listener.serve(router, Clock::system(), stop.clone()));
        Gateway {
            port,
            seen,
            stop,
            task,
        }
    }
}

struct Gateway {
    port: u16,
    seen: mpsc::UnboundedReceiver<End>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Gateway {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// How many requests came whole until now.
    fn whole(&mut self) -> usize {
        let mut whole = 0;
        while let Ok(end) = self.seen.try_recv() {
            whole += usize::from(matches!(end, End::Whole(_)));
        }
        whole
    }
}

/// A client that keeps sessions and tokens in memory.
pub(super) struct Client {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
    hand: Hand,
}

impl Client {
    pub(super) fn new(papers: &Papers, tokens: Arc<dyn TokenStore>) -> Self {
        let hand = Hand::new();
        let (chain, key) = papers.issue(CLIENT);
        let tls = tls::client(Some(&papers.ca()), Some((&chain, &key)), &[b"h3"]).unwrap();
        let mut tls = tls::quic_client(tls);
        tls.time_provider = Arc::new(hand.clone());
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.token_store(tokens);
        Self {
            endpoint: quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap(),
            config,
            hand,
        }
    }

    fn connect(&self, port: u16) -> quinn::Connecting {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        self.endpoint
            .connect_with(self.config.clone(), address, GATEWAY)
            .unwrap()
    }

    /// A whole handshake and one request.
    pub(super) async fn cold(&self, port: u16) {
        let connecting = self.connect(port);
        post(&connecting.await.unwrap()).await;
    }

    /// One request with the first packet; whether it was taken as it came. Sent again if it was not.
    pub(super) async fn early(&self, port: u16) -> bool {
        let Ok((connection, accepted)) = self.connect(port).into_0rtt() else {
            panic!("no session to resume");
        };
        let (mut stream, mut answer) = connection.open_bi().await.unwrap();
        stream.write_all(&request()).await.unwrap();
        stream.finish().unwrap();
        let taken = accepted.await;
        match taken {
            true => assert!(!answer.read_to_end(10_000).await.unwrap().is_empty()),
            false => post(&connection).await,
        }
        connection.close(0u32.into(), b"");
        taken
    }
}

fn request() -> Vec<u8> {
    [headers(None), vec![0, 3, b'a', b'b', b'c']].concat()
}

async fn post(connection: &quinn::Connection) {
    let (mut stream, mut answer) = connection.open_bi().await.unwrap();
    stream.write_all(&request()).await.unwrap();
    stream.finish().unwrap();
    let answer = answer.read_to_end(10_000).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    // The client is known by its certificate, shown now or when the session was made.
    assert!(
        answer.contains("\"octets\":3") && answer.contains(CLIENT),
        "{answer}"
    );
}

/// If this fails after an update of rustls, what it gives us to keep is laid out in another way: see `tickets::value`.
#[tokio::test]
async fn early_data_is_taken_whatever_the_distance() {
    const HOUR: u64 = 3_600;
    // How much older the session is here than at the client, in seconds, or how much younger; the tolerance; whether early data is taken.
    for (older, younger, tolerance, expected) in [
        (0, 0, 0, true),
        (50, 0, 0, true),
        (70, 0, 0, false),
        (364, 0, 600, true),
        (2_684, 0, 3_300, true),
        (2_684, 0, 2_000, false),
        (6 * HOUR + 364, 0, 7 * HOUR, true),
        (0, 300, 600, true),
        (0, 300, 100, false),
    ] {
        let site = Site::new(Duration::from_secs(tolerance));
        let gateway = site.start();
        let client = Client::new(&site.papers, Arc::new(NoneTokenStore));
        client.cold(gateway.port).await;
        site.hand.advance(HOUR + older);
        client.hand.advance(HOUR + younger);
        let taken = client.early(gateway.port).await;
        assert_eq!(taken, expected, "{older} {younger} {tolerance}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn sessions_outlive_a_restart_and_are_used_once() {
    let site = Site::new(Duration::from_secs(600));
    let gateway = site.start();
    let client = Client::new(&site.papers, Arc::new(NoneTokenStore));
    client.cold(gateway.port).await;
    gateway.stop().await;
    let before = std::fs::metadata(site.sessions()).unwrap().len();
    // A day's silence but for a round trip.
    site.hand.advance(86_000);
    client.hand.advance(86_000 - 364);
    let gateway = site.start();
    assert!(client.early(gateway.port).await);
    gateway.stop().await;
    let after = std::fs::metadata(site.sessions()).unwrap().len();
    assert!(after > before, "eight new ones for the one that was used");
    // What is damaged is not taken up, and is no reason not to start.
    let mut octets = std::fs::read(site.sessions()).unwrap();
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    std::fs::write(site.sessions(), octets).unwrap();
    let gateway = site.start();
    assert!(!client.early(gateway.port).await);
    assert!(client.early(gateway.port).await, "the new ones are as good");
    gateway.stop().await;
}

#[tokio::test]
async fn sessions_of_other_authorities_are_not_taken_up() {
    let mut site = Site::new(Duration::from_secs(600));
    let gateway = site.start();
    let client = Client::new(&site.papers, Arc::new(NoneTokenStore));
    client.cold(gateway.port).await;
    gateway.stop().await;
    let others = Papers::new();
    if let Some(place) = &mut site.options.tickets.sessions {
        place.scope = tickets::scope(&[&others.ca()]).unwrap();
    }
    let gateway = site.start();
    assert!(!client.early(gateway.port).await);
    gateway.stop().await;
}

/// Sessions are written while the gateway runs, not only when it is stopped in good order.
#[tokio::test]
async fn sessions_outlive_a_crash() {
    let site = Site::new(Duration::from_secs(600));
    let gateway = site.start();
    let client = Client::new(&site.papers, Arc::new(NoneTokenStore));
    client.cold(gateway.port).await;
    let clock = Clock::system();
    let written = async {
        while !site.sessions().exists() {
            clock.sleep(Duration::from_millis(20)).await;
        }
    };
    clock.timeout(SOON, written).await.unwrap();
    gateway.task.abort();
    let gateway = site.start();
    assert!(client.early(gateway.port).await);
    gateway.stop().await;
}

/// Forwards datagrams of one client to a gateway, and keeps those of the client.
struct Tap {
    port: u16,
    gateway: Arc<AtomicU16>,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tap {
    async fn start(gateway: u16) -> Self {
        let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let tap = Self {
            port: socket.local_addr().unwrap().port(),
            gateway: Arc::new(AtomicU16::new(gateway)),
            kept: Arc::default(),
        };
        let (gateway, kept) = (tap.gateway.clone(), tap.kept.clone());
        tokio::spawn(async move {
            let (mut buffer, mut client) = (vec![0; 65_536], None);
            loop {
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
                    continue;
                };
                let datagram = &buffer[..length];
                let gateway = SocketAddr::from((Ipv4Addr::LOCALHOST, gateway.load(Ordering::SeqCst)));
                let to = match from == gateway {
                    true => client,
                    false => {
                        client = Some(from);
                        kept.lock().unwrap().push(datagram.to_vec());
                        Some(gateway)
                    }
                };
                if let Some(to) = to {
                    let _ = socket.send_to(datagram, to).await;
                }
            }
        });
        tap
    }

    fn forget(&self) {
        self.kept.lock().unwrap().clear();
    }

    /// Sends what was kept once more, from elsewhere.
    async fn replay(&self, port: u16) {
        let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let kept = self.kept.lock().unwrap().clone();
        for datagram in kept {
            socket
                .send_to(&datagram, (Ipv4Addr::LOCALHOST, port))
                .await
                .unwrap();
        }
    }
}

/// A running gateway that took early data over a tap which has recorded it, and its sessions as they were before.
async fn recorded(site: &Site) -> (Gateway, Tap, Client, Vec<u8>) {
    let mut gateway = site.start();
    let tap = Tap::start(gateway.port).await;
    let client = Client::new(&site.papers, Arc::new(NoneTokenStore));
    client.cold(tap.port).await;
    gateway.stop().await;
    let unused = std::fs::read(site.sessions()).unwrap();
    gateway = site.start();
    tap.gateway.store(gateway.port, Ordering::SeqCst);
    tap.forget();
    assert!(client.early(tap.port).await);
    assert_eq!(gateway.whole(), 1);
    (gateway, tap, client, unused)
}

#[tokio::test]
async fn a_first_flight_that_is_replayed() {
    let site = Site::new(Duration::from_secs(600));
    let (mut gateway, tap, client, unused) = recorded(&site).await;
    // The session is used: what comes with it is not read, wherever it comes from, and the next one is served.
    for _ in 0..3 {
        tap.replay(gateway.port).await;
    }
    // It comes after the replay, and takes several round trips.
    client.cold(gateway.port).await;
    assert_eq!(gateway.whole(), 1, "the next one only");
    gateway.stop().await;
    // In good order, the next run knows that it is used.
    gateway = site.start();
    tap.replay(gateway.port).await;
    client.cold(gateway.port).await;
    assert_eq!(gateway.whole(), 1, "the next one only");
    gateway.stop().await;
    // After a crash right after its use it may not: the request comes once more, with the same exchange id.
    std::fs::write(site.sessions(), unused).unwrap();
    gateway = site.start();
    for _ in 0..3 {
        tap.replay(gateway.port).await;
    }
    client.cold(gateway.port).await;
    assert_eq!(gateway.whole(), 2, "once, and the next one");
    gateway.stop().await;
}

async fn confirmed(request: Request, next: Next) -> Response {
    match request.extensions().get::<EarlyData>().cloned() {
        Some(early) if !early.confirmed().await => StatusCode::TOO_EARLY.into_response(),
        _ => next.run(request).await,
    }
}

/// What a router may do that cannot tell a repeat: the recording never ends its handshake, the real client does.
#[tokio::test]
async fn a_request_that_may_not_come_twice_waits_for_the_handshake() {
    let mut site = Site::new(Duration::from_secs(600));
    site.careful = true;
    let (mut gateway, tap, client, unused) = recorded(&site).await;
    gateway.stop().await;
    std::fs::write(site.sessions(), unused).unwrap();
    gateway = site.start();
    for _ in 0..3 {
        tap.replay(gateway.port).await;
    }
    client.cold(gateway.port).await;
    assert_eq!(gateway.whole(), 1, "the next one only");
    gateway.stop().await;
}

/// Whether the address of the next client is known to be real before it has answered anything.
async fn validated(site: &Site, client: &Client) -> bool {
    let (config, _keeper) = site
        .options
        .tickets
        .server_config(&site.tls, Default::default(), &[Path::earth()])
        .unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = quinn::Endpoint::new(Default::default(), Some(config), socket, runtime).unwrap();
    let connecting = client.connect(endpoint.local_addr().unwrap().port());
    let incoming = endpoint.accept().await.unwrap();
    let validated = incoming.remote_address_validated();
    let (here, there) = tokio::join!(incoming, connecting);
    let (_here, there) = (here.unwrap(), there.unwrap());
    // A stream shows that the client has read what stands before it: the tokens.
    let mut stream = _here.open_uni().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.finish().unwrap();
    there.accept_uni().await.unwrap().read_to_end(1).await.unwrap();
    validated
}

#[tokio::test]
async fn tokens_outlive_a_restart() {
    let mut site = Site::new(Duration::ZERO);
    let client = Client::new(&site.papers, Arc::new(TokenMemoryCache::default()));
    assert!(!validated(&site, &client).await, "it has none yet");
    for _ in 0..5 {
        assert!(validated(&site, &client).await, "each start is a new one");
    }
    site.hand.advance(13 * 86_400);
    assert!(validated(&site, &client).await);
    site.hand.advance(20 * 86_400);
    assert!(!validated(&site, &client).await, "too old");
    site.options.tickets.token_key = None;
    assert!(!validated(&site, &client).await, "another key");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(site.papers.file("inbox.token-key"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}
