//! Certificates, a router that says what it got, and a client.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path as FilePath, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::State,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use http::HeaderMap;
use http_body_util::BodyExt;
use lightpost_clock::Clock;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ring::digest;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use crate::{
    Exchange, Object, Outcome, Path, PeerIdentity, Reply, Transport,
    quic::{
        client::{Hosts, QuicTransport, Settings},
        listener::{Listener, Options},
    },
    tls,
};

pub(super) const GATEWAY: &str = "gw1.moon.example";
pub(super) const CLIENT: &str = "relay.earth.example";

/// A CA and what it has signed, as files.
pub(super) struct Papers {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Papers {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// A certificate and its key.
    pub(super) fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        self.issue_for(vec![name.to_owned()])
    }

    /// The same for several names; the files are called by the first.
    pub(super) fn issue_for(&self, names: Vec<String>) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let name = names[0].clone();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (chain, secret) = (
            self.file(&format!("{name}.pem")),
            self.file(&format!("{name}.key")),
        );
        std::fs::write(&chain, certificate.pem()).unwrap();
        std::fs::write(&secret, key.serialize_pem()).unwrap();
        (chain, secret)
    }

    pub(super) fn server_tls(&self) -> Arc<rustls::ServerConfig> {
        let (chain, key) = self.issue(GATEWAY);
        Arc::new(tls::server(&chain, &key, Some(&self.ca()), &[b"h3"]).unwrap())
    }

    pub(super) fn client(&self, identity: bool) -> QuicTransport {
        self.client_on(identity, early())
    }

    pub(super) fn client_on(&self, identity: bool, path: Path) -> QuicTransport {
        let settings = Settings {
            trust: Some(self.ca()),
            identity: identity.then(|| self.issue(CLIENT)),
            paths: vec![path],
            ..Settings::default()
        };
        QuicTransport::new(settings, Arc::new(Loopback), Clock::system()).unwrap()
    }
}

/// Every host is this one.
pub(super) struct Loopback;

#[async_trait::async_trait]
impl Hosts for Loopback {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match host {
            "unknown.example" => Err("NXDOMAIN".into()),
            _ => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
        }
    }
}

/// A body in pieces.
#[derive(Clone)]
pub(super) struct Pieces {
    pub(super) pieces: Vec<Bytes>,
    /// Whether the size is told beforehand.
    pub(super) sized: bool,
    /// Whether the stream pends for ever after the last piece.
    pub(super) stuck: bool,
}

impl Pieces {
    pub(super) fn of(text: impl Into<Bytes>) -> Self {
        Self {
            pieces: vec![text.into()],
            sized: true,
            stuck: false,
        }
    }
}

