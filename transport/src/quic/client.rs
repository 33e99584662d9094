//! The sending side: one connection per gateway, kept and reused.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use jiff::Timestamp;
use lightpost_clock::{Clock, sub, until};
use quinn::{Endpoint, TransportConfig, VarInt, crypto::rustls::QuicClientConfig};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::{Host, Url};

use super::{
    datagram::{LineCounters, Policy, Wire},
    dial::{Dialer, Leg},
    hedge::{Hedge, is_final},
    net::{Kernel, Net},
    profile,
    resume::{self, Sessions, Wear},
    session::{Broken, Session, Stage},
};
use crate::{
    Exchange, Failure, Outcome, Path, Transport,
    tls::{self, TlsError},
};

/// H3_NO_ERROR (RFC 9114 section 8.1).
pub(crate) const NO_ERROR: VarInt = VarInt::from_u32(0x100);
/// How long the goodbye may take when the process ends.
const GOODBYE: Duration = Duration::from_millis(250);
/// How long a ticket is left unused before another is fetched: half of its life.
const RENEWAL: Duration = Duration::from_secs(43_200);
/// Connections, standing or not, that are kept in mind without looking at them.
const KNOWN: usize = 64;

/// Finds the addresses of a gateway's host without ever asking a resolver on the far side.
#[async_trait::async_trait]
pub trait Hosts: Send + Sync + 'static {
    /// A and AAAA of `host`, in order of preference; the error is one line for the operator.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String>;
}

/// What the sending side needs to know.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// CA certificates (PEM) to trust; the system's when `None`.
    pub trust: Option<PathBuf>,
    /// Our certificate chain and key (PEM) for mutual TLS.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The paths, found by [`Exchange::path`].
    pub paths: Vec<Path>,
    /// Where sessions are kept, so that requests leave in the first flight after a restart, too; only in memory when `None`.
    pub sessions: Option<PathBuf>,
}

/// HTTP/3 over quinn.
pub struct QuicTransport {
    pub(super) clock: Clock,
    dialer: Arc<Dialer>,
    pub(super) lanes: HashMap<String, Lane>,
    pool: Mutex<HashMap<Target, Connecting>>,
    /// Ends what is being opened when this is dropped.
    _open: DropGuard,
}

/// A path and the QUIC configuration derived from it.
pub(super) struct Lane {
    pub(super) path: Path,
    pub(super) config: Arc<TransportConfig>,
    pub(super) hedge: Arc<Hedge>,
    /// Whether a mail may leave in the first flight.
    pub(super) early: bool,
}

/// Where a connection leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) host: Host<String>,
    pub(super) port: u16,
    pub(super) path: String,
}

/// What is known of a request that may have left.
#[derive(Default)]
pub(super) struct UnderWay {
    /// The session that carries it, once it may have left.
    pub(super) session: Mutex<Option<Arc<Session>>>,
    /// Whether there was a connection for it, on which it may have to wait for its turn.
    connected: AtomicBool,
    /// Whether the connection has all of it.
    whole: AtomicBool,
    /// Datagrams that had come over the connection when it began to leave, or later when the last were due that had been under way then.
    received: AtomicU64,
    /// Whether a second copy may have left, on a connection of its own. Never unset.
    pub(super) repeated: AtomicBool,
}

/// A connection that is being opened, or stands; everybody who needs it waits for the same one.
pub(super) type Connecting = Shared<BoxFuture<'static, Result<Arc<Session>, Arc<str>>>>;

impl QuicTransport {
    /// Reads certificates and binds a UDP socket on a free port.
    ///
    /// # Errors
    /// When a certificate or key cannot be used, or no socket can be bound.
    pub fn new(settings: Settings, hosts: Arc<dyn Hosts>, clock: Clock) -> Result<Self, TlsError> {
        Self::new_on(&Kernel, settings, hosts, clock)
    }

    /// As [`QuicTransport::new`], on another network than the kernel's.
    ///
    /// # Errors
    /// When a certificate or key cannot be used, or no socket can be bound.
    pub fn new_on(
        net: &dyn Net,
        settings: Settings,
        hosts: Arc<dyn Hosts>,
        clock: Clock,
    ) -> Result<Self, TlsError> {
        let wire = profile::client_wire(&settings.paths);
        let config = profile::client_endpoint(&settings.paths);
        let runtime = net.runtime();
        let endpoint = net.bind_any().and_then(|socket| {
            let socket = wire.wrap(socket, &runtime);
            Endpoint::new_with_abstract_socket(config, None, socket, runtime)
        });
        let mut transport = Self::with_endpoint(endpoint.map_err(TlsError::Bind)?, settings, hosts, clock)?;
        if let Some(dialer) = Arc::get_mut(&mut transport.dialer) {
            dialer.wire = Some(wire);
        }
        Ok(transport)
    }

