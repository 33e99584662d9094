//! HTTP/2 and HTTP/1.1 over TLS, and plain HTTP/1.1 on loopback or a Unix socket, into a router.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use lightpost_clock::Clock;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    Carrier, PeerIdentity,
    gate::{Gate, Limits, Seat},
    tls,
};

/// Connections at once without TLS; more wait to be accepted.
const CONNECTIONS: usize = 4096;
/// Requests at once on an HTTP/2 connection.
const STREAMS: u32 = 256;
/// Octets of header fields in a request.
const HEADER_LIMIT: u32 = 64 << 10;
/// How long a TLS handshake may take; TCP reaches no farther than Earth and Moon.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the header fields of an HTTP/1.1 request may take, and how long a connection may stay unused.
const HEADERS: Duration = Duration::from_secs(30);
/// How long a stranger's connection may stay unused, and then take to end.
const UNUSED: Duration = Duration::from_secs(60);
/// How often an HTTP/2 peer is asked whether it is still there.
const PING: Duration = Duration::from_secs(60);
/// How long running requests may take after the stop.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait after a failed accept, which usually means that the process has no more file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` over TLS (ALPN `h2`, `http/1.1`) until `stop`. Each request carries a [`crate::PeerIdentity`].
pub async fn serve_tls(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    clock: Clock,
    stop: CancellationToken,
) {
    let house = House::new(router, clock, stop, true);
    serve_house(listener, &tls, house, Limits::default()).await;
}

async fn serve_house(listener: TcpListener, tls: &rustls::ServerConfig, house: House, limits: Limits) {
    let mut config = tls.clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let gate = Gate::new(limits);
    while let Some((stream, address)) = house.accept(|| listener.accept()).await {
        // Whoever gets here has a real address: nobody completes TCP's handshake with a forged one.
        let Some(seat) = gate.enter(address, true) else {
            tracing::debug!(%address, "too many connections; refused");
            continue;
        };
        let (house_of, acceptor, seat) = (house.clone(), acceptor.clone(), Arc::new(seat));
        house.tasks.spawn(async move {
            let serving = house_of.serve_tls(stream, address, &acceptor, &seat);
            tokio::select! {
                () = serving => {}
                () = seat.evicted() => tracing::debug!(%address, "others need the place"),
            }
        });
    }
    house.close().await;
}

/// A listener without TLS.
#[derive(Debug)]
pub enum Plain {
    /// TCP, meant for loopback.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// Serves `router` without TLS (HTTP/1.1 only) until `stop`. Each request carries a [`crate::PeerIdentity`] without names; on a Unix
/// socket its address is `127.0.0.1:0`.
pub async fn serve_plain(listener: Plain, router: Router, clock: Clock, stop: CancellationToken) {
    let house = House::new(router, clock, stop, false);
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    match listener {
        Plain::Tcp(listener) => {
            while let Some((permit, (stream, address))) = house.accept_one(|| listener.accept()).await {
                let _ = stream.set_nodelay(true);
                house.spawn_plain(permit, stream, address);
            }
        }
        Plain::Unix(listener) => {
            while let Some((permit, (stream, _))) = house.accept_one(|| listener.accept()).await {
                house.spawn_plain(permit, stream, local);
            }
        }
    }
    house.close().await;
}

/// What the connections of one listener share.
#[derive(Clone)]
struct House {
    router: Router,
    clock: Clock,
    stop: CancellationToken,
    builder: Builder<TokioExecutor>,
    longest_unused: Duration,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl House {
    fn new(router: Router, clock: Clock, stop: CancellationToken, http2: bool) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        if !http2 {
            builder = builder.http1_only();
        }
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .max_buf_size(HEADER_LIMIT as usize);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADER_LIMIT)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(8 << 20)
            .keep_alive_interval(PING);
        Self {
            router,
            clock,
            stop,
            builder,
            longest_unused: UNUSED,
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            tasks: TaskTracker::new(),
        }
    }

