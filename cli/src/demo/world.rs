//! The demo's world: two programs with real configuration files, and what stands around them.

use std::{
    fmt::Display,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use lightpost_client::Client;
use lightpost_clock::Clock;
use lightpost_server::Server;
use lightpost_sim::{
    Dns, Pki, Sink, TcpLink, UdpLink,
    dns::{Data, Zone},
    sink::SinkOptions,
    tcp::TcpLinkOptions,
    udp::LinkOptions,
};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::{
    args::{Carrier, Demo},
    check,
    failure::{Failure, code},
    profile::rate,
    serve::{client_failure, server_failure},
};

const GATEWAY: &str = "gw1.moon.example";
const AGENT: &str = "relay.earth.example";
/// Any free port of this machine.
const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// All that runs.
pub(super) struct World {
    /// The agent.
    pub(super) client: Client,
    /// The gateway.
    pub(super) server: Server,
    /// The mail server on the far side.
    pub(super) mailbox: Sink,
    /// Where mail is handed over.
    pub(super) ingest: SocketAddr,
    folder: TempDir,
    _earth: Sink,
    _link: UdpLink,
    _streams: Option<Streams>,
    _dns: Dns,
}

/// The way of bundles, there and back.
struct Streams {
    up: TcpLink,
    down: TcpLink,
}

impl Streams {
    async fn start(options: &Demo, clock: &Clock) -> Result<Self, Failure> {
        let link = TcpLinkOptions {
            owlt: options.owlt,
            rate: Some(options.rate.0 as u64),
        };
        let start = || TcpLink::start(ANYWHERE, link, clock.clone());
        let (up, down) = (start().await, start().await);
        let (Ok(up), Ok(down)) = (up, down) else {
            return Err(broken("the link", &"no port is free"));
        };
        Ok(Self { up, down })
    }
}

impl World {
    /// Starts everything, from the far side to this one.
    ///
    /// # Errors
    /// Whatever cannot be started.
    pub(super) async fn start(options: &Demo, clock: &Clock) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("lightpost-demo-")
            .tempdir()
            .map_err(|error| broken("a temporary folder", &error))?;
        let pki = Pki::new(folder.path()).map_err(|error| broken("certificates", &error))?;
        let gateway = pki
            .issue(GATEWAY)
            .map_err(|error| broken("certificates", &error))?;
        let agent = pki.issue(AGENT).map_err(|error| broken("certificates", &error))?;
        let mailbox = sink(clock).await?;
        let earth = sink(clock).await?;
        let path = path_section(options);
        let streams = match options.transport {
            Carrier::Bundle => Some(Streams::start(options, clock).await?),
            Carrier::Quic => None,
        };

        let file = folder.path().join("server.toml");
        let bundles = streams
            .as_ref()
            .map(|streams| bundle_section("ipn:2.25", "moon-bundles", streams.down.address(), "ipn:1.*"));
        let text = server_config(&pki, &gateway, mailbox.address(), &path, bundles.as_deref());
        write(&file, &text)?;
        let config = lightpost_server::Config::load(&file).map_err(|problems| check::failure(&problems))?;
        let server = Server::start(config, clock.clone())
            .await
            .map_err(|error| server_failure(&error))?;

        let link = UdpLink::start(
            ANYWHERE,
            server.https_address(),
            link_options(options),
            clock.clone(),
        )
        .await
        .map_err(|error| broken("the link", &error))?;
        let dns = Dns::start(ANYWHERE, &zone(link.address()))
            .await
            .map_err(|error| broken("the name server", &error))?;

        let file = folder.path().join("client.toml");
        let bundles = streams
            .as_ref()
            .map(|streams| bundle_section("ipn:1.26", "earth-bundles", streams.up.address(), "ipn:2.*"));
        let text = client_config(
            &pki,
            &agent,
            earth.address(),
            dns.address(),
            &path,
            bundles.as_deref(),
        );
        write(&file, &text)?;
        let config = lightpost_client::Config::load(&file).map_err(|problems| check::failure(&problems))?;
        let client = Client::start(config, clock.clone())
            .await
            .map_err(|error| client_failure(&error))?;
        if let (Some(streams), Some(near), Some(far)) = (
            &streams,
            client.bundle_addresses().first(),
            server.bundle_addresses().first(),
        ) {
            streams.up.lead_to(*far);
            streams.down.lead_to(*near);
        }
        let ingest = client
            .ingest_address()
            .ok_or_else(|| Failure::new(code::SOFTWARE, "the agent listens nowhere", "report this"))?;
        Ok(Self {
            client,
            server,
            mailbox,
            ingest,
            folder,
            _earth: earth,
            _link: link,
            _streams: streams,
            _dns: dns,
        })
    }

    /// Where everything lies.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops everything.
    pub(super) async fn stop(self) {
        self.client.stop().await;
        self.server.stop().await;
    }
}

