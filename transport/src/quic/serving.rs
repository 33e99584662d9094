//! One connection of the listener, and the requests on it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use h3::{
    error::{Code, StreamError},
    server::{RequestResolver, RequestStream},
};
use http::{Request, Response};
use http_body_util::BodyExt;
use lightpost_clock::{Clock, Elapsed};
use quinn::{Incoming, ServerConfig, ZeroRttAccepted};
use rustls_pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    body::RequestBody,
    client::NO_ERROR,
    datagram::Wire,
    faults::Faults,
    listener::GRACE,
    session::content_length,
    streams::{Connection, Sending},
    unidirectional::EXCESSIVE_LOAD,
};
use crate::{Carrier, EarlyData, Handshake, PeerIdentity, gate::Seat, tls};

/// Requests of one connection that are worked on at once; more wait in their streams.
const REQUESTS: usize = 1024;
/// The same for a stranger: each may hold header fields in our memory.
const STRANGERS_REQUESTS: usize = 32;
/// Requests after which a connection is in use enough for its room to be worth its memory.
const GROWING: u64 = 8;
/// How long a connection stays at least after its last answer when we stop.
const LINGER: Duration = Duration::from_millis(100);
/// Why a connection has to go.
const CROWDED: &str = "others need the place";
/// What is said of a handshake that does not end.
const UNFINISHED: &str = "no handshake in time";
/// Octets of header fields in a request.
const HEADER_LIMIT: u64 = 64 << 10;

type Driver = h3::server::Connection<Connection, Bytes>;

/// What every connection needs.
pub(crate) struct Serving {
    pub(crate) router: Router,
    pub(crate) clock: Clock,
    pub(crate) stop: CancellationToken,
    /// How long a handshake, the header fields of a request, or room for a piece of its answer, may take.
    pub(crate) patience: Duration,
    /// Requests at once that a connection of somebody we know may grow to.
    pub(crate) streams: u32,
    /// How long a stranger's connection may stay unused.
    pub(crate) unused: Duration,
    /// Learns which addresses are real.
    pub(crate) wire: Wire,
    /// What is worth a line in the log.
    pub(crate) faults: Arc<Faults>,
}

impl Serving {
    /// Waits for a peer no longer than for a handshake.
    async fn patiently<T>(
        &self,
        step: impl Future<Output = Result<T, StreamError>>,
    ) -> Result<T, ResponseError> {
        Ok(self.clock.timeout(self.patience, step).await??)
    }
}

/// A connection that was let in.
pub(crate) struct Arrival {
    pub(crate) incoming: Incoming,
    pub(crate) seat: Arc<Seat>,
    /// Another configuration than the endpoint's.
    pub(crate) config: Option<Arc<ServerConfig>>,
}

/// Who is at the other end of a connection.
struct Peer {
    connection: quinn::Connection,
    identity: OnceLock<PeerIdentity>,
    early: EarlyData,
    seat: Arc<Seat>,
    /// Requests that may be worked on.
    room: Arc<Semaphore>,
    /// Octets of bodies that were handed on to the router.
    read: Arc<AtomicU64>,
}

impl Peer {
    fn new(connection: quinn::Connection, seat: Arc<Seat>) -> (Arc<Self>, Handshake) {
        let read = Arc::new(AtomicU64::new(0));
        let (weighed, handed_on) = (connection.clone(), read.clone());
        seat.weigh(Box::new(move || {
            let arrived = weighed.stats().udp_rx.bytes;
            arrived.saturating_sub(handed_on.load(Ordering::Relaxed))
        }));
        let (handshake, early) = EarlyData::pending();
        let peer = Self {
            connection,
            identity: OnceLock::new(),
            early,
            seat,
            room: Arc::new(Semaphore::new(STRANGERS_REQUESTS)),
            read,
        };
        (Arc::new(peer), handshake)
    }

    fn address(&self) -> std::net::SocketAddr {
        self.connection.remote_address()
    }

    /// The peer is no stranger any more.
    fn prove(&self) {
        if self.seat.prove() {
            self.room.add_permits(REQUESTS - STRANGERS_REQUESTS);
        }
    }

    /// The client's certificate is known before any of its requests can be read: with the end of the handshake, or from the
    /// session that early data resumes.
    fn identity(&self) -> PeerIdentity {
        self.identity
            .get_or_init(|| PeerIdentity {
                names: self.names(),
                address: Some(self.connection.remote_address()),
                endpoint: None,
                carrier: Carrier::Http3,
            })
            .clone()
    }