    /// The next connection; `None` after the stop.
    async fn accept<S, F>(&self, mut next: impl FnMut() -> F) -> Option<S>
    where
        F: Future<Output = std::io::Result<S>>,
    {
        let accepting = async {
            loop {
                match next().await {
                    Ok(accepted) => return accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        self.clock.sleep(PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => None,
            accepted = accepting => Some(accepted),
        }
    }

    /// The next connection, when there is room for one; `None` after the stop.
    async fn accept_one<S, F>(&self, next: impl FnMut() -> F) -> Option<(OwnedSemaphorePermit, S)>
    where
        F: Future<Output = std::io::Result<S>>,
    {
        let permit = tokio::select! {
            () = self.stop.cancelled() => None,
            permit = self.connections.clone().acquire_owned() => permit.ok(),
        };
        Some((permit?, self.accept(next).await?))
    }

    /// Serves a connection from its TLS handshake to its end.
    async fn serve_tls(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        acceptor: &TlsAcceptor,
        seat: &Arc<Seat>,
    ) {
        let _ = stream.set_nodelay(true);
        match self.clock.timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                seat.connected();
                let peer = identity(&stream, address);
                if !peer.names.is_empty() {
                    seat.prove();
                }
                self.serve(stream, peer, Some(seat)).await;
            }
            Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%address, "no TLS handshake in time"),
        }
    }

    fn spawn_plain<S>(&self, permit: OwnedSemaphorePermit, stream: S, address: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let house = self.clone();
        self.tasks.spawn(async move {
            let _permit = permit;
            let peer = PeerIdentity {
                names: Vec::new(),
                address: Some(address),
                endpoint: None,
                carrier: Carrier::Http1,
            };
            house.serve(stream, peer, None).await;
        });
    }

    /// Serves a connection to its end; after the stop, the requests that run.
    async fn serve<S>(&self, stream: S, peer: PeerIdentity, seat: Option<&Arc<Seat>>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let address = peer.address.map(|address| address.to_string());
        let (router, held) = (self.router.clone(), seat.cloned());
        let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let (answering, seat) = (router.clone().oneshot(request.map(Body::new)), held.clone());
            async move {
                let _working = seat.as_ref().map(Seat::begin);
                let answer = answering.await;
                if let (Some(seat), Ok(answer)) = (seat, &answer)
                    && answer.status().is_success()
                {
                    seat.prove();
                }
                answer
            }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let mut unused = pin!(self.unused(seat));
        let (mut stopping, mut leaving) = (false, false);
        let ended = loop {
            tokio::select! {
                ended = &mut connection => break ended,
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut unused => {
                    // A peer that does not go when it is told to is cut off.
                    if leaving {
                        break Ok(());
                    }
                    leaving = true;
                    connection.as_mut().graceful_shutdown();
                    unused.set(self.unused(seat));
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(address, %error, "connection ended");
        }
    }

    /// Ends when a stranger's connection serves nothing for a while.
    async fn unused(&self, seat: Option<&Arc<Seat>>) {
        match seat {
            Some(seat) => seat.unused(&self.clock, self.longest_unused).await,
            None => std::future::pending().await,
        }
    }

    async fn close(&self) {
        self.tasks.close();
        let _ = self.clock.timeout(GRACE, self.tasks.wait()).await;
    }
}

fn identity(stream: &TlsStream<TcpStream>, address: SocketAddr) -> PeerIdentity {
    let (_, session) = stream.get_ref();
    let own = session.peer_certificates().and_then(|chain| chain.first());
    PeerIdentity {
        names: own.map(|own| tls::dns_names(own)).unwrap_or_default(),
        address: Some(address),
        endpoint: None,
        carrier: match session.alpn_protocol() {
            Some(b"h2") => Carrier::Http2,
            _ => Carrier::Http1,
        },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// As [`serve_tls`], with other limits.
    pub(crate) async fn serve_tls_within(
        (limits, longest_unused): (Limits, Duration),
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        router: Router,
        stop: CancellationToken,
    ) {
        let mut house = House::new(router, Clock::system(), stop, true);
        house.longest_unused = longest_unused;
        serve_house(listener, &tls, house, limits).await;
    }
}
