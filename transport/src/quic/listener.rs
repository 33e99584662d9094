//! The receiving side: HTTP/3 requests into a router.

use std::{net::SocketAddr, sync::Arc};

use axum::Router;
use lightpost_clock::Clock;
use tokio_util::sync::CancellationToken;

use crate::Path;

/// Binds a QUIC endpoint with the profile of the most demanding of `paths`. `tls` comes from [`crate::tls::server`] with ALPN `h3`.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(
    _address: SocketAddr,
    _tls: Arc<rustls::ServerConfig>,
    _paths: &[Path],
) -> std::io::Result<quinn::Endpoint> {
    unimplemented!()
}

/// Serves `router` on `endpoint` until `stop`, then lets running requests end for a few seconds.
pub async fn serve(_endpoint: quinn::Endpoint, _router: Router, _clock: Clock, _stop: CancellationToken) {
    unimplemented!()
}
