//! The whole gateway: an exchange over HTTP/3 and one over HTTP/1.1 reach a mail server, and the operator sees them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::HeaderMap;
use lightpost_clock::{Clock, add};
use lightpost_server::{Config, Server};
use lightpost_sim::{Pki, Sink, sink::SinkOptions};
use lightpost_transport::{
    Exchange, Object, Outcome, Path, Transport,
    quic::client::{Hosts, QuicTransport, Settings},
    tls,
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use ulid::Ulid;

const GATEWAY: &str = "gw1.moon.example";
const RELAY: &str = "relay.earth.example";
const SOON: Duration = Duration::from_secs(20);

struct World {
    clock: Clock,
    pki: Pki,
    sink: Sink,
    config: Config,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let clock = Clock::system();
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path()).unwrap();
        let (certificate, key) = pki.issue(GATEWAY).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = Sink::start(listener, SinkOptions::default(), clock.clone()).unwrap();
        let text = format!(
            "name = \"{GATEWAY}\"\ndatabase = \"inbox.db\"\n[listen]\nhttps = \"127.0.0.1:0\"\ncertificate = \"{}\"\nkey = \"{}\"\n\
             client_trust = \"ca.pem\"\n[accept]\ndomains = [\"moon.example\"]\n[[peer]]\nname = \"{RELAY}\"\n[local]\naddress = \"{}\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"admin.sock\"\n",
            certificate.display(),
            key.display(),
            sink.address()
        );
        let config = Config::from_text(&folder.path().join("server.toml"), &text).unwrap();
        Self {
            clock,
            pki,
            sink,
            config,
            _folder: folder,
        }
    }

    fn transport(&self) -> QuicTransport {
        let settings = Settings {
            trust: Some(self.pki.authority()),
            identity: Some(self.pki.issue(RELAY).unwrap()),
            paths: vec![Path::earth()],
            sessions: None,
        };
        QuicTransport::new(settings, Arc::new(Loopback), self.clock.clone()).unwrap()
    }

    async fn exchange(&self, transport: &QuicTransport, id: Ulid, address: SocketAddr) -> Outcome {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/batch-SMTP".parse().unwrap());
        headers.insert("idempotency-key", format!("\"{id}\"").parse().unwrap());
        let expires = add(self.clock.now(), SOON);
        let exchange = Exchange {
            id,
            gateway: format!("https://{GATEWAY}:{}/inboundmail", address.port())
                .parse()
                .unwrap(),
            path: "earth".into(),
            headers,
            object: Arc::new(Text(object("over QUIC"))),
            octets: 0,
            line: Duration::ZERO,
            held_before: false,
            priority: 0,
            expires,
        };
        transport.send(exchange, expires).await
    }
}

struct Loopback;

#[async_trait::async_trait]
impl Hosts for Loopback {
    async fn addresses(&self, _host: &str) -> Result<Vec<IpAddr>, String> {
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }
}

struct Text(String);

impl Object for Text {
    fn open(&self) -> BoxStream<'static, std::io::Result<Bytes>> {
        let octets = Bytes::from(self.0.clone());
        stream::once(async move { Ok(octets) }).boxed()
    }
    fn size(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }
}

fn object(text: &str) -> String {
    format!(
        "EHLO {RELAY}\r\nMAIL FROM:<alice@earth.example>\r\nRCPT TO:<bob@moon.example>\r\nDATA\r\nSubject: {text}\r\n\r\nx\r\n.\r\nQUIT\r\n"
    )
}

/// One HTTP/1.1 request by hand; the whole answer as text.
async fn by_hand(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str, body: &str) -> String {
    let request = format!(
        "{head}\r\nHost: {GATEWAY}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // The gateway may close without a TLS goodbye; what came before counts.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn mail_crosses_by_http3_and_http1_and_survives_a_restart() {
    let world = World::new().await;
    let mut mails = world.sink.subscribe(10);
    let server = Server::start(world.config.clone(), world.clock.clone())
        .await
        .unwrap();
    let address = server.https_address();

    let (transport, id) = (world.transport(), Ulid::from_parts(1, 2));
    let Outcome::Replied(reply) = world.exchange(&transport, id, address).await else {
        panic!("no reply")
    };
    assert_eq!(reply.status, 202, "{:?}", reply.body);
    let mail = world.clock.timeout(SOON, mails.recv()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&mail.body).into_owned();
    assert!(
        text.contains("with HTTP/3") && text.contains("Subject: over QUIC"),
        "{text}"
    );

    let (certificate, key) = world.pki.issue(RELAY).unwrap();
    let authority = world.pki.authority();
    let tls = tls::client(Some(&authority), Some((&certificate, &key)), &[b"http/1.1"]).unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(ServerName::try_from(GATEWAY).unwrap(), tcp)
        .await
        .unwrap();
    let head = "POST /inboundmail HTTP/1.1\r\nContent-Type: application/batch-SMTP";
    let answer = by_hand(stream, head, &object("over TCP")).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let mail = world.clock.timeout(SOON, mails.recv()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&mail.body).contains("with HTTP/1.1"));

    let admin = TcpStream::connect(server.admin_address().unwrap()).await.unwrap();
    let answer = by_hand(admin, "GET /v1/messages?destination=moon.example HTTP/1.1", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains(&id.to_string()),
        "{answer}"
    );
    let socket = world.config.admin.as_ref().unwrap().socket.clone().unwrap();
    let unix = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let answer = by_hand(unix, "GET /v1/health HTTP/1.1", "").await;
    assert!(answer.contains("\"ok\""), "{answer}");
    server.stop().await;

    // The next run knows the exchange still, replaces the stale socket, and delivers nothing twice.
    let server = Server::start(world.config.clone(), world.clock.clone())
        .await
        .unwrap();
    let transport = world.transport();
    let Outcome::Replied(reply) = world.exchange(&transport, id, server.https_address()).await else {
        panic!("no reply")
    };
    assert_eq!(reply.status, 202);
    server.stop().await;
    assert_eq!(world.sink.count(), 2);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let world = World::new().await;
    let first = Server::start(world.config.clone(), world.clock.clone())
        .await
        .unwrap();
    let mut config = world.config.clone();
    config.listen.https = first.https_address();
    config.database.set_extension("other");
    let error = Server::start(config, world.clock.clone()).await.err().unwrap();
    assert!(
        error.to_string().contains(&first.https_address().to_string()),
        "{error}"
    );
    first.stop().await;
}
