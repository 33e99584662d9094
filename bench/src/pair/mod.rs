//! The shipped agent and the shipped gateway, an interplanetary distance apart.
//!
//! Both are started by the functions that the binary calls, with configuration files that are written and read, certificates
//! and databases in a folder. Only the clock and the UDP socket are others. Times are those of the programs' own histories.

pub(crate) mod config;
pub(crate) mod hand_in;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use lightpost_client::Client;
use lightpost_clock::{Clock, until};
use lightpost_queue::{Filter, MessageView, Store};
use lightpost_server::Server;
use lightpost_sim::{Sink, Space, UdpLink, link::DirectionOptions, sink::SinkOptions, udp::LinkStats};
use lightpost_transport::quic::net::{Kernel, Net};
use tempfile::TempDir;
use tokio::net::TcpListener;

use self::config::{Papers, path_section};
pub use self::hand_in::mail;
use crate::Result;

/// Any free port of this machine.
pub(crate) const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// A disk that takes no time to sync; where time is virtual the disk's speed does not count.
const FAST_DISK: &str = "/dev/shm";

/// How far apart, and what lies between.
#[derive(Clone, Debug)]
pub struct Distance {
    /// One-way light time.
    pub owlt: Duration,
    /// Bits per second, both ways.
    pub rate: u64,
    /// Which part of the datagrams is lost, both ways, 0 to 1.
    pub loss: f64,
    /// The longest outage that the configuration tells the programs of.
    pub outage: Duration,
    /// What is lost follows from it.
    pub seed: u64,
    /// Further lines of both configurations' `[path.…]`, such as `redundancy = "none"`.
    pub extra: String,
}

impl Distance {
    /// A clean link of 1 Mbit/s.
    pub fn new(owlt: Duration) -> Self {
        Self {
            owlt,
            rate: 1_000_000,
            loss: 0.0,
            outage: Duration::ZERO,
            seed: 1,
            extra: String::new(),
        }
    }

    /// Spans as light times.
    pub fn in_owlt(&self, span: Duration) -> f64 {
        span.as_secs_f64() / self.owlt.as_secs_f64()
    }

    /// How long `octets` take to be sent.
    pub fn sending(&self, octets: u64) -> Duration {
        Duration::from_secs_f64(octets as f64 * 8.0 / self.rate as f64)
    }

    fn direction(&self) -> DirectionOptions {
        DirectionOptions {
            owlt: self.owlt,
            rate: Some(self.rate),
            loss: self.loss,
            queue: 1 << 30,
            ..DirectionOptions::default()
        }
    }
}

/// What became of one mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Journey {
    /// When it was on disk at the agent.
    pub accepted: Timestamp,
    /// When it was on disk at the gateway.
    pub arrived: Timestamp,
    /// When the agent had the gateway's reply.
    pub replied: Timestamp,
}

impl Journey {
    /// From disk to disk.
    pub fn there(&self) -> Duration {
        until(self.accepted, self.arrived)
    }

    /// From disk to the reply.
    pub fn there_and_back(&self) -> Duration {
        until(self.accepted, self.replied)
    }
}

/// Both programs, the space between them and a mail server behind each.
pub struct Pair {
    /// Their time.
    pub clock: Clock,
    /// What lies between them, where that is virtual.
    pub space: Option<Space>,
    /// Their distance.
    pub distance: Distance,
    /// The far mail server.
    pub mailbox: Sink,
    client: Option<Client>,
    server: Option<Server>,
    gateway: SocketAddr,
    papers: Papers,
    mails: u64,
    nets: Nets,
    /// The link in real time.
    link: Option<UdpLink>,
    earth: Sink,
    folder: TempDir,
}

/// The networks of both.
struct Nets {
    earth: Box<dyn Net>,
    far: Box<dyn Net>,
}

impl Pair {
    /// Starts both in virtual time, on Thursday 2026-01-01; see [`crate::in_virtual_time`].
    ///
    /// # Errors
    /// Whatever does not start.
    pub async fn start(distance: Distance) -> Result<Self> {
        let base = "2026-01-01T00:00:00Z".parse().unwrap_or(Timestamp::UNIX_EPOCH);
        let clock = Clock::runtime(base);
        let space = Space::even(distance.direction(), distance.seed, clock.clone());
        let nets = Nets {
            earth: Box::new(space.earth()),
            far: Box::new(space.far()),
        };
        let mut pair = Self::assemble(distance, clock, nets, Some(space)).await?;
        pair.start_server().await?;
        pair.start_client().await?;
        Ok(pair)
    }

