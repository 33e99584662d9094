//! `[screen.seal]`: the key with which results are sealed, so that the far side can trust them without Earth's DNS.

use std::{fmt, path::Path, sync::Arc};

use lightpost_config::Section;
use mail_auth::{
    arc::ArcSealer,
    common::crypto::{RsaKey, Sha256},
    dkim::{Canonicalization, Done},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};

use super::{file, routes::is_domain};

/// Header fields that a seal covers; of those that a mail lacks it says that they are not there. RFC 8617 section 4.1.2 leaves out
/// `Received` and what the ARC fields are about.
const FIELDS: [&str; 18] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Auto-Submitted",
    "List-Id",
    "List-Unsubscribe",
    "DKIM-Signature",
    "Resent-From",
];

/// `[screen.seal]`
#[derive(Clone)]
pub struct Seal {
    /// Whose seal it is (`d=`).
    pub domain: String,
    /// Which key it is (`s=`).
    pub selector: String,
    pub(crate) sealer: Arc<ArcSealer<RsaKey<Sha256>, Done>>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal")
            .field("domain", &self.domain)
            .field("selector", &self.selector)
            .finish_non_exhaustive()
    }
}

/// Reads the section; `None` when the file lacks it.
pub(super) fn read(section: &Section<'_>) -> Option<Seal> {
    if !section.present() {
        return None;
    }
    for key in ["domain", "selector", "key"] {
        section.require::<String>(key);
    }
    let name = |key, remedy| {
        section.parse(key, remedy, |text| match is_domain(text) && text.is_ascii() {
            true => Ok(text.to_ascii_lowercase()),
            false => Err("is not a domain".to_owned()),
        })
    };
    let domain = name("domain", "write whose seal it is, such as \"earth.example\"");
    let selector = name("selector", "write which key it is, such as \"relay1\"");
    let key = file(section, "key")
        .filter(|path| path.exists())
        .and_then(|path| {
            key(&path)
                .map_err(|what| {
                    let remedy = "make one with `openssl genrsa -out FILE 2048`".into();
                    section.wrong("key", format!("{}: {what}", path.display()), remedy);
                })
                .ok()
        });
    let (domain, selector) = (domain?, selector?);
    let sealer = ArcSealer::from_key(key?)
        .domain(domain.clone())
        .selector(selector.clone())
        .headers(FIELDS)
        .header_canonicalization(Canonicalization::Relaxed)
        .body_canonicalization(Canonicalization::Relaxed);
    Some(Seal {
        domain,
        selector,
        sealer: Arc::new(sealer),
    })
}

fn key(path: &Path) -> Result<RsaKey<Sha256>, String> {
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| error.to_string())?;
    RsaKey::from_key_der(key).map_err(|error| format!("is not an RSA key of 2048 bits or more: {error}"))
}
