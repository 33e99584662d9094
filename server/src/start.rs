//! Starting and stopping the gateway.

use std::{
    fs::Permissions,
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use lightpost_bundles::Bundles;
use lightpost_clock::Clock;
use lightpost_intake::operator::{self, Operator};
use lightpost_queue::{
    Store, StoreError,
    sqlite::{DatabaseLock, SqliteStore},
};
use lightpost_transport::{
    bundle::listener as bundle,
    quic::{
        listener,
        net::{Kernel, Net},
        tickets::{self, Place, Tickets},
    },
    tls::{self, TlsError},
    web::{self, Plain},
};
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{Config, Warning, advice, config, housekeeping, inbound, onward};

/// How long listeners may take to let running requests end.
const GRACE: Duration = Duration::from_secs(15);
/// Attempts to find a port that is free for TCP and UDP alike, where the configuration leaves it open.
const PORTS: usize = 32;

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The inbox cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bundle node cannot be used.
    #[error(transparent)]
    Bundles(#[from] lightpost_bundles::StartError),
    /// A certificate, key or list of CAs cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address or socket.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
    /// Seals cannot be verified.
    #[error("seals cannot be verified: {0}")]
    Seals(String),
}

/// A running gateway.
pub struct Server {
    https: SocketAddr,
    admin: Option<SocketAddr>,
    bundles: Option<Arc<Bundles>>,
    store: Arc<dyn Store>,
    clock: Clock,
    onward: onward::Onward,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    // Goes last.
    lock: DatabaseLock,
}

impl Server {
    /// Opens the inbox, takes up what the last run left, and starts to listen.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        Self::start_on(config, clock, &Kernel).await
    }

    /// As [`Server::start`], with QUIC on another network than the kernel's.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start_on(config: Config, clock: Clock, net: &dyn Net) -> Result<Self, StartError> {
        let config = Arc::new(config);
        // Before anything is bound or opened: a program that is just ending is waited for.
        let lock = DatabaseLock::take(&config.database, &clock).await?;
        let tcp_tls = server_tls(&config, &[b"h2", b"http/1.1"], &clock)?;
        let quic_tls = server_tls(&config, &[b"h3"], &clock)?;
        for Warning {
            key,
            file,
            what,
            remedy,
        } in advice::advise(&config, &clock)?
        {
            tracing::warn!(%key, file = %file.display(), remedy, "{what}");
        }
        let (tcp, quic) = bind(&config, &quic_tls, net).await?;
        let https = tcp
            .local_addr()
            .map_err(|cause| listen_error(config.listen.https, cause))?;
        let admin = AdminListeners::bind(&config).await?;

        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&config.database, clock.clone()).await?);
        let interrupted = store.recover(onward::OWNER, clock.now()).await?;
        if interrupted > 0 {
            tracing::warn!(
                recipients = interrupted,
                "the last run ended in the middle of deliveries; they are repeated"
            );
        }
        let seals = config.seals.as_ref().map(inbound::SealCheck::new).transpose();
        let seals = seals.map_err(|error| StartError::Seals(error.to_string()))?;
        let onward = onward::start(config.clone(), store.clone(), clock.clone())?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let router = inbound::router(config.clone(), store.clone(), seals, clock.clone());
        tasks.spawn(web::serve_tls(
            tcp,
            tcp_tls,
            router.clone(),
            clock.clone(),
            stop.clone(),
        ));
        let bundles = match &config.bundle {
            Some(bundle) => {
                let bundles = Arc::new(bundle.settings.open(clock.clone()).await?);
                let complaints = onward::Complaints::new(config.clone(), store.clone(), clock.clone());
                tasks.spawn(bundle::serve(
                    bundles.agent.clone(),
                    router.clone(),
                    Arc::new(complaints),
                    bundle_settings(&config, bundle),
                    clock.clone(),
                    stop.clone(),
                ));
                Some(bundles)
            }
            None => None,
        };
        tasks.spawn(quic.serve(router, clock.clone(), stop.clone()));
        let admin_address = admin.address;
        admin.serve(&config, &store, &onward, &clock, &stop, &mut tasks);
        tasks.spawn(housekeeping::run(
            store.clone(),
            clock.clone(),
            config.retention,
            stop.clone(),
        ));
        tasks.spawn(onward::delays(&config, &store, &clock).run(stop.clone()));
        tracing::info!(%https, name = config.name, "the gateway listens");
        Ok(Self {
            https,
            admin: admin_address,
            bundles,
            store,
            clock,
            onward,
            tasks,
            stop,
            lock,
        })
    }

    /// Where HTTP/3 (UDP), HTTP/2 and HTTP/1.1 (TCP) are served.
    pub fn https_address(&self) -> SocketAddr {
        self.https
    }

    /// Where bundles come in, in the order of the configuration.
    pub fn bundle_addresses(&self) -> &[SocketAddr] {
        self.bundles.as_ref().map_or(&[], |bundles| bundles.addresses())
    }

    /// Where an operator asks, when that is a TCP address.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The inbox.
    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Takes nothing new, lets running work end for a few seconds, and closes the inbox.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let tasks = &mut self.tasks;
        let all = async { while tasks.join_next().await.is_some() {} };
        if self.clock.timeout(GRACE, all).await.is_err() {
            tracing::warn!("requests are cut off; nothing of them was acknowledged");
            self.tasks.shutdown().await;
        }
        if let Some(bundles) = &self.bundles {
            bundles.close().await;
        }
        self.onward.stop().await;
        self.store.close().await;
        drop(self.lock);
    }
}