impl Object for Pieces {
    fn open(&self) -> BoxStream<'static, std::io::Result<Bytes>> {
        let pieces = futures_util::stream::iter(self.pieces.clone().into_iter().map(Ok));
        match self.stuck {
            true => pieces.chain(futures_util::stream::pending()).boxed(),
            false => pieces.boxed(),
        }
    }

    fn size(&self) -> Option<u64> {
        self.sized
            .then(|| self.pieces.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// What a [`Gated`] body has sent before the test says more.
pub(super) const BEGINNING: usize = 100_000;

/// A body whose end comes when the test says so.
pub(super) struct Gated(Mutex<Option<mpsc::UnboundedReceiver<std::io::Result<Bytes>>>>);

impl Gated {
    pub(super) fn new() -> (mpsc::UnboundedSender<std::io::Result<Bytes>>, Self) {
        let (gate, parts) = mpsc::unbounded_channel();
        gate.send(Ok(vec![0; BEGINNING].into())).unwrap();
        (gate, Self(Mutex::new(Some(parts))))
    }
}

impl Object for Gated {
    fn open(&self) -> BoxStream<'static, std::io::Result<Bytes>> {
        let parts = self.0.lock().unwrap().take().unwrap();
        futures_util::stream::unfold(parts, |mut parts| async { Some((parts.recv().await?, parts)) }).boxed()
    }

    fn size(&self) -> Option<u64> {
        None
    }
}

pub(super) fn exchange(port: u16, route: &str, object: Pieces) -> Exchange {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/batch-SMTP".parse().unwrap());
    Exchange {
        id: Ulid::generate(),
        gateway: format!("https://{GATEWAY}:{port}{route}").parse().unwrap(),
        path: "earth".into(),
        headers,
        object: Arc::new(object),
        octets: 0,
        line: Duration::ZERO,
        held_before: false,
        priority: 0,
        expires: jiff::Timestamp::MAX,
    }
}

pub(super) fn deadline(span: Duration) -> jiff::Timestamp {
    lightpost_clock::add(Clock::system().now(), span)
}

pub(super) async fn send(client: &QuicTransport, exchange: Exchange) -> Outcome {
    client.send(exchange, deadline(Duration::from_secs(30))).await
}

#[track_caller]
pub(super) fn replied(outcome: Outcome) -> Reply {
    match outcome {
        Outcome::Replied(reply) => reply,
        other => panic!("{other:?}"),
    }
}

pub(super) fn json_of(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

/// How a request's body ended, as the router saw it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its first octets were read.
    Begun,
    Whole(usize),
    Broken(usize),
}

/// `/echo` says what came; `/silent` never answers; `/large` answers more than is kept; `/broken` answers half.
pub(super) fn router() -> (Router, mpsc::UnboundedReceiver<End>) {
    let (ends, seen) = mpsc::unbounded_channel();
    let router = Router::new()
        .route("/echo", post(echo))
        .route("/silent", post(|_: Body| std::future::pending::<StatusCode>()))
        .route("/refuse", post(|| async { StatusCode::PAYLOAD_TOO_LARGE }))
        .route("/large", post(|| async { vec![b'x'; 200_000] }))
        .route("/broken", post(broken))
        .route(
            "/hello",
            get(|Extension(peer): Extension<PeerIdentity>| async move { peer.carrier.protocol() }),
        )
        .with_state(ends);
    (router, seen)
}

async fn broken() -> Body {
    let parts = [
        Ok(Bytes::from_static(b"half")),
        Err(std::io::Error::other("half")),
    ];
    Body::from_stream(futures_util::stream::iter(parts))
}

async fn echo(
    State(ends): State<mpsc::UnboundedSender<End>>,
    Extension(peer): Extension<PeerIdentity>,
    headers: HeaderMap,
    mut body: Body,
) -> axum::response::Response {
    let (mut hash, mut octets) = (digest::Context::new(&digest::SHA256), 0);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            let _ = ends.send(End::Broken(octets));
            return StatusCode::BAD_REQUEST.into_response();
        };
        if let Ok(data) = frame.into_data() {
            if octets == 0 && !data.is_empty() {
                let _ = ends.send(End::Begun);
            }
            octets += data.len();
            hash.update(&data);
        }
    }
    let _ = ends.send(End::Whole(octets));
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let answer = json!({
        "octets": octets,
        "sha256": hex(hash.finish().as_ref()),
        "names": peer.names,
        "carrier": peer.carrier.protocol(),
        "local": peer.address.is_some_and(|address| address.ip().is_loopback()),
        "type": text("content-type"),
        "length": text("content-length"),
    });
    (StatusCode::ACCEPTED, Json(answer)).into_response()
}

pub(super) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A running listener.
pub(super) struct Running {
    pub(super) port: u16,
    pub(super) seen: mpsc::UnboundedReceiver<End>,
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<()>,
    pub(super) endpoint: quinn::Endpoint,
    pub(super) config: quinn::ServerConfig,
}

pub(super) fn gateway(papers: &Papers) -> Running {
    gateway_on(papers, 0, None)
}

pub(super) fn gateway_on(papers: &Papers, port: u16, reset_key: Option<&FilePath>) -> Running {
    let options = Options {
        reset_key: reset_key.map(FilePath::to_owned),
        ..Options::default()
    };
    gateway_with(papers, port, Path::earth(), &options)
}

pub(super) fn gateway_with(papers: &Papers, port: u16, path: Path, options: &Options) -> Running {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = Listener::bind(address, &papers.server_tls(), &[path], options).unwrap();
    let (endpoint, config) = (listener.endpoint().clone(), listener.config());
    let (router, seen) = router();
    let stop = CancellationToken::new();
    Running {
        port: endpoint.local_addr().unwrap().port(),
        seen,
        task: tokio::spawn(listener.serve(router, Clock::system(), stop.clone())),
        stop,
        endpoint,
        config,
    }
}

/// The loopback, as if its round trip were worth a first flight.
pub(super) fn early() -> Path {
    let mut path = Path::earth();
    path.quic.early_data = Some(true);
    path
}
