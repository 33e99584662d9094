//! Both programs as processes of their own, in time that runs faster than the host's: a Mars day in a minute, with kills.
//!
//! The processes are this program again ([`Role::run`]), so that they can be given a clock; from there on everything is
//! [`Client::start_on`] and [`Server::start_on`].

use std::{
    io::Write,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use lightpost_client::Client;
use lightpost_clock::Clock;
use lightpost_queue::sqlite::SqliteStore;
use lightpost_server::Server;
use lightpost_sim::{Sink, UdpLink, link::DirectionOptions, net::WarpedKernel, sink::Received};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::{
    Result,
    pair::{
        ANYWHERE, Distance,
        config::{CLIENT, Papers, SERVER, path_section},
        find, hand_in, mail, sender, sink,
    },
};

/// One of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The agent.
    Client,
    /// The gateway.
    Server,
}

/// A clock that several processes share.
#[derive(Clone, Copy, Debug)]
pub struct Warp {
    /// What it read at the anchor.
    pub base: Timestamp,
    /// The host's time then.
    pub anchor: Timestamp,
    /// How much faster it runs.
    pub factor: u32,
}

impl Warp {
    /// From now on.
    pub fn new(factor: u32) -> Self {
        let now = Clock::system().now();
        Self {
            base: now,
            anchor: now,
            factor,
        }
    }

    /// The clock.
    pub fn clock(&self) -> Clock {
        Clock::warp(self.base, self.anchor, self.factor)
    }
}

impl Role {
    /// Runs the program until the process is killed.
    ///
    /// # Errors
    /// When it does not start.
    pub fn run(self, folder: &Path, warp: Warp) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| format!("the system refuses a runtime: {error}"))?;
        runtime.block_on(async {
            let clock = warp.clock();
            let net = WarpedKernel::new(clock.clone());
            match self {
                Self::Client => {
                    let config = lightpost_client::Config::load(&folder.join(CLIENT));
                    let config = config.map_err(|problems| problems.to_string())?;
                    let client = Client::start_on(config, clock, &net).await;
                    let _client = client.map_err(|error| error.to_string())?;
                    serve_for_ever().await
                }
                Self::Server => {
                    let config = lightpost_server::Config::load(&folder.join(SERVER));
                    let config = config.map_err(|problems| problems.to_string())?;
                    let server = Server::start_on(config, clock, &net).await;
                    let _server = server.map_err(|error| error.to_string())?;
                    serve_for_ever().await
                }
            }
        })
    }
}

async fn serve_for_ever() -> Result<()> {
    writeln!(std::io::stdout(), "ready").map_err(|error| format!("standard output: {error}"))?;
    std::future::pending().await
}

/// A process that is killed, as by SIGKILL, when this is dropped.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Both programs, the link between them and the far mail server.
pub struct Apart {
    /// Their time.
    pub clock: Clock,
    warp: Warp,
    program: PathBuf,
    folder: TempDir,
    ingest: SocketAddr,
    client: Option<Process>,
    server: Option<Process>,
    mailbox: mpsc::Receiver<Arc<Received>>,
    link: UdpLink,
    _sinks: [Sink; 2],
}

impl Apart {
    /// Starts both. `program` is called as `program role client|server FOLDER BASE ANCHOR FACTOR` and is to call [`Role::run`]. Spans in
    /// `up` and `down` are of the warped clock, from now on.
    ///
    /// # Errors
    /// Whatever does not start.
    pub async fn start(
        program: PathBuf,
        warp: Warp,
        distance: &Distance,
        (up, down): (DirectionOptions, DirectionOptions),
    ) -> Result<Self> {
        let clock = warp.clock();
        let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
        let papers = Papers::issue(folder.path())?;
        let (ingest, gateway) = (free_address()?, free_address()?);
        let (far, earth) = (sink(&clock).await?, sink(&clock).await?);
        let link = UdpLink::start_with(ANYWHERE, gateway, (up, down), distance.seed, clock.clone());
        let link = link.await.map_err(|error| format!("the link: {error}"))?;
        let path = path_section(distance.owlt, distance.outage, distance.rate) + &distance.extra;
        papers.server(gateway, far.address(), &path)?;
        papers.client(ingest, link.address(), earth.address(), &path)?;
        let mut apart = Self {
            clock,
            warp,
            program,
            folder,
            ingest,
            client: None,
            server: None,
            mailbox: far.subscribe(100_000),
            link,
            _sinks: [far, earth],
        };
        apart.restart(Role::Server)?;
        apart.restart(Role::Client)?;
        Ok(apart)
    }

    /// Kills a program with SIGKILL, if it runs, and starts it again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self, role: Role) -> Result<()> {
        self.kill(role);
        let name = match role {
            Role::Client => "client",
            Role::Server => "server",
        };
        let child = Command::new(&self.program)
            .args(["role", name])
            .arg(self.folder.path())
            .arg(self.warp.base.to_string())
            .arg(self.warp.anchor.to_string())
            .arg(self.warp.factor.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        *self.process(role) = Some(Process(child));
        Ok(())
    }

    /// Kills a program with SIGKILL.
    pub fn kill(&mut self, role: Role) {
        drop(self.process(role).take());
    }

    fn process(&mut self, role: Role) -> &mut Option<Process> {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    /// Hands mail `number` over, again until it is acknowledged: the agent may be killed meanwhile or not listen yet.
    ///
    /// # Errors
    /// When it is not acknowledged within `tries` tries, 50 ms apart.
    pub async fn hand_in(&self, number: u64, size: usize, tries: u32) -> Result<()> {
        let mail = mail(size, number);
        let mut last = Ok(());
        for _ in 0..tries {
            last = hand_in::post(self.ingest, &sender(number), mail.clone()).await;
            if last.is_ok() {
                break;
            }
            Clock::system().sleep(Duration::from_millis(50)).await;
        }
        last
    }

    /// The next mail that the far mail server takes: its number; nothing when none comes within `span` of warped time.
    pub async fn next_delivered(&mut self, span: Duration) -> Option<u64> {
        let mail = self.clock.timeout(span, self.mailbox.recv()).await.ok()??;
        let address = mail.sender.path.address()?.to_string();
        address.strip_prefix('m')?.split('@').next()?.parse().ok()
    }

    /// Kills both and looks into the gateway's database: an error for a mail that is not there exactly once.
    ///
    /// # Errors
    /// Names the first such mail.
    pub async fn audit(&mut self, numbers: impl Iterator<Item = u64>) -> Result<()> {
        self.kill(Role::Client);
        self.kill(Role::Server);
        let inbox = self.folder.path().join("inbox.db");
        let store = SqliteStore::open(&inbox, Clock::system())
            .await
            .map_err(|error| error.to_string())?;
        for number in numbers {
            if find(&store, number).await?.is_none() {
                return Err(format!(
                    "mail {number} was acknowledged and is not at the gateway"
                ));
            }
        }
        Ok(())
    }

    /// What the link carried.
    pub fn carried(&self) -> lightpost_sim::udp::LinkStats {
        self.link.stats()
    }
}

fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind(ANYWHERE).map_err(|error| format!("no free port: {error}"))?;
    listener
        .local_addr()
        .map_err(|error| format!("no free port: {error}"))
}