    /// As [`QuicTransport::new`], on an endpoint of the caller's, which may have a socket of another kind.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub fn with_endpoint(
        endpoint: Endpoint,
        settings: Settings,
        hosts: Arc<dyn Hosts>,
        clock: Clock,
    ) -> Result<Self, TlsError> {
        let identity = settings
            .identity
            .as_ref()
            .map(|(chain, key)| (chain.as_path(), key.as_path()));
        let provider = Arc::new(resume::provider());
        let trust = settings.trust.as_deref();
        let tls = tls::client_on(provider, trust, identity, &[b"h3"], resume::signing)?;
        let mut tls = tls::quic_client(tls);
        tls.time_provider = tls::time(&clock);
        resume::prepare(&mut tls);
        let tls = Arc::new(tls);
        let sessions = Sessions::open(settings.sessions.as_deref(), clock.clone());
        sessions.rehydrate(&tls);
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| TlsError::Setup(error.to_string()))?;
        let mut lanes = HashMap::new();
        for path in settings.paths {
            let profile = profile::derive(&path);
            let config = profile.client_config();
            let copies = match profile.redundancy().policy {
                Policy::All => profile.redundancy().copies,
                _ => 1,
            };
            let hedge = Arc::new(Hedge::new(profile.hedge(), copies));
            let early = profile.early_data();
            let lane = Lane {
                path,
                config,
                hedge,
                early,
            };
            lanes.insert(lane.path.name.clone(), lane);
        }
        let closed = CancellationToken::new();
        Ok(Self {
            dialer: Arc::new(Dialer {
                endpoint,
                hosts,
                clock: clock.clone(),
                crypto: Arc::new(crypto),
                sessions,
                silent: Mutex::default(),
                closed: closed.clone(),
                wire: None,
            }),
            clock,
            lanes,
            pool: Mutex::default(),
            _open: closed.drop_guard(),
        })
    }

    /// What went over the paths' lines so far: on an endpoint of the caller's own nothing is counted.
    pub fn carried(&self) -> LineCounters {
        let wire = self.dialer.wire.as_ref();
        wire.map(Wire::counters).unwrap_or_default()
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.dialer.closed.cancel();
        self.pool().clear();
        self.dialer.endpoint.close(NO_ERROR, b"");
        let _ = self
            .clock
            .timeout(GOODBYE, self.dialer.endpoint.wait_idle())
            .await;
        self.dialer.sessions.flush().await;
    }

    /// Whether the connection to `port` was opened with early data that the gateway accepted.
    #[cfg(test)]
    pub(crate) async fn last_early(&self, port: u16) -> bool {
        let known = {
            let pool = self.pool();
            let known = pool.iter().find(|(target, _)| target.port == port);
            known.map(|(_, known)| known.clone())
        };
        match known {
            Some(known) => known.await.unwrap().early_accepted(),
            None => false,
        }
    }

    /// Lets go of every connection.
    #[cfg(test)]
    pub(crate) fn disconnect(&self) {
        self.pool().clear();
    }

    #[cfg(test)]
    pub(crate) fn sessions(&self) -> &Arc<Sessions> {
        &self.dialer.sessions
    }

    #[cfg(test)]
    pub(crate) fn known(&self) -> usize {
        self.pool().len()
    }

    pub(super) fn pool(&self) -> MutexGuard<'_, HashMap<Target, Connecting>> {
        lock(&self.pool)
    }

    /// The connection to `target` and whether it stood already.
    async fn session(&self, target: &Target, lane: &Lane) -> Result<(Arc<Session>, bool), Arc<str>> {
        let (connecting, reused) = {
            let mut pool = self.pool();
            self.promote(target, lane, &mut pool);
            match pool
                .get(target)
                .map(|known| (known.clone(), known.peek().cloned()))
            {
                Some((known, Some(Ok(session)))) if session.stands() => (known, true),
                Some((known, None)) => (known, false),
                _ => {
                    let fresh = self.dial(target, lane);
                    sweep(&mut pool);
                    pool.insert(target.clone(), fresh.clone());
                    (fresh, false)
                }
            }
        };
        Ok((connecting.await?, reused))
    }

    /// Opens a connection in a task of its own, so that it goes on when the exchange that wanted it is given up: the next one
    /// finds it there. It ends by itself, each address having its time.
    pub(super) fn dial(&self, target: &Target, lane: &Lane) -> Connecting {
        let (dialer, target) = (self.dialer.clone(), target.clone());
        let leg = Leg::of(lane);
        let task = tokio::spawn(async move {
            let closed = dialer.closed.clone();
            let opening = closed.run_until_cancelled(dialer.dial(&target, &leg));
            opening.await.unwrap_or_else(|| Err("closed".to_owned()))
        });
        async move {
            match task.await {
                Ok(Ok(session)) => Ok(Arc::new(session)),
                Ok(Err(cause)) => Err(cause.into()),
                Err(error) => Err(error.to_string().into()),
            }
        }
        .boxed()
        .shared()
    }

    /// Lets go of `session`, so that the next exchange opens a fresh connection; exchanges under way keep it.
    fn forget(&self, target: &Target, session: &Arc<Session>) {
        let mut pool = self.pool();
        let known = pool.get(target).and_then(|known| known.peek());
        if matches!(known, Some(Ok(known)) if Arc::ptr_eq(known, session)) {
            pool.remove(target);
        }
    }

    /// Opens a connection beside `session` for the sake of its tickets when those that there are, are about to run out: should
    /// `session` be lost, or this process end, the next mail leaves in the first flight. Nobody waits for it, so it is a whole
    /// handshake, which ends the line of sessions that hang on one another and verifies the certificate anew.
    fn renew(&self, target: &Target, lane: &Lane, session: &Arc<Session>) {
        let wanted = match self.dialer.sessions.wear(&target.key(), RENEWAL) {
            Wear::Fresh => false,
            Wear::Old => self.clock.instant() - session.begun >= RENEWAL,
            Wear::Long => session.is_early(),
        };
        if !wanted || !lane.early || session.renewing.swap(true, Ordering::Relaxed) {
            return;
        }
        let (dialer, target, leg) = (self.dialer.clone(), target.clone(), Leg::of(lane).cold());
        let (session, clock) = (session.clone(), self.clock.clone());
        // The tickets follow the end of the handshake by a round trip.
        let stay = lane.path.round_trip_max() * 2 + lane.path.outage_max + Duration::from_secs(4);
        tokio::spawn(async move {
            let fetching = async {
                match dialer.dial(&target, &leg).await {
                    Ok(fresh) => {
                        clock.sleep(stay).await;
                        drop(fresh);
                    }
                    Err(cause) => tracing::debug!(gateway = target.key(), cause, "no fresh session"),
                }
            };
            dialer.closed.run_until_cancelled(fetching).await;
            session.renewing.store(false, Ordering::Relaxed);
        });
    }

    /// One exchange; `under_way` holds the session once the request may have left.
    pub(super) async fn attempt(
        &self,
        exchange: &Exchange,
        target: &Target,
        lane: &Lane,
        under_way: &UnderWay,
    ) -> Outcome {
        let gateway = authority(&exchange.gateway);
        let mut lost: Option<String> = None;
        loop {
            let (session, reused) = match self.session(target, lane).await {
                Ok(found) => found,
                Err(cause) => {
                    let failure = match lost {
                        Some(cause) => Failure::Interrupted { gateway, cause },
                        None => Failure::Unreachable {
                            gateway,
                            cause: cause.to_string(),
                        },
                    };
                    return Outcome::Failed(failure);
                }
            };
            under_way.connected.store(true, Ordering::Relaxed);
            let mark = |stage| match stage {
                Stage::Begun => {
                    *lock(&under_way.session) = Some(session.clone());
                    under_way.whole.store(false, Ordering::Relaxed);
                    under_way.received.store(session.received(), Ordering::Relaxed);
                }
                Stage::Whole => under_way.whole.store(true, Ordering::Relaxed),
            };
            let broken = match session.post(exchange, mark).await {
                Ok(reply) => {
                    self.dialer.heard(target);
                    self.renew(target, lane, &session);
                    return match lost {
                        // The first copy may have been stored all the same.
                        Some(cause) if !is_final(reply.status) => Outcome::Failed(Failure::Interrupted {
                            gateway,
                            cause: format!("{cause}; sent again and answered {}", reply.status),
                        }),
                        _ => Outcome::Replied(reply),
                    };
                }
                Err(broken) => broken,
            };
            // A connection that stood before may have died unnoticed, its gateway restarted: the exchange id makes it safe to
            // say the same again, once, to the same gateway.
            let again = (reused || session.is_early()) && lost.is_none();
            let failure = match broken {
                Broken::Object(cause) => Failure::Object(cause),
                Broken::Stream(cause) => Failure::Interrupted { gateway, cause },
                Broken::Lost(cause) => {
                    self.forget(target, &session);
                    if again {
                        tracing::debug!(%gateway, cause, "connection lost; sent again on a fresh one");
                        lost = Some(cause);
                        continue;
                    }
                    Failure::Interrupted { gateway, cause }
                }
                Broken::NotSent(cause) => {
                    self.forget(target, &session);
                    if lost.is_none() {
                        *lock(&under_way.session) = None;
                    }
                    if reused {
                        continue;
                    }
                    match lost {
                        Some(cause) => Failure::Interrupted { gateway, cause },
                        None => Failure::Unreachable { gateway, cause },
                    }
                }
            };
            return Outcome::Failed(failure);
        }
    }

    fn lane(&self, exchange: &Exchange) -> Result<(Target, &Lane), String> {
        let url = &exchange.gateway;
        if url.scheme() != "https" {
            return Err(format!("{url} is not an https URI"));
        }
        let host = url
            .host()
            .ok_or_else(|| format!("{url} names no host"))?
            .to_owned();
        let lane = self
            .lanes
            .get(&exchange.path)
            .ok_or_else(|| format!("no path is called \"{}\"", exchange.path))?;
        let target = Target {
            host,
            port: url.port_or_known_default().unwrap_or(443),
            path: exchange.path.clone(),
        };
        Ok((target, lane))
    }
}