    fn names(&self) -> Vec<String> {
        let chain = self.connection.peer_identity();
        let chain = chain.and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        chain
            .and_then(|chain| chain.first().map(|own| tls::dns_names(own)))
            .unwrap_or_default()
    }
}

/// Serves a connection from its first packet to its end. How it ended is worth a line at debug level only, and [`Faults`] tell of what
/// should not have been.
pub(crate) async fn serve_connection(arrival: Arrival, serving: Arc<Serving>) {
    let address = arrival.incoming.remote_address();
    match run(arrival, &serving).await {
        Ok(()) => tracing::debug!(%address, "connection ended"),
        Err(cause) => tracing::debug!(%address, %cause, "connection ended"),
    }
}

async fn run(arrival: Arrival, serving: &Arc<Serving>) -> Result<(), String> {
    let (seat, address) = (arrival.seat.clone(), arrival.incoming.remote_address());
    let opening = serving.clock.timeout(serving.patience, open(arrival));
    let opened = tokio::select! {
        opened = opening => opened.map_err(|_| UNFINISHED.to_owned()).flatten(),
        () = seat.evicted() => return Err(CROWDED.into()),
    };
    let (peer, opening, mut driver) = opened.inspect_err(|cause| serving.faults.note(address, cause))?;
    let connection = peer.connection.clone();
    tokio::spawn(watch_handshake(peer.clone(), opening, serving.clone()));
    let requests = TaskTracker::new();
    let ended = tokio::select! {
        ended = take_requests(&mut driver, &peer, serving, &requests) => ended,
        cause = overstayed(&peer, serving) => {
            connection.close(EXCESSIVE_LOAD, cause.as_bytes());
            Err(cause.into())
        }
    };
    requests.close();
    if connection.close_reason().is_none() {
        let _ = serving
            .clock
            .timeout(GRACE, drain(&mut driver, serving, &requests, &connection))
            .await;
        connection.close(NO_ERROR, b"");
    }
    // Requests that were read to their end are finished even though nobody hears the answer: what they stored stays stored.
    requests.wait().await;
    ended
}

