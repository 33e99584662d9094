//! Opening a connection: with a ticket the request leaves at once, without one it waits for the handshake.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lightpost_clock::{Clock, Instant};
use quinn::{
    Connection, ConnectionError, Endpoint, TransportConfig, ZeroRttAccepted, crypto::rustls::QuicClientConfig,
};
use tokio_util::sync::CancellationToken;
use url::Host;

use super::{
    client::{Hosts, Lane, NO_ERROR, Target},
    datagram::Wire,
    resume::Sessions,
    session::Session,
};

/// Addresses of one host that are tried.
const ADDRESSES: usize = 6;
/// Gateways whose silent address is kept in mind.
const SILENT: usize = 256;

/// Opens connections.
pub(super) struct Dialer {
    pub(super) endpoint: Endpoint,
    pub(super) hosts: Arc<dyn Hosts>,
    pub(super) clock: Clock,
    pub(super) crypto: Arc<QuicClientConfig>,
    pub(super) sessions: Arc<Sessions>,
    /// Where early data was last answered by silence: another address is tried first, and there a handshake before a mail, so that
    /// no octet of the next one leaves before somebody answers and it can still go to another gateway.
    pub(super) silent: Mutex<HashMap<Target, SocketAddr>>,
    pub(super) closed: CancellationToken,
    /// Where it is ours.
    pub(super) wire: Option<Wire>,
}

/// What a path says about opening connections on it.
pub(super) struct Leg {
    config: Arc<TransportConfig>,
    /// Whether sessions from before are left alone.
    cold: bool,
    /// How long an attempt may take.
    within: Duration,
    /// The round trip, until one was measured.
    round_trip: Duration,
    /// The longest that is believed.
    longest: Duration,
}

impl Leg {
    pub(super) fn of(lane: &Lane) -> Self {
        let path = &lane.path;
        Self {
            config: lane.config.clone(),
            cold: !lane.early,
            within: path.connect_within(),
            round_trip: path.one_way_min.saturating_add(path.one_way_max),
            longest: path.round_trip_max().saturating_add(Duration::from_secs(60)),
        }
    }

    /// With a whole handshake.
    pub(super) fn cold(self) -> Self {
        Self { cold: true, ..self }
    }
}

impl Target {
    /// By what sessions are kept: a round trip belongs to the path as well.
    pub(super) fn key(&self) -> String {
        format!("{}:{} by {}", self.host, self.port, self.path)
    }
}

impl Dialer {
    pub(super) async fn dial(self: &Arc<Self>, target: &Target, leg: &Leg) -> Result<Session, String> {
        let (name, addresses) = match &target.host {
            Host::Domain(name) => (name.clone(), self.hosts.addresses(name).await?),
            Host::Ipv4(address) => (address.to_string(), vec![IpAddr::V4(*address)]),
            Host::Ipv6(address) => (address.to_string(), vec![IpAddr::V6(*address)]),
        };
        let mut addresses: Vec<_> = addresses
            .into_iter()
            .take(ADDRESSES)
            .map(|address| SocketAddr::new(address, target.port))
            .collect();
        let silent = self.silent().get(target).copied();
        addresses.sort_by_key(|address| Some(*address) == silent);
        let mut causes = Vec::new();
        for address in addresses {
            if let Some(wire) = &self.wire {
                wire.route(address, &target.path);
            }
            let opening = self.open(target, address, &name, leg);
            match self.clock.timeout(leg.within, opening).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(cause)) => causes.push(format!("{address}: {cause}")),
                Err(_) => causes.push(format!("{address}: {}", no_answer(leg.within))),
            }
        }
        if causes.is_empty() {
            causes.push(format!("{name} has no address"));
        }
        Err(causes.join("; "))
    }

    async fn open(
        self: &Arc<Self>,
        target: &Target,
        address: SocketAddr,
        name: &str,
        leg: &Leg,
    ) -> Result<Session, String> {
        let gateway = target.key();
        let unsure = self.silent().get(target) == Some(&address);
        let ticket = match leg.cold || unsure {
            true => None,
            false => self.sessions.ticket(&gateway).await,
        };
        let ahead = self.sessions.round_trip(&gateway).unwrap_or(leg.round_trip);
        let crypto = self.crypto.clone();
        let mut config = self.sessions.dial(crypto, &gateway, ticket, ahead);
        config.transport_config(leg.config.clone());
        let begun = self.clock.instant();
        let connecting = self
            .endpoint
            .connect_with(config, address, name)
            .map_err(|error| error.to_string())?;
        let connection = match connecting.into_0rtt() {
            Ok((connection, accepted)) => {
                return self.early(target, leg, connection, accepted, begun).await;
            }
            Err(connecting) => connecting.await.map_err(|error| error.to_string())?,
        };
        self.connected(target, leg.longest, &connection, begun);
        Session::open(connection, begun).await
    }

    /// Hands out the session at once, and watches what becomes of it.
    async fn early(
        self: &Arc<Self>,
        target: &Target,
        leg: &Leg,
        connection: Connection,
        accepted: ZeroRttAccepted,
        begun: Instant,
    ) -> Result<Session, String> {
        let (session, verdict) = Session::early(connection.clone(), accepted, begun).await?;
        let (dialer, target) = (self.clone(), target.clone());
        let (within, longest) = (leg.within, leg.longest);
        tokio::spawn(async move {
            let mut verdict = std::pin::pin!(verdict);
            let ended = tokio::select! {
                ended = dialer.clock.timeout(within, &mut verdict) => ended,
                () = dialer.closed.cancelled() => return connection.close(NO_ERROR, b""),
            };
            match ended {
                Ok(Ok(())) => dialer.connected(&target, longest, &connection, begun),
                Ok(Err(cause)) => {
                    tracing::debug!(gateway = target.key(), cause, "no connection for early data");
                    if connection
                        .close_reason()
                        .is_some_and(|reason| blames_session(&reason))
                    {
                        dialer.sessions.forget(&target.key());
                    }
                }
                Err(_) => {
                    dialer.was_silent(target, connection.remote_address());
                    connection.close(NO_ERROR, no_answer(within).as_bytes());
                    // Those who wait learn of it.
                    let _ = verdict.await;
                }
            }
        });
        Ok(session)
    }

    fn connected(&self, target: &Target, longest: Duration, connection: &Connection, begun: Instant) {
        let elapsed = self.clock.instant() - begun;
        let round_trip = connection.rtt().min(elapsed).min(longest);
        self.sessions.measured(&target.key(), round_trip);
        self.heard(target);
    }

    /// Something came from a gateway: it is there.
    pub(super) fn heard(&self, target: &Target) {
        self.silent().remove(target);
    }

    fn was_silent(&self, target: Target, address: SocketAddr) {
        // A socket for both families gives IPv4 addresses in IPv6 form.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let mut silent = self.silent();
        if silent.len() >= SILENT {
            silent.clear();
        }
        silent.insert(target, address);
    }

    fn silent(&self) -> std::sync::MutexGuard<'_, HashMap<Target, SocketAddr>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_answer(within: Duration) -> String {
    format!("no answer within {}", lightpost_config::duration_text(within))
}

/// Whether a handshake failed in a way that a session may be the cause of: in TLS (the codes from 0x100, RFC 9000 section 20.1), or
/// because the gateway remembers other limits than we do.
fn blames_session(reason: &ConnectionError) -> bool {
    match reason {
        ConnectionError::TransportError(_) => true,
        ConnectionError::ConnectionClosed(close) => (0x100..0x200).contains(&u64::from(close.error_code)),
        _ => false,
    }
}
