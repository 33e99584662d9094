//! The running client.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use lightpost_bundles::Bundles;
use lightpost_clock::Clock;
use lightpost_intake::{Reporter, notify::delays::Delays};
use lightpost_mail::Address;
use lightpost_queue::{
    Store, StoreError,
    sqlite::{DatabaseLock, SqliteStore},
};
use lightpost_smtp::{
    receive::{Listener, serve},
    send::Protocol,
};
use lightpost_transport::{
    Transport,
    bundle::client::BundleTransport,
    quic::{
        client::{QuicTransport, Settings},
        net::{Kernel, Net},
    },
    tls::TlsError,
    ways::Ways,
    web::{Plain, serve_plain},
};
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    accept::Acceptance,
    config::{Config, PathSettings, Receive},
    discover::{Discovery, ResolverError},
    dispatch, housekeeping, ingest,
    ingest::smtp::Door,
    screen::Screen,
};

/// How long running requests may take when the client is stopped.
const GRACE: Duration = Duration::from_secs(8);

/// Why the client does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The outbox.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The resolver.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// The bundle node.
    #[error(transparent)]
    Bundles(#[from] lightpost_bundles::StartError),
    /// Certificates, keys, or the transport's socket.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// A running client: ingestion, dispatch, housekeeping. Stops only by [`Client::stop`]; dropped, its tasks are aborted.
pub struct Client {
    store: Arc<dyn Store>,
    discovery: Arc<Discovery>,
    address: Option<SocketAddr>,
    sockets: Vec<PathBuf>,
    quic: Option<Arc<QuicTransport>>,
    bundles: Option<Bundles>,
    clock: Clock,
    accepting: CancellationToken,
    sending: CancellationToken,
    listeners: JoinSet<()>,
    workers: JoinSet<()>,
    // Goes last.
    lock: DatabaseLock,
}

impl Client {
    /// Starts with the transport over QUIC.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        Self::start_on(config, clock, &Kernel).await
    }

    /// As [`Client::start`], with QUIC on another network than the kernel's.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start_on(config: Config, clock: Clock, net: &dyn Net) -> Result<Self, StartError> {
        let config = Arc::new(config);
        // Before anything is bound or opened: a program that is just ending is waited for.
        let lock = DatabaseLock::take(&config.database, &clock).await?;
        let discovery = Arc::new(Discovery::new(&config, clock.clone())?);
        let settings = Settings {
            trust: config.tls.trust.clone(),
            identity: config.tls.identity.clone(),
            paths: config.paths.values().map(|path| path.path.clone()).collect(),
            sessions: config.sessions.clone(),
        };
        let quic = QuicTransport::new_on(net, settings, discovery.clone(), clock.clone())?;
        let quic = Arc::new(quic);
        let bundles = match &config.bundle {
            Some(settings) => Some(settings.open(clock.clone()).await?),
            None => None,
        };
        let transport: Arc<dyn Transport> = match &bundles {
            Some(bundles) => Arc::new(ways(&config, quic.clone(), bundles, &clock)),
            None => quic.clone(),
        };
        let mut client = Self::assemble(config, lock, clock, discovery, transport).await?;
        client.quic = Some(quic);
        client.bundles = bundles;
        Ok(client)
    }

    /// Starts with another transport.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start_with(
        config: Config,
        clock: Clock,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let lock = DatabaseLock::take(&config.database, &clock).await?;
        let discovery = Arc::new(Discovery::new(&config, clock.clone())?);
        Self::assemble(config, lock, clock, discovery, transport).await
    }

    async fn assemble(
        config: Arc<Config>,
        lock: DatabaseLock,
        clock: Clock,
        discovery: Arc<Discovery>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StartError> {
        let local = config.local.target()?;
        let screen = Screen::new(&config, &clock)?;
        let tcp = match config.ingest.listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let unix = match &config.ingest.socket {
            Some(path) => Some(listen_unix(path).await?),
            None => None,
        };
        let receiving = receiving(&config).await?;
        let address = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&config.database, clock.clone()).await?);
        take_up(&*store, &config.name, clock.now()).await?;
        let (accepting, sending) = (CancellationToken::new(), CancellationToken::new());
        let mut workers = JoinSet::new();
        let reporter = reporter(&config, &store);
        let gateways = Arc::new(dispatch::Gateways::default());
        workers.spawn(dispatch::run(dispatch::Parts {
            reporter: reporter.clone(),
            gateways: gateways.clone(),
            config: config.clone(),
            store: store.clone(),
            discovery: discovery.clone(),
            transport,
            local,
            clock: clock.clone(),
            stop: sending.clone(),
        }));
        keep_house(&mut workers, &config, &store, &discovery, &clock, &sending);
        tell_delays(&mut workers, reporter, &config, &discovery, &clock, &sending);
        let acceptance = Arc::new(Acceptance {
            config: config.clone(),
            store: store.clone(),
            discovery: discovery.clone(),
            clock: clock.clone(),
            screen,
        });
        let router = ingest::router(acceptance.clone(), gateways);
        let mut listeners = JoinSet::new();
        for plain in tcp.map(Plain::Tcp).into_iter().chain(unix.map(Plain::Unix)) {
            listeners.spawn(serve_plain(
                plain,
                router.clone(),
                clock.clone(),
                accepting.clone(),
            ));
        }
        if let Some(address) = address {
            tracing::info!(%address, "ingest listening");
        }
        if let Some(socket) = &config.ingest.socket {
            tracing::info!(socket = %socket.display(), "ingest listening");
        }
        for one in receiving {
            listeners.spawn(one.serve(acceptance.clone(), accepting.clone()));
        }
        let receivers = [&config.smtp, &config.lmtp].into_iter().flatten();
        let sockets = receivers.filter_map(|receive| receive.socket.clone());
        Ok(Self {
            store,
            discovery,
            address,
            sockets: sockets.chain(config.ingest.socket.clone()).collect(),
            quic: None,
            bundles: None,
            clock,
            accepting,
            sending,
            listeners,
            workers,
            lock,
        })
    }

    /// Where ingestion listens on TCP.
    pub fn ingest_address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Where bundles come in, in the order of the configuration.
    pub fn bundle_addresses(&self) -> &[SocketAddr] {
        self.bundles.as_ref().map_or(&[], Bundles::addresses)
    }

    /// The outbox.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// How next hops are found.
    pub fn discovery(&self) -> &Arc<Discovery> {
        &self.discovery
    }

    /// Stops accepting, lets running requests and exchanges end for a few seconds, closes the outbox. Exchanges without a reply stay
    /// open and are repeated after the next start.
    pub async fn stop(mut self) {
        self.accepting.cancel();
        self.sending.cancel();
        for tasks in [&mut self.listeners, &mut self.workers] {
            let ended = async { while tasks.join_next().await.is_some() {} };
            if self.clock.timeout(GRACE, ended).await.is_err() {
                tracing::info!("what still runs is ended");
                tasks.shutdown().await;
            }
        }
        if let Some(quic) = &self.quic {
            quic.close().await;
        }
        if let Some(bundles) = &self.bundles {
            bundles.close().await;
        }
        for socket in &self.sockets {
            // A socket that is gone already is as good.
            let _ = std::fs::remove_file(socket);
        }
        self.store.close().await;
        drop(self.lock);
    }
}

