//! A client on Earth, a gateway on the far side, and space between them.

use std::{
    collections::VecDeque,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body, extract::State, http::StatusCode, routing::post};
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use http::HeaderMap;
use http_body_util::BodyExt;
use jiff::Timestamp;
use lightpost_clock::{Clock, add};
use lightpost_sim::{link::DirectionOptions, net::Space, pki::Pki};
use lightpost_transport::{
    Exchange, Object, Outcome, Path, Transport,
    quic::{
        client::{Hosts, QuicTransport, Settings},
        listener::{Listener, Options},
    },
    tls,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

pub(crate) const MARS: Duration = Duration::from_secs(182);
const GATEWAY: &str = "gw1.mars.example";
const ADDRESS: ([u8; 4], u16) = ([192, 0, 2, 2], 443);

/// Runs `story` in virtual time.
pub(crate) fn virtually<F: Future>(story: impl FnOnce() -> F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(story())
}

/// Certificates, made once for many worlds.
pub(crate) struct Papers {
    _folder: tempfile::TempDir,
    trust: std::path::PathBuf,
    server: rustls::ServerConfig,
}

impl Papers {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path()).unwrap();
        let (chain, key) = pki.issue(GATEWAY).unwrap();
        Self {
            trust: pki.authority(),
            server: tls::server(&chain, &key, None, &[b"h3"]).unwrap(),
            _folder: folder,
        }
    }
}

/// A mail that arrived: its exchange, its size, and when its last octet was there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arrival {
    pub(crate) octets: usize,
    pub(crate) at: Duration,
}

/// What the gateway says to the next mails, each after a time; `202` at once when there is nothing.
pub(crate) type Answers = Arc<Mutex<VecDeque<(Duration, StatusCode)>>>;

#[derive(Clone)]
struct Gateway {
    space: Space,
    arrivals: mpsc::UnboundedSender<Arrival>,
    clock: Clock,
    answers: Answers,
}

pub(crate) struct World {
    pub(crate) space: Space,
    pub(crate) clock: Clock,
    pub(crate) client: Arc<QuicTransport>,
    pub(crate) path: Path,
    pub(crate) arrivals: mpsc::UnboundedReceiver<Arrival>,
    pub(crate) answers: Answers,
    settings: Settings,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

/// What `path` looks like as a link.
pub(crate) fn link(path: &Path) -> DirectionOptions {
    DirectionOptions {
        owlt: path.one_way_max,
        rate: Some(path.rate_up.0 as u64),
        loss: path.loss,
        ..DirectionOptions::default()
    }
}

pub(crate) fn mars() -> Path {
    Path {
        name: "mars".into(),
        one_way_min: MARS,
        one_way_max: MARS,
        rate_up: lightpost_config::Rate(1e6),
        rate_down: lightpost_config::Rate(1e6),
        ..Path::earth()
    }
}

struct One;

#[async_trait::async_trait]
impl Hosts for One {
    async fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, String> {
        Ok(vec![SocketAddr::from(ADDRESS).ip()])
    }
}

impl World {
    pub(crate) fn new(papers: &Papers, path: Path, link: DirectionOptions, seed: u64) -> Self {
        let clock = Clock::runtime("2030-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
        let space = Space::even(link, seed, clock.clone());
        let mut server = papers.server.clone();
        server.time_provider = tls::time(&clock);
        let listener = Listener::bind_on(
            &space.far(),
            ADDRESS.into(),
            &server,
            std::slice::from_ref(&path),
            &Options::default(),
        )
        .unwrap();
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let answers = Answers::default();
        let router = Router::new().route("/in", post(take)).with_state(Gateway {
            space: space.clone(),
            arrivals: arrived,
            clock: clock.clone(),
            answers: answers.clone(),
        });
        let stop = CancellationToken::new();
        tokio::spawn(listener.serve(router, clock.clone(), stop.clone()));
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            trust: Some(papers.trust.clone()),
            identity: None,
            sessions: Some(folder.path().join("sessions")),
            paths: vec![path.clone()],
        };
        let client =
            QuicTransport::new_on(&space.earth(), settings.clone(), Arc::new(One), clock.clone()).unwrap();
        Self {
            space,
            clock,
            client: Arc::new(client),
            settings,
            path,
            arrivals,
            answers,
            stop,
            _folder: folder,
        }
    }

