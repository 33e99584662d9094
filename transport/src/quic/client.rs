//! The sending side: one connection per gateway, kept and reused.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use lightpost_clock::Clock;

use crate::{Exchange, Outcome, Path, Transport, tls::TlsError};

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
}

/// HTTP/3 over quinn.
pub struct QuicTransport {}

impl QuicTransport {
    /// Reads certificates and binds a UDP socket on a free port.
    ///
    /// # Errors
    /// When a certificate or key cannot be used, or no socket can be bound.
    pub fn new(_settings: Settings, _hosts: Arc<dyn Hosts>, _clock: Clock) -> Result<Self, TlsError> {
        unimplemented!()
    }

    /// Closes every connection.
    pub async fn close(&self) {
        unimplemented!()
    }
}

#[async_trait::async_trait]
impl Transport for QuicTransport {
    async fn send(&self, _exchange: Exchange, _deadline: Timestamp) -> Outcome {
        unimplemented!()
    }
}
