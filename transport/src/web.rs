//! HTTP/2 and HTTP/1.1 over TLS, and plain HTTP/1.1 on loopback or a Unix socket, into a router.

use std::sync::Arc;

use axum::Router;
use lightpost_clock::Clock;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

/// Serves `router` over TLS (ALPN `h2`, `http/1.1`) until `stop`. Each request carries a [`crate::PeerIdentity`].
pub async fn serve_tls(
    _listener: TcpListener,
    _tls: Arc<rustls::ServerConfig>,
    _router: Router,
    _clock: Clock,
    _stop: CancellationToken,
) {
    unimplemented!()
}

/// A listener without TLS.
#[derive(Debug)]
pub enum Plain {
    /// TCP, meant for loopback.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// Serves `router` without TLS until `stop`.
pub async fn serve_plain(_listener: Plain, _router: Router, _clock: Clock, _stop: CancellationToken) {
    unimplemented!()
}