    /// Another client in the place of the one so far, with what it has kept.
    pub(crate) async fn restart(&mut self) {
        self.client.close().await;
        let (net, clock) = (self.space.earth(), self.clock.clone());
        let client = QuicTransport::new_on(&net, self.settings.clone(), Arc::new(One), clock).unwrap();
        self.client = Arc::new(client);
    }

    /// Sends a mail of `octets`; the times from now, in light times, at which it was at the gateway and the reply here.
    pub(crate) async fn mail(&mut self, octets: usize) -> (f64, f64) {
        // One that was sent again may have come again.
        while self.arrivals.try_recv().is_ok() {}
        let start = self.space.elapsed();
        let outcome = send(&self.client, &self.clock, octets).await;
        assert!(
            matches!(&outcome, Outcome::Replied(reply) if reply.status == StatusCode::ACCEPTED),
            "{outcome:?}"
        );
        let replied = self.space.elapsed() - start;
        let arrival = self.arrivals.recv().await.unwrap();
        assert_eq!(arrival.octets, octets);
        (self.light(arrival.at - start), self.light(replied))
    }

    /// When a mail of `octets` was at the gateway.
    pub(crate) async fn arrived(&mut self, octets: usize) -> Duration {
        loop {
            let arrival = self.arrivals.recv().await.unwrap();
            if arrival.octets == octets {
                return arrival.at;
            }
        }
    }

    /// A span in light times.
    pub(crate) fn light(&self, span: Duration) -> f64 {
        span.as_secs_f64() / self.path.one_way_max.as_secs_f64()
    }

    /// Sends `count` mails of `octets` at once, and waits for their replies; when they were at the gateway.
    pub(crate) async fn mails(&mut self, count: usize, octets: usize) -> Vec<Duration> {
        let sending = (0..count).map(|_| send(&self.client, &self.clock, octets));
        let outcomes = futures_util::future::join_all(sending).await;
        assert!(
            outcomes
                .iter()
                .all(|outcome| matches!(outcome, Outcome::Replied(_)))
        );
        let mut times = Vec::new();
        while let Ok(arrival) = self.arrivals.try_recv() {
            times.push(arrival.at);
        }
        assert!(times.len() >= count, "{} of {count}", times.len());
        times
    }

    pub(crate) async fn wait(&self, span: Duration) {
        self.clock.sleep(span).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Sends a mail of `octets` and waits for weeks if it has to.
pub(crate) async fn send(client: &QuicTransport, clock: &Clock, octets: usize) -> Outcome {
    send_with(client, clock, octets, 0).await
}

/// The same with a priority.
pub(crate) async fn send_with(client: &QuicTransport, clock: &Clock, octets: usize, priority: i8) -> Outcome {
    send_within(client, clock, octets, priority, Duration::from_secs(30 * 86_400)).await
}

/// The same, waiting for so long.
pub(crate) async fn send_within(
    client: &QuicTransport,
    clock: &Clock,
    octets: usize,
    priority: i8,
    limit: Duration,
) -> Outcome {
    let exchange = Exchange {
        id: Ulid::generate(),
        gateway: format!("https://{GATEWAY}/in").parse().unwrap(),
        path: "mars".into(),
        headers: HeaderMap::new(),
        object: Arc::new(Mail(octets)),
        octets: octets as u64,
        line: Duration::ZERO,
        held_before: false,
        priority,
        expires: Timestamp::MAX,
    };
    client.send(exchange, add(clock.now(), limit)).await
}

struct Mail(usize);

impl Object for Mail {
    fn open(&self) -> BoxStream<'static, std::io::Result<Bytes>> {
        const PIECE: usize = 1 << 20;
        let pieces = (0..self.0).step_by(PIECE).map({
            let size = self.0;
            move |start| Ok(Bytes::from(vec![b'x'; PIECE.min(size - start)]))
        });
        futures_util::stream::iter(pieces).boxed()
    }

    fn size(&self) -> Option<u64> {
        Some(self.0 as u64)
    }
}

async fn take(State(gateway): State<Gateway>, mut body: Body) -> StatusCode {
    let mut octets = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return StatusCode::BAD_REQUEST;
        };
        octets += frame.into_data().map_or(0, |data| data.len());
    }
    let _ = gateway.arrivals.send(Arrival {
        octets,
        at: gateway.space.elapsed(),
    });
    let answer = gateway.answers.lock().unwrap().pop_front();
    let Some((after, status)) = answer else {
        return StatusCode::ACCEPTED;
    };
    gateway.clock.sleep(after).await;
    status
}
