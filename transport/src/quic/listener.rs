//! The receiving side: HTTP/3 requests into a router.

use std::{
    net::SocketAddr,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use lightpost_clock::{Clock, Instant};
use quinn::{Endpoint, EndpointConfig, Incoming, ServerConfig};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    client::NO_ERROR,
    datagram::Wire,
    faults::{Faults, Watched},
    net::{Kernel, Net},
    profile, reset,
    serving::{Arrival, Serving, serve_connection},
    tickets::{Keeper, Tickets},
};
use crate::{
    Path,
    gate::{Gate, Limits},
};

/// Connections at once, with those whose end the peer has not heard yet; more are refused.
const CONNECTIONS: usize = 16_384;
/// The same for those of whom nothing is known: the ends of a flood of them leave room for the others.
const UNKNOWN_CONNECTIONS: usize = CONNECTIONS / 4 * 3;
/// Requests that a connection may begin with, so that also a first flight may hold. Each costs 72 octets from the first packet on, which anybody
/// can forge: the ten thousand of a long path would be 700 kB.
const OPENING_STREAMS: u32 = 1024;
/// How long running requests may take after `stop`.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// How long a handshake may take on paths that we know nothing about: they are taken for terrestrial ones.
const UNKNOWN_PATH: Duration = Duration::from_secs(60);
/// How long a stranger's connection may at least stay unused.
const UNUSED: Duration = Duration::from_secs(60);
/// What strangers' round trips are taken for under pressure, until one was measured: a connection that is let go is remembered
/// for nine of them (RFC 9000 section 10.2), which on a path of hours would fill the memory with ends. Handshakes that take longer
/// are repeated early, within three times what the peer has sent.
const PRESSED_RTT: Duration = Duration::from_millis(100);
/// How long the goodbye may take after that.
const GOODBYE: Duration = Duration::from_millis(250);

/// What a listener may be told besides.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How sessions and tokens outlive a restart, so that the next connection of each client is as quick as if there had been none.
    pub tickets: Tickets,
    /// A file with the key of our stateless resets (RFC 9000 section 10.3); made when it is missing. With it a gateway that was
    /// restarted tells its peers at once that it has forgotten their connections; without it they wait for their deadlines.
    pub reset_key: Option<PathBuf>,
}

/// A bound endpoint and what it takes to serve strangers on it.
pub struct Listener {
    endpoint: Endpoint,
    paths: Vec<Path>,
    /// Requests at once that a connection may grow to.
    streams: u32,
    /// For strangers when there are many.
    pressed: Arc<ServerConfig>,
    keeper: Keeper,
    wire: Wire,
    faults: Arc<Faults>,
}

impl Listener {
    /// Binds a QUIC endpoint with the profile of the most demanding of `paths`. `tls` comes from [`crate::tls::server`] with ALPN
    /// `h3`.
    ///
    /// # Errors
    /// When the address cannot be bound or one of the keys cannot be read or made.
    pub fn bind(
        address: SocketAddr,
        tls: &rustls::ServerConfig,
        paths: &[Path],
        options: &Options,
    ) -> std::io::Result<Self> {
        Self::bind_on(&Kernel, address, tls, paths, options)
    }

