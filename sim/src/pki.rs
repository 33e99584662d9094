//! Throw-away certificates.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose,
};

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// The name does not do, or a key could not be made.
    #[error("certificate for {name}: {cause}")]
    Certificate {
        /// Whose.
        name: String,
        /// What happened.
        cause: rcgen::Error,
    },
    /// A file cannot be written.
    #[error("{}: {cause}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What happened.
        cause: io::Error,
    },
}

/// A certification authority for one demo, with ECDSA P-256 throughout: its chains are short enough for the first flight of a
/// QUIC handshake. Its key is never written.
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// Makes an authority and writes its certificate to `ca.pem` in `dir`, which exists.
    ///
    /// # Errors
    /// [`PkiError`]
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self, PkiError> {
        let dir = dir.into();
        let name = "Lightpost throw-away CA";
        let failed = |cause| failed(name, cause);
        let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
        params.distinguished_name = distinguished(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(failed)?;
        let authority = CertifiedIssuer::self_signed(params, key).map_err(failed)?;
        write(&dir.join("ca.pem"), &authority.pem())?;
        Ok(Self { dir, authority })
    }

    /// The authority's certificate, PEM.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Issues a certificate for a DNS name or an IP address, for servers and clients alike; returns the paths of certificate and
    /// key, PEM.
    ///
    /// # Errors
    /// [`PkiError`]
    pub fn issue(&self, name: &str) -> Result<(PathBuf, PathBuf), PkiError> {
        let failed = |cause| failed(name, cause);
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(failed)?;
        params.distinguished_name = distinguished(name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.authority).map_err(failed)?;
        let stem = name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-', "_");
        let paths = (
            self.dir.join(format!("{stem}.pem")),
            self.dir.join(format!("{stem}.key")),
        );
        write(&paths.0, &certificate.pem())?;
        write(&paths.1, &key.serialize_pem())?;
        Ok(paths)
    }
}

fn distinguished(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn failed(name: &str, cause: rcgen::Error) -> PkiError {
    let name = name.to_owned();
    PkiError::Certificate { name, cause }
}

/// Writes a file that only its owner may read.
fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|cause| PkiError::Write {
            path: path.to_owned(),
            cause,
        })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
        server::WebPkiClientVerifier,
    };

    use super::*;

    fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(path)
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    /// Runs a mutual TLS handshake in memory.
    fn handshake(pki: &Pki, roots: &Path, name: &str) -> Result<(), rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(chain(roots));
        let store = Arc::new(store);
        let (certificate, key) = pki.issue("gw1.moon.example").unwrap();
        let key = || PrivateKeyDer::from_pem_file(&key).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(&provider))
            .build()
            .unwrap();
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain(&certificate), key())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_client_auth_cert(chain(&certificate), key())?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn handshakes() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pki = Pki::new(dir.path()).unwrap();
        let stranger = Pki::new(other.path()).unwrap();
        handshake(&pki, &pki.authority(), "gw1.moon.example").unwrap();
        assert!(handshake(&pki, &pki.authority(), "gw2.moon.example").is_err());
        assert!(handshake(&pki, &stranger.authority(), "gw1.moon.example").is_err());
    }

    #[test]
    fn files() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(dir.path()).unwrap();
        let (certificate, key) = pki.issue("::1").unwrap();
        for path in [pki.authority(), certificate, key] {
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
            assert!(path.starts_with(dir.path()));
        }
        let error = Pki::new(dir.path().join("missing")).unwrap_err();
        assert!(error.to_string().contains("missing/ca.pem: "), "{error}");
    }
}