    /// Starts both in real time, with a forwarder between two sockets of the kernel.
    ///
    /// # Errors
    /// Whatever does not start.
    pub async fn start_in_real_time(distance: Distance) -> Result<Self> {
        let nets = Nets {
            earth: Box::new(Kernel),
            far: Box::new(Kernel),
        };
        let mut pair = Self::assemble(distance, Clock::system(), nets, None).await?;
        pair.start_server().await?;
        let direction = pair.distance.direction();
        let link = UdpLink::start_with(
            ANYWHERE,
            pair.gateway,
            (direction.clone(), direction),
            pair.distance.seed,
            pair.clock.clone(),
        );
        pair.link = Some(link.await.map_err(|error| format!("the link: {error}"))?);
        pair.start_client().await?;
        Ok(pair)
    }

    async fn assemble(distance: Distance, clock: Clock, nets: Nets, space: Option<Space>) -> Result<Self> {
        let mut folder = tempfile::Builder::new();
        folder.prefix("lightpost-bench-");
        let folder = match space.is_some() && Path::new(FAST_DISK).is_dir() {
            true => folder.tempdir_in(FAST_DISK),
            false => folder.tempdir(),
        };
        let folder = folder.map_err(|error| format!("no temporary folder: {error}"))?;
        let papers = Papers::issue(folder.path())?;
        Ok(Self {
            mailbox: sink(&clock).await?,
            earth: sink(&clock).await?,
            clock,
            space,
            distance,
            client: None,
            server: None,
            gateway: ANYWHERE,
            papers,
            mails: 0,
            nets,
            link: None,
            folder,
        })
    }

    fn path(&self) -> String {
        let Distance {
            owlt,
            outage,
            rate,
            extra,
            ..
        } = &self.distance;
        // The text of the mails is random: compressing it would make sizes depend on how.
        path_section(*owlt, *outage, *rate) + extra
    }