/// Who writes notifications here.
fn reporter(config: &Config, store: &Arc<dyn Store>) -> Reporter {
    let from = Address::parse(&format!("MAILER-DAEMON@{}", config.name));
    Reporter {
        store: store.clone(),
        name: config.name.clone(),
        // The name is that of a host, so this is an address.
        from: from.unwrap_or_else(|_| config.local.postmaster.clone()),
        postmaster: config.local.postmaster.clone(),
        lifetime: config.local.lifetime,
    }
}

/// Starts telling senders of late mail.
fn tell_delays(
    workers: &mut JoinSet<()>,
    reporter: Reporter,
    config: &Arc<Config>,
    discovery: &Arc<Discovery>,
    clock: &Clock,
    stop: &CancellationToken,
) {
    let shortest = config
        .paths
        .values()
        .filter_map(|path| path.notices(0).after)
        .min();
    let (config, discovery) = (config.clone(), discovery.clone());
    let notices = move |destination: &str, octets| {
        let path = &discovery.route(destination)?.path;
        Some(config.paths.get(path)?.notices(octets))
    };
    let delays = Delays::new(
        reporter,
        clock.clone(),
        shortest.unwrap_or(Duration::MAX),
        notices,
    );
    workers.spawn(delays.run(stop.clone()));
}

