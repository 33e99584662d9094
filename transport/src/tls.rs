//! Certificates, keys, trust.

use std::path::{Path, PathBuf};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {what}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A socket cannot be bound.
    #[error("no UDP socket: {0}")]
    Bind(std::io::Error),
}

/// A server's TLS (1.2 and 1.3 for TCP, 1.3 for QUIC). Client certificates are asked for when `client_trust` (PEM of CAs) is given and verified when one is
/// shown; whether one is required is the router's decision, by [`crate::PeerIdentity`].
///
/// # Errors
/// Names the file that cannot be used.
pub fn server(
    _certificate: &Path,
    _key: &Path,
    _client_trust: Option<&Path>,
    _alpn: &[&[u8]],
) -> Result<rustls::ServerConfig, TlsError> {
    unimplemented!()
}

/// A client's TLS: `trust` (PEM of CAs) or the system's roots, and our own certificate where given.
///
/// # Errors
/// Names the file that cannot be used.
pub fn client(
    _trust: Option<&Path>,
    _identity: Option<(&Path, &Path)>,
    _alpn: &[&[u8]],
) -> Result<rustls::ClientConfig, TlsError> {
    unimplemented!()
}