fn broken(what: &str, error: &dyn Display) -> Failure {
    Failure::new(
        code::OSERR,
        format!("{what} cannot be made: {error}"),
        "the demo needs UDP and TCP on 127.0.0.1 and a writable temporary folder",
    )
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text).map_err(|error| broken(&file.display().to_string(), &error))
}

async fn sink(clock: &Clock) -> Result<Sink, Failure> {
    let listener = TcpListener::bind(ANYWHERE)
        .await
        .map_err(|error| broken("a mail server", &error))?;
    let options = SinkOptions {
        name: "mx.moon.example".into(),
        ..SinkOptions::default()
    };
    Sink::start(listener, options, clock.clone()).map_err(|error| broken("a mail server", &error))
}

fn link_options(options: &Demo) -> LinkOptions {
    let rate = options.rate.0 as u64;
    LinkOptions {
        owlt: options.owlt,
        rate_up: Some(rate),
        rate_down: Some(rate),
        loss: options.loss,
        // Another run loses other packets.
        seed: ulid::Ulid::generate().random() as u64,
        ..LinkOptions::default()
    }
}

/// The zone of the far side, as an authoritative server on Earth has it.
fn zone(gateway: SocketAddr) -> Zone {
    Zone {
        origin: "moon.example".into(),
        ttl: 3600,
        records: vec![
            (
                "_bsmtp._https.moon.example".into(),
                Data::Uri {
                    priority: 10,
                    weight: 1,
                    target: format!("https://{GATEWAY}:{}/inboundmail", gateway.port()),
                },
            ),
            (GATEWAY.into(), Data::A(Ipv4Addr::LOCALHOST)),
        ],
    }
}

fn path_section(options: &Demo) -> String {
    let owlt = format!("{}s", options.owlt.as_secs_f64());
    let rate = rate(options.rate.0);
    format!(
        "one_way_min = \"{owlt}\"\none_way_max = \"{owlt}\"\noutage_max = \"0s\"\nrate_up = \"{rate}\"\nrate_down = \"{rate}\"\n"
    )
}

/// A node that its neighbour is far from: STCP, which waits for nothing.
fn bundle_section(endpoint: &str, store: &str, other: SocketAddr, routes: &str) -> String {
    format!(
        "
[bundle]
endpoint = \"{endpoint}\"
store = \"{store}\"

[[bundle.listen]]
address = \"127.0.0.1:0\"
framing = \"stcp\"

[bundle.neighbour.other]
address = \"{other}\"
framing = \"stcp\"
routes = [\"{routes}\"]
"
    )
}

type Identity = (PathBuf, PathBuf);

fn server_config(
    pki: &Pki,
    (certificate, key): &Identity,
    mailbox: SocketAddr,
    path: &str,
    bundles: Option<&str>,
) -> String {
    let endpoints = bundles.map_or("", |_| "endpoints = [\"ipn:1.26\"]\n");
    let bundles = bundles.unwrap_or_default();
    format!(
        "name = \"{GATEWAY}\"
database = \"inbox.db\"

[listen]
https = \"127.0.0.1:0\"
endpoint = \"/inboundmail\"
certificate = {certificate:?}
key = {key:?}
client_trust = {trust:?}

[accept]
domains = [\"moon.example\"]

[[peer]]
name = \"{AGENT}\"
senders = [\"*\"]
{endpoints}
[local]
address = \"{mailbox}\"
protocol = \"smtp\"
starttls = \"off\"
postmaster = \"postmaster@moon.example\"

[admin]
listen = \"127.0.0.1:0\"

[path.earth]
{path}{bundles}",
        trust = pki.authority(),
    )
}

fn client_config(
    pki: &Pki,
    (certificate, key): &Identity,
    local: SocketAddr,
    resolver: SocketAddr,
    path: &str,
    bundles: Option<&str>,
) -> String {
    let (transports, gateways) = match bundles {
        Some(_) => ("transports = [\"bundle\"]\n", "gateways = [\"ipn:2.25\"]\n"),
        None => ("", ""),
    };
    let bundles = bundles.unwrap_or_default();
    format!(
        "name = \"{AGENT}\"
database = \"outbox.db\"

[ingest]
listen = \"127.0.0.1:0\"

[resolver]
servers = [\"{resolver}\"]
cache = \"dns-cache.json\"

[local]
address = \"{local}\"
protocol = \"smtp\"
starttls = \"off\"
postmaster = \"postmaster@earth.example\"

[tls]
trust = {trust:?}
certificate = {certificate:?}
key = {key:?}

[path.moon]
{path}{transports}
[[route]]
domain = \"moon.example\"
path = \"moon\"
{gateways}{bundles}",
        trust = pki.authority(),
    )
}
