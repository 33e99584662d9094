//! Certificates, keys, trust.
//!
//! The provider is always named (`ring`), never taken from the process: another crate in the same binary may have
//! installed or enabled a different one.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use lightpost_clock::Clock;
use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, UnixTime,
    pem::{Error as PemError, PemObject},
};

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
    /// The system offers no CA certificates and none were configured.
    #[error("the system has no usable CA certificates ({0}); name a file of CAs to trust")]
    NoRoots(String),
    /// The TLS library refuses the combination of settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
    /// A socket cannot be bound.
    #[error("no UDP socket: {0}")]
    Bind(std::io::Error),
}

/// Tickets that a QUIC server hands out on each handshake. A client uses one per connection, and a connection that ends with the
/// answer brings no new ones: they leave with the end of the handshake, half a round trip after the answer.
const TICKETS: usize = 8;

/// A server's TLS (1.2 and 1.3 for TCP, 1.3 for QUIC). Client certificates are asked for when `client_trust` (PEM of CAs) is given and verified when one is
/// shown; whether one is required is the router's decision, by [`crate::PeerIdentity`].
///
/// # Errors
/// Names the file that cannot be used.
pub fn server(
    certificate: &Path,
    key: &Path,
    client_trust: Option<&Path>,
    alpn: &[&[u8]],
) -> Result<rustls::ServerConfig, TlsError> {
    let provider = provider();
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(error.to_string()))?;
    let builder = match client_trust {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| content(path, format!("cannot verify clients: {error}")))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|error| unusable(certificate, key, &error))?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// A client's TLS: `trust` (PEM of CAs) or the system's roots, and our own certificate where given.
///
/// # Errors
/// Names the file that cannot be used.
pub fn client(
    trust: Option<&Path>,
    identity: Option<(&Path, &Path)>,
    alpn: &[&[u8]],
) -> Result<rustls::ClientConfig, TlsError> {
    client_on(provider(), trust, identity, alpn, |own| own)
}

/// As [`client`], with `provider`, and with our own certificate as `sign` makes it.
pub(crate) fn client_on(
    provider: Arc<CryptoProvider>,
    trust: Option<&Path>,
    identity: Option<(&Path, &Path)>,
    alpn: &[&[u8]],
    sign: impl FnOnce(CertifiedKey) -> CertifiedKey,
) -> Result<rustls::ClientConfig, TlsError> {
    let trusted = match trust {
        Some(path) => roots(path)?,
        None => system_roots()?,
    };
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(error.to_string()))?
        .with_root_certificates(trusted);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let own = CertifiedKey::from_der(certificates(certificate)?, private_key(key)?, &provider)
                .map_err(|error| unusable(certificate, key, &error))?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(sign(own))))
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// TLS time as `clock` has it: certificates are valid, and sessions old, by the same clock that everything else follows.
pub fn time(clock: &Clock) -> Arc<dyn TimeProvider> {
    Arc::new(ClockTime(clock.clone()))
}

#[derive(Debug)]
struct ClockTime(Clock);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let since = u64::try_from(self.0.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(since)))
    }
}

/// `config` made fit for QUIC: ALPN `h3` and early data. Sessions have to be kept here rather than in tickets, because early data is
/// only ever accepted for kept sessions; the caller brings what keeps them.
pub(crate) fn quic_server(config: &rustls::ServerConfig) -> rustls::ServerConfig {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h3".to_vec()];
    config.max_early_data_size = u32::MAX;
    config.send_tls13_tickets = TICKETS;
    config
}

/// `config` made fit for QUIC: ALPN `h3` and early data.
pub(crate) fn quic_client(mut config: rustls::ClientConfig) -> rustls::ClientConfig {
    config.alpn_protocols = vec![b"h3".to_vec()];
    config.enable_early_data = true;
    config
}

/// The DNS names in a peer's certificate, lower case.
pub(crate) fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(names)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let mut found: Vec<String> = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some(dns.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    found.dedup();
    found
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn content(path: &Path, what: impl Into<String>) -> TlsError {
    TlsError::Content {
        path: path.to_owned(),
        what: what.into(),
    }
}

fn unusable(certificate: &Path, key: &Path, error: &rustls::Error) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => content(
            key,
            format!("is not the key of the certificate in {}", certificate.display()),
        ),
        rustls::Error::InvalidCertificate(_) => {
            content(certificate, format!("is not a usable certificate: {error}"))
        }
        _ => content(key, format!("is not a usable key: {error}")),
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|cause| TlsError::Read {
        path: path.to_owned(),
        cause,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| content(path, format!("is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(content(
            path,
            "holds no certificate (-----BEGIN CERTIFICATE-----)",
        ));
    }
    Ok(chain)
}

/// What a certificate chain is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Certificates.
    pub certificates: usize,
    /// Octets of all of them.
    pub octets: usize,
    /// Whether its last certificate is a root, which a client has to have itself.
    pub has_root: bool,
    /// Whether a key in it is RSA.
    pub rsa: bool,
}

/// Looks at the chain in `path` (PEM).
///
/// # Errors
/// Names the file if it cannot be read.
pub fn chain(path: &Path) -> Result<Chain, TlsError> {
    use x509_parser::{oid_registry::OID_PKCS1_RSAENCRYPTION, prelude::FromDer};
    let mut chain = Chain::default();
    for certificate in certificates(path)? {
        chain.certificates += 1;
        chain.octets += certificate.len();
        if let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(&certificate) {
            chain.rsa |= parsed.public_key().algorithm.algorithm == OID_PKCS1_RSAENCRYPTION;
            chain.has_root = chain.certificates > 1 && parsed.subject() == parsed.issuer();
        }
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    warn_if_open(path);
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        PemError::NoItemsFound => content(path, "holds no private key (-----BEGIN PRIVATE KEY-----)"),
        error => content(path, format!("is not PEM: {error}")),
    })
}

/// A key that everybody on the host can read is not a secret; it still works, so this is a warning only.
pub(crate) fn warn_if_open(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = std::fs::metadata(path) else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = format_args!("{mode:03o}"),
            "everybody on this host can read this key; chmod it to 600 or 640"
        );
    }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store
            .add(certificate)
            .map_err(|error| content(path, format!("holds an unusable CA certificate: {error}")))?;
    }
    Ok(store)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(found.certs);
    if added == 0 {
        let cause = found
            .errors
            .first()
            .map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsError::NoRoots(cause));
    }
    Ok(store)
}