    /// Starts the gateway, on the port that it had before.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_server(&mut self) -> Result<()> {
        let config = self
            .papers
            .server(self.gateway, self.mailbox.address(), &self.path())?;
        let _hold = self.clock.hold();
        let server = Server::start_on(config, self.clock.clone(), &*self.nets.far)
            .await
            .map_err(|error| error.to_string())?;
        self.gateway = server.https_address();
        self.server = Some(server);
        Ok(())
    }

    /// Starts the agent.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_client(&mut self) -> Result<()> {
        let gateway = self.link.as_ref().map_or(self.gateway, UdpLink::address);
        let config = self
            .papers
            .client(ANYWHERE, gateway, self.earth.address(), &self.path())?;
        let _hold = self.clock.hold();
        let client = Client::start_on(config, self.clock.clone(), &*self.nets.earth)
            .await
            .map_err(|error| error.to_string())?;
        self.client = Some(client);
        Ok(())
    }

    /// Ends the agent as SIGKILL does: nothing of it is heard any more.
    pub async fn kill_client(&mut self) {
        if let Some(space) = &self.space {
            space.earth().unplug();
        }
        drop(self.client.take());
        tokio::task::yield_now().await;
    }

    /// Ends the gateway as SIGKILL does: nothing of it is heard any more.
    pub async fn kill_server(&mut self) {
        if let Some(space) = &self.space {
            space.far().unplug();
        }
        drop(self.server.take());
        tokio::task::yield_now().await;
    }

    /// Stops the agent as the system's manager does.
    pub async fn stop_client(&mut self) {
        if let Some(client) = self.client.take() {
            client.stop().await;
        }
        // With the process its socket ends.
        if let Some(space) = &self.space {
            space.earth().unplug();
        }
    }

    /// Stops the gateway as the system's manager does.
    pub async fn stop_server(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        if let Some(space) = &self.space {
            space.far().unplug();
        }
    }

    /// Where the database and configuration files lie.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Hands a mail to the agent by REST; [`Pair::journey`] of the number returned tells what became of it. Handing over takes
    /// no virtual time.
    ///
    /// # Errors
    /// When the agent does not run or does not take it.
    pub async fn hand_in(&mut self, mail: &Bytes) -> Result<u64> {
        let client = self.client.as_ref().ok_or("the agent does not run")?;
        let ingest = client.ingest_address().ok_or("the agent listens nowhere")?;
        self.mails += 1;
        let _hold = self.clock.hold();
        hand_in::post(ingest, &sender(self.mails), mail.clone()).await?;
        Ok(self.mails)
    }

    /// Waits, for at most `within`, until the reply to a mail has come, and tells its times.
    ///
    /// # Errors
    /// When it does not come in time or the mail was given up.
    pub async fn journey(&self, number: u64, within: Duration) -> Result<Journey> {
        let look = self.distance.owlt / 4;
        let start = self.clock.now();
        loop {
            if let Some(journey) = self.look(number).await? {
                return Ok(journey);
            }
            if until(start, self.clock.now()) > within {
                return Err(format!(
                    "mail {number} has no reply after {:.1} light times; its history: {}",
                    self.distance.in_owlt(within),
                    self.history(number).await
                ));
            }
            self.clock.sleep(look).await;
        }
    }

    /// Waits, for at most `within`, until a mail is on disk at the gateway; when it was.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn arrival(&self, number: u64, within: Duration) -> Result<Timestamp> {
        let start = self.clock.now();
        loop {
            if let Some(at) = self.arrived(number).await? {
                return Ok(at);
            }
            if until(start, self.clock.now()) > within {
                return Err(format!("mail {number} did not arrive"));
            }
            self.clock.sleep(self.distance.owlt / 4).await;
        }
    }

    /// A mail from nothing to the reply, for at most 100 light times and the configured outage.
    ///
    /// # Errors
    /// When it is not taken, or has no reply.
    pub async fn send(&mut self, mail: &Bytes) -> Result<Journey> {
        let number = self.hand_in(mail).await?;
        let sending = self.distance.sending(mail.len() as u64);
        let within = self.distance.owlt * 100 + self.distance.outage * 2 + sending * 4;
        self.journey(number, within).await
    }

    /// What the link has carried so far.
    pub fn carried(&self) -> LinkStats {
        let space = self.space.as_ref().map(Space::stats);
        let link = self.link.as_ref().map(UdpLink::stats);
        space.or(link).unwrap_or_default()
    }

    /// Cuts the link for `span`: what is sent meanwhile is lost.
    pub async fn cut(&self, span: Duration) {
        let Some(space) = &self.space else { return };
        space.filter(Some(Box::new(|_, _| false)));
        self.clock.sleep(span).await;
        space.filter(None);
    }

    /// Lets time pass until nothing is under way any more.
    pub async fn settle(&self) {
        self.clock.sleep(self.distance.owlt * 10).await;
    }

    /// The agent's history of a mail, for whoever has to find out why it did not arrive.
    async fn history(&self, number: u64) -> String {
        let Some(client) = &self.client else {
            return "the agent does not run".into();
        };
        match find(&**client.store(), number).await {
            Ok(Some(message)) => {
                let lines = message
                    .history
                    .iter()
                    .map(|it| format!("{} {} {}", it.at, it.kind, it.detail));
                lines.collect::<Vec<_>>().join("; ")
            }
            Ok(None) => "none".into(),
            Err(cause) => cause,
        }
    }

    async fn look(&self, number: u64) -> Result<Option<Journey>> {
        let Some(client) = &self.client else {
            return Err("the agent does not run".into());
        };
        let Some(message) = find(&**client.store(), number).await? else {
            return Err(format!("the agent does not know mail {number}"));
        };
        let Some(replied) = when(&message, "delivered") else {
            if let Some(end) = message
                .history
                .iter()
                .find(|it| it.kind == "failed" || it.kind == "expired")
            {
                return Err(format!("mail {number} {}: {}", end.kind, end.detail));
            }
            return Ok(None);
        };
        let arrived = self.arrived(number).await?;
        let arrived = arrived.ok_or_else(|| format!("mail {number} is acknowledged and not there"))?;
        Ok(Some(Journey {
            accepted: message.accepted,
            arrived,
            replied,
        }))
    }

    async fn arrived(&self, number: u64) -> Result<Option<Timestamp>> {
        let Some(server) = &self.server else {
            return Ok(None);
        };
        let found = find(&*server.store(), number).await?;
        Ok(found.map(|message| message.accepted))
    }

    /// The authority's certificate and the gateway's certificate and key, for other programs on the same link.
    pub(crate) fn papers(&self) -> (&Path, (&Path, &Path)) {
        (self.papers.authority(), self.papers.gateway())
    }
}

pub(crate) fn sender(number: u64) -> String {
    format!("m{number}@earth.example")
}

pub(crate) async fn find(store: &dyn Store, number: u64) -> Result<Option<MessageView>> {
    let filter = Filter {
        sender: Some(sender(number)),
        limit: 2,
        ..Filter::default()
    };
    let found = store.list(filter).await.map_err(|error| error.to_string())?;
    let [only] = &found[..] else {
        return match found.is_empty() {
            true => Ok(None),
            false => Err(format!("mail {number} is there more than once")),
        };
    };
    store.message(only.id).await.map_err(|error| error.to_string())
}

fn when(message: &MessageView, kind: &str) -> Option<Timestamp> {
    let event = message.history.iter().find(|event| event.kind == kind)?;
    Some(event.at)
}

pub(crate) async fn sink(clock: &Clock) -> Result<Sink> {
    let failed = |error: std::io::Error| format!("a mail server: {error}");
    let listener = TcpListener::bind(ANYWHERE).await.map_err(failed)?;
    let options = SinkOptions {
        keep_bodies: false,
        ..SinkOptions::default()
    };
    Sink::start(listener, options, clock.clone()).map_err(failed)
}