#[async_trait::async_trait]
impl Transport for QuicTransport {
    async fn send(&self, exchange: Exchange, deadline: Timestamp) -> Outcome {
        let start = self.clock.now();
        let gateway = authority(&exchange.gateway);
        let (target, lane) = match self.lane(&exchange) {
            Ok(found) => found,
            Err(cause) => return Outcome::Failed(Failure::Unreachable { gateway, cause }),
        };
        let under_way = UnderWay::default();
        let over = async {
            let quiet = lane.path.round_trip_max() + lane.path.outage_max;
            self.clock.sleep_until(sub(deadline, quiet)).await;
            // What is heard from here on is no echo of what was there before.
            if let Some(session) = &*lock(&under_way.session) {
                under_way.received.store(session.received(), Ordering::Relaxed);
            }
            self.clock.sleep_until(deadline).await;
        };
        tokio::select! {
            outcome = self.hedged(&exchange, &target, lane, &under_way) => outcome,
            () = over => {
                let waited = until(start, self.clock.now());
                let session = lock(&under_way.session).take();
                let left = session.is_some() || under_way.repeated.load(Ordering::Relaxed);
                if let Some(session) = session
                    && (under_way.whole.load(Ordering::Relaxed)
                        || session.received() == under_way.received.load(Ordering::Relaxed))
                {
                    // Silence may mean a gateway that has forgotten this connection. Where it was heard of lately, and there was still
                    // something to send, the line was only slower than thought.
                    self.forget(&target, &session);
                }
                let within = lightpost_config::duration_text(waited);
                Outcome::Failed(match left {
                    true => Failure::NoReply { gateway, waited },
                    false if under_way.connected.load(Ordering::Relaxed) => Failure::Interrupted {
                        gateway,
                        cause: format!("its turn did not come within {within}"),
                    },
                    false => Failure::Unreachable {
                        gateway,
                        cause: format!("no connection within {within}"),
                    },
                })
            }
        }
    }
}

/// Forgets connections that failed or ended, once there are enough of them to be worth it: gateways come and go.
fn sweep(pool: &mut HashMap<Target, Connecting>) {
    if pool.len() < KNOWN || !pool.len().is_power_of_two() {
        return;
    }
    pool.retain(|_, known| {
        // Whoever waited for it may be gone; then nobody has looked yet how it ended.
        known.clone().now_or_never();
        match known.peek() {
            Some(Ok(session)) => session.stands(),
            Some(Err(_)) => false,
            None => true,
        }
    });
}

pub(super) fn authority(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => url.to_string(),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