fn bundle_settings(config: &Config, bundle: &config::Bundle) -> bundle::Settings {
    let sources = config.peers.iter().flat_map(|peer| peer.endpoints.clone());
    bundle::Settings {
        path: config.listen.endpoint.clone(),
        sources: sources.collect(),
        concurrency: bundle.concurrency,
        memory: usize::try_from(bundle.memory).unwrap_or(usize::MAX),
        reply_lifetime: bundle.reply_lifetime,
        longest: config.accept.remember,
    }
}

fn server_tls(config: &Config, alpn: &[&[u8]], clock: &Clock) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let listen = &config.listen;
    let mut tls = tls::server(
        &listen.certificate,
        &listen.key,
        listen.client_trust.as_deref(),
        alpn,
    )?;
    tls.time_provider = tls::time(clock);
    Ok(Arc::new(tls))
}

/// Binds TCP and UDP on the same port. Where the system chooses it, UDP may be taken by somebody else: then another.
async fn bind(
    config: &Config,
    tls: &rustls::ServerConfig,
    net: &dyn Net,
) -> Result<(TcpListener, listener::Listener), StartError> {
    let wanted = config.listen.https;
    let attempts = if wanted.port() == 0 { PORTS } else { 1 };
    let mut last = None;
    let options = quic_options(config)?;
    for _ in 0..attempts {
        let tcp = TcpListener::bind(wanted)
            .await
            .map_err(|cause| listen_error(wanted, cause))?;
        let address = tcp.local_addr().map_err(|cause| listen_error(wanted, cause))?;
        match listener::Listener::bind_on(net, address, tls, &config.paths, &options) {
            Ok(quic) => return Ok((tcp, quic)),
            Err(cause) => last = Some((address, cause)),
        }
    }
    let (address, cause) = last.unwrap_or((wanted, io::ErrorKind::AddrInUse.into()));
    Err(StartError::Listen {
        address: format!("{address}/udp"),
        cause,
    })
}

/// What makes a restart cheap: a gateway then tells its peers at once that it has forgotten their connections, and takes their next
/// ones with the sessions and tokens of the last run. All of it lies beside the inbox.
fn quic_options(config: &Config) -> Result<listener::Options, TlsError> {
    let beside = |extension| config.database.with_extension(extension);
    let listen = &config.listen;
    let chain = [Some(listen.certificate.as_path()), listen.client_trust.as_deref()];
    let chain: Vec<_> = chain.into_iter().flatten().collect();
    Ok(listener::Options {
        reset_key: Some(beside("reset-key")),
        tickets: Tickets {
            sessions: Some(Place {
                file: beside("sessions"),
                scope: tickets::scope(&chain)?,
            }),
            token_key: Some(beside("token-key")),
            age_tolerance: Some(config.session_age_tolerance),
        },
    })
}

fn listen_error(address: impl ToString, cause: io::Error) -> StartError {
    StartError::Listen {
        address: address.to_string(),
        cause,
    }
}

/// The operator's listeners, bound.
#[derive(Default)]
struct AdminListeners {
    tcp: Option<TcpListener>,
    unix: Option<UnixListener>,
    address: Option<SocketAddr>,
}

impl AdminListeners {
    async fn bind(config: &Config) -> Result<Self, StartError> {
        let mut listeners = Self::default();
        let Some(admin) = &config.admin else {
            return Ok(listeners);
        };
        if let Some(address) = admin.listen {
            let tcp = TcpListener::bind(address)
                .await
                .map_err(|cause| listen_error(address, cause))?;
            listeners.address = tcp.local_addr().ok();
            listeners.tcp = Some(tcp);
        }
        if let Some(path) = &admin.socket {
            let unix = unix_listener(path.clone())
                .await
                .map_err(|cause| listen_error(path.display(), cause))?;
            listeners.unix = Some(unix);
        }
        Ok(listeners)
    }

    fn serve(
        self,
        config: &Config,
        store: &Arc<dyn Store>,
        onward: &onward::Onward,
        clock: &Clock,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) {
        let Some(admin) = &config.admin else { return };
        // A Unix socket is guarded by its folder; tokens guard what others can reach.
        let router = admin_router(Operator {
            store: store.clone(),
            clock: clock.clone(),
            tokens: admin.tokens.clone().map(Arc::new),
            measured: Some(onward.measured()),
        });
        let tcp = self.tcp.map(Plain::Tcp);
        for listener in tcp.into_iter().chain(self.unix.map(Plain::Unix)) {
            tasks.spawn(web::serve_plain(
                listener,
                router.clone(),
                clock.clone(),
                stop.clone(),
            ));
        }
    }
}

fn admin_router(operator: Operator) -> Router {
    operator::routes(operator)
        .fallback(operator::not_found)
        .method_not_allowed_fallback(operator::method_not_allowed)
}

/// Binds a Unix socket for its owner and group; one that a dead process left behind is replaced, one that answers and what is
/// no socket are not.
async fn unix_listener(path: PathBuf) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(&path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_socket = tokio::fs::symlink_metadata(&path)
                .await
                .is_ok_and(|found| found.file_type().is_socket());
            if !is_socket || tokio::net::UnixStream::connect(&path).await.is_ok() {
                return Err(error);
            }
            tokio::fs::remove_file(&path).await?;
            UnixListener::bind(&path)?
        }
        other => other?,
    };
    tokio::fs::set_permissions(&path, Permissions::from_mode(0o660)).await?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_dead_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let first = unix_listener(path.clone()).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(unix_listener(path.clone()).await.is_err());
        drop(first);
        unix_listener(path).await.unwrap();

        let precious = folder.path().join("precious");
        std::fs::write(&precious, "text").unwrap();
        assert!(unix_listener(precious.clone()).await.is_err());
        assert_eq!(std::fs::read(precious).unwrap(), b"text");
    }
}