/// Both transports, by each path's rules.
fn ways(config: &Config, quic: Arc<QuicTransport>, bundles: &Bundles, clock: &Clock) -> Ways {
    let options = |(name, path): (&String, &PathSettings)| (name.clone(), path.rules.bundle.clone());
    let paths: Vec<_> = config.paths.iter().map(options).collect();
    let transport = BundleTransport::new(bundles.agent.clone(), paths, clock.clone());
    let rules = config
        .paths
        .iter()
        .map(|(name, path)| (name.clone(), path.rules.clone()));
    Ways::new(quic, Arc::new(transport), rules, clock.clone())
}

/// Starts what is done now and then.
fn keep_house(
    workers: &mut JoinSet<()>,
    config: &Config,
    store: &Arc<dyn Store>,
    discovery: &Arc<Discovery>,
    clock: &Clock,
    stop: &CancellationToken,
) {
    let (retention, routes) = (config.retention, config.routes.clone());
    workers.spawn(housekeeping::purge(
        store.clone(),
        clock.clone(),
        retention,
        stop.clone(),
    ));
    workers.spawn(housekeeping::reload_recipients(
        routes,
        clock.clone(),
        stop.clone(),
    ));
    workers.spawn(housekeeping::keep_answers(
        discovery.clone(),
        clock.clone(),
        stop.clone(),
    ));
}

/// Queues again what was being worked on, or awaiting a reply, when the client ended.
async fn take_up(store: &dyn Store, name: &str, now: Timestamp) -> Result<(), StoreError> {
    let interrupted = store.recover(name, now).await?;
    if interrupted > 0 {
        tracing::info!(
            interrupted,
            "recipients were being worked on when the client ended; they are queued again"
        );
    }
    // Replies go with the connections of the process that awaits them, and a repeat gets the same answer. What a bundle node holds
    // is awaited on.
    let mut resumed = 0;
    loop {
        match store.resume(now).await? {
            0 => break,
            some => resumed += some,
        }
    }
    if resumed > 0 {
        tracing::info!(
            resumed,
            "recipients were awaiting a reply when the client ended; their exchanges are repeated"
        );
    }
    Ok(())
}

/// A listener for SMTP or LMTP that is bound.
struct Receiving {
    protocol: Protocol,
    receive: Receive,
    tls: Option<Arc<rustls::ServerConfig>>,
    listener: Listener,
}

impl Receiving {
    async fn serve(self, acceptance: Arc<Acceptance>, stop: CancellationToken) {
        let config = &acceptance.config;
        let settings = lightpost_smtp::receive::Settings {
            protocol: self.protocol,
            name: config.name.clone(),
            tls: self.tls,
            max_message: config.ingest.max_message,
            max_recipients: config.ingest.max_recipients,
            connections: self.receive.connections,
            connections_per_address: self.receive.connections_per_address,
            errors: self.receive.max_errors,
            idle: self.receive.idle,
        };
        let clock = acceptance.clock.clone();
        let door = Door {
            acceptance,
            protocol: self.protocol,
            settings: self.receive,
        };
        serve(self.listener, Arc::new(door), Arc::new(settings), clock, stop).await;
    }
}

/// Binds what `[smtp]` and `[lmtp]` ask for.
async fn receiving(config: &Config) -> Result<Vec<Receiving>, StartError> {
    let mut bound = Vec::new();
    for (protocol, receive) in [(Protocol::Smtp, &config.smtp), (Protocol::Lmtp, &config.lmtp)] {
        let Some(receive) = receive else { continue };
        let tls = receive.tls()?;
        let mut listeners = Vec::new();
        if let Some(address) = receive.listen {
            listeners.push(Listener::Tcp(listen(address).await?));
            tracing::info!(%address, %protocol, "listening for mail");
        }
        if let Some(socket) = &receive.socket {
            listeners.push(Listener::Unix(listen_unix(socket).await?));
            tracing::info!(socket = %socket.display(), %protocol, "listening for mail");
        }
        bound.extend(listeners.into_iter().map(|listener| Receiving {
            protocol,
            receive: receive.clone(),
            tls: tls.clone(),
            listener,
        }));
    }
    Ok(bound)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|cause| StartError::Listen {
            address: address.to_string(),
            cause,
        })
}

/// Binds a Unix socket that owner and group may use. A socket that nobody listens on any more is replaced.
async fn listen_unix(path: &Path) -> Result<UnixListener, StartError> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let wrong = |cause| StartError::Listen {
        address: path.display().to_string(),
        cause,
    };
    let stale = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && UnixStream::connect(path).await.is_err();
    if stale {
        std::fs::remove_file(path).map_err(wrong)?;
    }
    let listener = UnixListener::bind(path).map_err(wrong)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(wrong)?;
    Ok(listener)
}