    /// As [`Self::bind`], on another network than the kernel's. Time is that of `tls`.
    ///
    /// # Errors
    /// When the address cannot be bound or one of the keys cannot be read or made.
    pub fn bind_on(
        net: &dyn Net,
        address: SocketAddr,
        tls: &rustls::ServerConfig,
        paths: &[Path],
        options: &Options,
    ) -> std::io::Result<Self> {
        let mut profile = profile::derive_for_all(paths);
        let streams = profile.streams();
        let transport = profile.server_config(OPENING_STREAMS);
        let (server, keeper) = options.tickets.server_config(tls, transport, paths)?;
        let mut pressed = server.clone();
        profile.assume_round_trip(PRESSED_RTT);
        pressed.transport_config(profile.server_config(OPENING_STREAMS));
        let runtime = net.runtime();
        let wire = profile::server_wire(paths);
        let faults = Arc::<Faults>::default();
        let greased = profile::greased(paths);
        let watched = Watched {
            socket: net.bind(address)?,
            faults: faults.clone(),
            greased,
        };
        let socket = wire.wrap(Arc::new(watched), &runtime);
        let mut config = endpoint_config(options.reset_key.as_deref())?;
        config.grease_quic_bit(greased);
        let endpoint = Endpoint::new_with_abstract_socket(config, Some(server), socket, runtime)?;
        Ok(Self {
            endpoint,
            paths: paths.to_vec(),
            streams,
            pressed: Arc::new(pressed),
            keeper,
            wire,
            faults,
        })
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What connections are accepted with under pressure.
    #[cfg(test)]
    pub(crate) fn config(&self) -> ServerConfig {
        (*self.pressed).clone()
    }

    /// Serves `router` until `stop`, then lets running requests end for a few seconds.
    pub async fn serve(self, router: Router, clock: Clock, stop: CancellationToken) {
        let limits = Limits::default().on(&self.paths);
        self.serve_within(limits, router, clock, stop).await;
    }

    /// As [`Self::serve`], with other limits.
    pub(crate) async fn serve_within(
        self,
        limits: Limits,
        router: Router,
        clock: Clock,
        stop: CancellationToken,
    ) {
        let patience = self.paths.iter().map(Path::connect_within).max();
        let patience = patience.unwrap_or(UNKNOWN_PATH);
        let serving = Arc::new(Serving {
            router,
            clock: clock.clone(),
            stop: stop.clone(),
            patience,
            streams: self.streams,
            unused: patience.max(UNUSED),
            wire: self.wire.clone(),
            faults: self.faults.clone(),
        });
        let gate = Gate::new(limits);
        let connections = TaskTracker::new();
        let accepting = async {
            while let Some(incoming) = self.endpoint.accept().await {
                if let Some(arrival) = self.admit(incoming, &gate, clock.instant()) {
                    connections.spawn(serve_connection(arrival, serving.clone()));
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = accepting => {}
            () = gate.watch(&clock) => {}
            () = self.faults.tell(&clock) => {}
            () = self.keeper.keep(&clock) => {}
        }
        connections.close();
        let refusing = async {
            while let Some(incoming) = self.endpoint.accept().await {
                incoming.refuse();
            }
        };
        tokio::select! {
            () = connections.wait() => {}
            () = refusing => {}
            () = clock.sleep(GRACE + GOODBYE) => {}
        }
        self.endpoint.close(NO_ERROR, b"stopped");
        if let Err(cause) = self.keeper.write().await {
            tracing::warn!(%cause, "sessions cannot be written; the next run starts without them");
        }
        // The goodbyes leave at once; waiting for their acknowledgement would take several light times.
        let _ = clock.timeout(GOODBYE, self.endpoint.wait_idle()).await;
    }

    /// Decides about a newcomer. Under pressure it has to show that its address is real, where that costs a moment only: on Earth,
    /// and only where every path is known to be there. The token of a Retry lives for 15 seconds, so farther out it could never be used.
    fn admit(&self, incoming: Incoming, gate: &Arc<Gate>, now: Instant) -> Option<Arrival> {
        let pressed = gate.is_pressed();
        let terrestrial = !self.paths.is_empty() && self.paths.iter().all(Path::is_terrestrial);
        let validated = incoming.remote_address_validated();
        if pressed && terrestrial && !validated && incoming.may_retry() {
            let _ = incoming.retry();
            return None;
        }
        let address = incoming.remote_address();
        if !gate.admits(address, validated, now) {
            incoming.ignore();
            return None;
        }
        let most = match validated || gate.is_familiar(address) {
            true => CONNECTIONS,
            false => UNKNOWN_CONNECTIONS,
        };
        let room = self.endpoint.open_connections() < most;
        let Some(seat) = room.then(|| gate.enter(address, validated)).flatten() else {
            tracing::debug!(peer = %address, "too many connections; refused");
            incoming.refuse();
            return None;
        };
        match validated {
            true => self.wire.validated(address),
            false => self.wire.doubt(address),
        }
        let config = (pressed && !terrestrial).then(|| self.pressed.clone());
        Some(Arrival {
            incoming,
            seat: Arc::new(seat),
            config,
        })
    }
}

/// The endpoint's configuration, with the key in the file `reset_key` (made when missing).
///
/// # Errors
/// When the key cannot be read or made.
fn endpoint_config(reset_key: Option<&FilePath>) -> std::io::Result<EndpointConfig> {
    Ok(match reset_key {
        Some(path) => {
            let mut config = EndpointConfig::new(Arc::new(reset::key(path)?));
            config.cid_generator(reset::RandomIds::boxed);
            config
        }
        None => EndpointConfig::default(),
    })
}
