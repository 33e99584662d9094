//! The receiving side: HTTP/3 requests into a router.

use std::{
    net::SocketAddr,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use lightpost_clock::Clock;
use quinn::{Endpoint, EndpointConfig, ServerConfig, crypto::rustls::QuicServerConfig};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    client::NO_ERROR,
    profile, reset,
    serving::{Serving, serve_connection},
};
use crate::{Path, tls};

/// Connections at once; more are refused.
const CONNECTIONS: usize = 4096;
/// How long running requests may take after `stop`.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// How long a handshake may take on paths that we know nothing about: any within the Solar System, and most outages.
const UNKNOWN_PATH: Duration = Duration::from_secs(86_400);
/// How long the goodbye may take after that.
const GOODBYE: Duration = Duration::from_millis(250);

/// What a listener may be told besides.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A file with the key of our stateless resets (RFC 9000 section 10.3); made when it is missing. With it a gateway that was
    /// restarted tells its peers at once that it has forgotten their connections; without it they wait for their deadlines.
    pub reset_key: Option<PathBuf>,
}

/// Binds a QUIC endpoint with the profile of the most demanding of `paths`. `tls` comes from [`crate::tls::server`] with ALPN `h3`.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    paths: &[Path],
) -> std::io::Result<quinn::Endpoint> {
    bind_with(address, tls, paths, &Options::default())
}

/// As [`bind`], with [`Options`].
///
/// # Errors
/// When the address cannot be bound or the key of the resets cannot be read or made.
pub fn bind_with(
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    paths: &[Path],
    options: &Options,
) -> std::io::Result<quinn::Endpoint> {
    let server = server_config(&tls, paths)?;
    let socket = std::net::UdpSocket::bind(address)?;
    Endpoint::new(
        endpoint_config(options.reset_key.as_deref())?,
        Some(server),
        socket,
        Arc::new(quinn::TokioRuntime),
    )
}

/// The server's QUIC configuration, for an endpoint on a socket of the caller's.
///
/// # Errors
/// When `tls` cannot be used for QUIC.
pub fn server_config(tls: &rustls::ServerConfig, paths: &[Path]) -> std::io::Result<ServerConfig> {
    let crypto =
        QuicServerConfig::try_from(Arc::new(tls::quic_server(tls))).map_err(std::io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(profile::derive_for_all(paths).server_config());
    Ok(config)
}

/// The endpoint's configuration, with the key in the file `reset_key` (made when missing).
///
/// # Errors
/// When the key cannot be read or made.
pub fn endpoint_config(reset_key: Option<&FilePath>) -> std::io::Result<EndpointConfig> {
    Ok(match reset_key {
        Some(path) => {
            let mut config = EndpointConfig::new(Arc::new(reset::key(path)?));
            config.cid_generator(reset::RandomIds::boxed);
            config
        }
        None => EndpointConfig::default(),
    })
}

/// Serves `router` on `endpoint` until `stop`, then lets running requests end for a few seconds. Prefer [`serve_paths`], which
/// lets go of peers that never end their handshake as soon as the paths allow; here it takes a day.
pub async fn serve(endpoint: quinn::Endpoint, router: Router, clock: Clock, stop: CancellationToken) {
    serve_paths(endpoint, router, &[], clock, stop).await;
}

/// As [`serve`], for peers that come by `paths`: how long a handshake may take follows from the longest of them.
pub async fn serve_paths(
    endpoint: quinn::Endpoint,
    router: Router,
    paths: &[Path],
    clock: Clock,
    stop: CancellationToken,
) {
    let patience = paths.iter().map(Path::connect_within).max();
    let serving = Arc::new(Serving {
        router,
        clock: clock.clone(),
        stop: stop.clone(),
        patience: patience.unwrap_or(UNKNOWN_PATH),
    });
    let connections = TaskTracker::new();
    loop {
        let incoming = tokio::select! {
            () = stop.cancelled() => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        if connections.len() >= CONNECTIONS {
            tracing::warn!(peer = %incoming.remote_address(), limit = CONNECTIONS, "too many connections; refused");
            incoming.refuse();
            continue;
        }
        connections.spawn(serve_connection(incoming, serving.clone()));
    }
    connections.close();
    let refusing = async {
        while let Some(incoming) = endpoint.accept().await {
            incoming.refuse();
        }
    };
    tokio::select! {
        () = connections.wait() => {}
        () = refusing => {}
        () = clock.sleep(GRACE + GOODBYE) => {}
    }
    endpoint.close(NO_ERROR, b"stopped");
    // The goodbyes leave at once; waiting for their acknowledgement would take several light times.
    let _ = clock.timeout(GOODBYE, endpoint.wait_idle()).await;
}
