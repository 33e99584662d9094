//! A certificate authority with the certificates of gateways and relays.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::Site;

/// An authority whose files lie in the site's folder.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its own certificate.
    pub file: PathBuf,
    name: String,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The chain, PEM.
    pub certificate: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
}

impl Authority {
    /// A new one, `NAME.pem`.
    pub fn new(site: &Site, name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::<String>::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let file = site.write(&format!("{name}.pem"), issuer.pem());
        Self {
            issuer,
            file,
            name: name.to_owned(),
        }
    }

    /// A certificate for a DNS name and the site's address, good for servers and clients.
    pub fn issue(&self, site: &Site, dns_name: &str) -> Identity {
        let mut parameters = CertificateParams::new(vec![dns_name.to_owned()]).unwrap();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, dns_name);
        // The address too, for peers that cannot be told where a name is.
        parameters
            .subject_alt_names
            .push(rcgen::SanType::IpAddress(site.ip()));
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: site.write(&format!("{}.{dns_name}.pem", self.name), certificate.pem()),
            key: site.write(&format!("{}.{dns_name}.key", self.name), key.serialize_pem()),
        }
    }
}