/// Takes requests until the connection ends or we stop.
async fn take_requests(
    driver: &mut Driver,
    peer: &Arc<Peer>,
    serving: &Arc<Serving>,
    requests: &TaskTracker,
) -> Result<(), String> {
    let (mut taken, mut grown) = (0u64, false);
    loop {
        let next = async {
            let permit = peer.room.clone().acquire_owned().await.ok();
            (permit, driver.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = serving.stop.cancelled() => return Ok(()),
            next = next => next,
        };
        match accepted {
            Ok(Some(resolver)) => {
                taken += 1;
                if taken >= GROWING && !grown && peer.seat.is_proven() {
                    grown = true;
                    peer.connection
                        .set_max_concurrent_bi_streams(serving.streams.into());
                }
                let (serving, peer) = (serving.clone(), peer.clone());
                requests.spawn(async move {
                    serve_request(resolver, &serving, &peer).await;
                    drop(permit);
                });
            }
            Ok(None) => return Ok(()),
            Err(error) if error.is_h3_no_error() => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Ends, with the reason, when others need the place, or when a stranger does nothing with it.
async fn overstayed(peer: &Peer, serving: &Serving) -> &'static str {
    tokio::select! {
        () = peer.seat.evicted() => CROWDED,
        () = peer.seat.unused(&serving.clock, serving.unused) => "unused",
    }
}

/// From the first packet to HTTP/3. Early data is readable at once, before the handshake is complete.
async fn open(arrival: Arrival) -> Result<(Arc<Peer>, Opening, Driver), String> {
    let accepted = match arrival.config {
        Some(config) => arrival.incoming.accept_with(config),
        None => arrival.incoming.accept(),
    };
    let mut connecting = accepted.map_err(|error| error.to_string())?;
    // A ClientHello may come in two datagrams; before it is whole there are no streams to be opened.
    connecting
        .handshake_data()
        .await
        .map_err(|error| error.to_string())?;
    let (connection, ended) = match connecting.into_0rtt() {
        Ok((connection, ended)) => (connection, Some(ended)),
        Err(connecting) => (connecting.await.map_err(|error| error.to_string())?, None),
    };
    let (peer, handshake) = Peer::new(connection.clone(), arrival.seat);
    if connection.peer_identity().is_some() {
        // It was known before: who resumes a session has shown its secret, which was given to the owner of this certificate.
        peer.prove();
    }
    let mut builder = h3::server::builder();
    builder.max_field_section_size(HEADER_LIMIT).send_grease(false);
    let driver = builder
        .build(Connection::new(connection))
        .await
        .map_err(|error| error.to_string())?;
    Ok((peer, Opening { ended, handshake }, driver))
}

/// A handshake under way.
struct Opening {
    /// Its end; nothing where it has ended before.
    ended: Option<ZeroRttAccepted>,
    /// What hangs on it.
    handshake: Handshake,
}

/// A peer that never ends its handshake is let go; one that has, may have shown a certificate.
async fn watch_handshake(peer: Arc<Peer>, opening: Opening, serving: Arc<Serving>) {
    let connection = &peer.connection;
    if let Some(ended) = opening.ended
        && serving.clock.timeout(serving.patience, ended).await.is_err()
    {
        serving.faults.note(connection.remote_address(), UNFINISHED);
        connection.close(NO_ERROR, UNFINISHED.as_bytes());
    }
    if connection.close_reason().is_none() {
        serving.wire.validated(connection.remote_address());
        peer.seat.connected();
        opening.handshake.complete();
        if !peer.identity().names.is_empty() {
            peer.prove();
        }
    }
}

/// Tells the peer to open no more requests, lets those end that run, and stays until their answers are read.
async fn drain(
    driver: &mut Driver,
    serving: &Serving,
    requests: &TaskTracker,
    connection: &quinn::Connection,
) {
    if driver.shutdown(0).await.is_err() {
        return;
    }
    let rejecting = async {
        while let Ok(Some(_)) = driver.accept().await {}
        connection.closed().await;
    };
    let ending = async {
        requests.wait().await;
        // Closing drops what is not acknowledged; two round trips are enough for an answer and its repair.
        serving
            .clock
            .sleep((connection.rtt() * 2).clamp(LINGER, GRACE))
            .await;
    };
    tokio::select! {
        () = rejecting => {}
        () = ending => {}
    }
}

async fn serve_request(resolver: RequestResolver<Connection, Bytes>, serving: &Serving, peer: &Peer) {
    let resolving = serving
        .clock
        .timeout(serving.patience, resolver.resolve_request());
    // On its own, so that the task, which outlives it by far, does not carry its size along.
    let (request, stream) = match Box::pin(resolving).await {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) if peer.connection.close_reason().is_some() => {
            return tracing::debug!(%error, "request cannot be read");
        }
        Ok(Err(error)) => {
            return serving
                .faults
                .note(peer.address(), &format!("a request: {error}"));
        }
        Err(_) => {
            return serving
                .faults
                .note(peer.address(), "header fields that do not come in time");
        }
    };
    let _working = peer.seat.begin();
    let (mut outgoing, incoming) = stream.split();
    let (mut head, ()) = request.into_parts();
    let identity = peer.identity();
    if !identity.names.is_empty() {
        peer.prove();
    }
    head.extensions.insert(identity);
    if !peer.early.is_confirmed() {
        head.extensions.insert(peer.early.clone());
    }
    let (body, rest) = RequestBody::new(incoming, content_length(&head.headers), peer.read.clone());
    let request = Request::from_parts(head, Body::new(body));
    let Ok(response) = serving.router.clone().oneshot(request).await;
    if response.status().is_success() {
        peer.prove();
    }
    if let Err(error) = respond(&mut outgoing, response, serving).await {
        tracing::debug!(%error, "response not sent whole");
    }
    rest.refuse();
}

/// Why a response did not go out whole.
#[derive(Debug, thiserror::Error)]
enum ResponseError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("its body failed: {0}")]
    Body(axum::Error),
    #[error("the peer does not take it")]
    Untaken(#[from] Elapsed),
}

/// Sends `response`. A peer that leaves no room for a piece of it within the patience is given up: while it is waited for,
/// the connection is in use and makes room for nobody.
async fn respond(
    outgoing: &mut RequestStream<Sending<Bytes>, Bytes>,
    response: Response<Body>,
    serving: &Serving,
) -> Result<(), ResponseError> {
    let (mut head, mut body) = response.into_parts();
    // Fields of one connection only have no place in HTTP/3 (RFC 9114 section 4.2).
    for name in [http::header::CONNECTION, http::header::TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    let response = Response::from_parts(head, ());
    serving.patiently(outgoing.send_response(response)).await?;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                outgoing.stop_stream(Code::H3_INTERNAL_ERROR);
                return Err(ResponseError::Body(error));
            }
        };
        match frame.into_data() {
            Ok(data) => serving.patiently(outgoing.send_data(data)).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    serving.patiently(outgoing.send_trailers(trailers)).await?;
                    break;
                }
            }
        }
    }
    serving.patiently(outgoing.finish()).await
}
