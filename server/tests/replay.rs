//! A first flight that is captured and sent again: the mail in it is delivered once, before and after a restart of the gateway.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, atomic::AtomicU16, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use lightpost_clock::Clock;
use lightpost_server::{Config, Server};
use lightpost_sim::{Pki, Sink, sink::SinkOptions};
use lightpost_transport::tls;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::net::{TcpListener, UdpSocket};
use ulid::Ulid;

const GATEWAY: &str = "gw1.moon.example";
const RELAY: &str = "relay.earth.example";
const SOON: Duration = Duration::from_secs(20);

/// Forwards the datagrams of one client to the gateway, and keeps those of the client.
struct Tap {
    port: u16,
    gateway: Arc<AtomicU16>,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tap {
    async fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let tap = Self {
            port: socket.local_addr().unwrap().port(),
            gateway: Arc::default(),
            kept: Arc::default(),
        };
        let (gateway, kept) = (tap.gateway.clone(), tap.kept.clone());
        tokio::spawn(async move {
            let (mut buffer, mut client) = (vec![0; 65_536], None);
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
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

    fn lead_to(&self, server: &Server) {
        self.gateway
            .store(server.https_address().port(), Ordering::SeqCst);
        self.kept.lock().unwrap().clear();
    }

    /// Sends what was kept once more, from elsewhere.
    async fn replay(&self, server: &Server) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let kept = self.kept.lock().unwrap().clone();
        for datagram in kept {
            socket.send_to(&datagram, server.https_address()).await.unwrap();
        }
    }
}

struct World {
    clock: Clock,
    pki: Pki,
    sink: Sink,
    config: Config,
    folder: tempfile::TempDir,
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
             client_trust = \"ca.pem\"\n[accept]\ndomains = [\"moon.example\"]\n[[peer]]\nname = \"{RELAY}\"\n[local]\naddress = \"{}\"\n",
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
            folder,
        }
    }

    async fn start(&self) -> Server {
        Server::start(self.config.clone(), self.clock.clone())
            .await
            .unwrap()
    }

    fn client(&self) -> Client {
        let (chain, key) = self.pki.issue(RELAY).unwrap();
        let authority = self.pki.authority();
        let mut tls = tls::client(Some(&authority), Some((&chain, &key)), &[b"h3"]).unwrap();
        tls.enable_early_data = true;
        Client {
            endpoint: quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap(),
            config: quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())),
        }
    }

    /// Waits until the local MTA has `count` mails.
    async fn delivered(&self, count: usize) {
        let waiting = async {
            while self.sink.count() < count as u64 {
                self.clock.sleep(Duration::from_millis(20)).await;
            }
        };
        self.clock.timeout(SOON, waiting).await.unwrap();
    }
}

struct Client {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
}

impl Client {
    /// One exchange on a fresh connection, with the first packet if a session can be resumed; whether that was taken.
    async fn send(&self, port: u16, id: Ulid) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let connecting = self.endpoint.connect_with(self.config.clone(), address, GATEWAY);
        let (connection, taken) = match connecting.unwrap().into_0rtt() {
            Ok((connection, taken)) => (connection, Some(taken)),
            Err(connecting) => (connecting.await.unwrap(), None),
        };
        let quic = h3_quinn::Connection::new(connection.clone());
        let (mut driver, mut sender) = h3::client::new(quic).await.unwrap();
        let request = Request::post(format!("https://{GATEWAY}/inboundmail"))
            .header("content-type", "application/batch-SMTP")
            .header("idempotency-key", format!("\"{id}\""))
            .body(())
            .unwrap();
        let mut stream = sender.send_request(request).await.unwrap();
        stream.send_data(object()).await.unwrap();
        stream.finish().await.unwrap();
        let answer = tokio::select! {
            answer = stream.recv_response() => answer.unwrap(),
            end = driver.wait_idle() => panic!("{end}"),
        };
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        match taken {
            Some(taken) => taken.await,
            None => false,
        }
    }
}

fn object() -> Bytes {
    format!(
        "EHLO {RELAY}\r\nMAIL FROM:<alice@earth.example>\r\nRCPT TO:<bob@moon.example>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
    )
    .into()
}

#[tokio::test]
async fn a_captured_first_flight_delivers_once() {
    let world = World::new().await;
    let (tap, client) = (Tap::start().await, world.client());
    let mut server = world.start().await;
    tap.lead_to(&server);
    assert!(!client.send(tap.port, Ulid::from_parts(1, 1)).await, "cold");
    server.stop().await;
    let sessions = world.folder.path().join("inbox.sessions");
    let unused = std::fs::read(&sessions).unwrap();

    server = world.start().await;
    tap.lead_to(&server);
    assert!(client.send(tap.port, Ulid::from_parts(1, 2)).await, "resumed");
    tap.replay(&server).await;
    // What comes after the replay shows that it was dealt with.
    world
        .client()
        .send(server.https_address().port(), Ulid::from_parts(1, 3))
        .await;
    world.delivered(3).await;
    server.stop().await;

    // As after a crash: the file does not know yet that the session was used.
    std::fs::write(&sessions, &unused).unwrap();
    server = world.start().await;
    tap.replay(&server).await;
    world
        .client()
        .send(server.https_address().port(), Ulid::from_parts(1, 4))
        .await;
    world.delivered(4).await;
    server.stop().await;
    assert_eq!(world.sink.count(), 4, "nothing twice");
    // The replay was heard: of the eight sessions then and the eight since, one is used.
    let after = std::fs::read(&sessions).unwrap().len();
    let one = unused.len() / 8;
    assert!(after + one / 2 < 2 * unused.len(), "{after} {}", unused.len());
}
