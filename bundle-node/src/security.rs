//! Bundle security (RFC 9172) with the default contexts (RFC 9173): BIB-HMAC-SHA2 over the payload and what the primary block says,
//! BCB-AES-GCM over the payload.
//!
//! Keys are shared beforehand and lie in files, each under a name. To change one, every node is first told to accept the new key
//! beside the old, then to use it, then to forget the old.

use std::{
    collections::HashMap,
    fmt,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use hardy_bpv7::{
    Error,
    bpsec::{
        encryptor::{self, Encryptor},
        key::{EncAlgorithm, Key, KeyAlgorithm, KeySource, Operation, Type},
        rfc9173::ScopeFlags,
        signer::{self, Signer},
    },
    bundle::{Bundle, ParsedBundle},
    eid::Eid,
    status_report::ReasonCode,
};

use crate::eid::{self, Pattern};

/// The largest key file that is read.
const FILE: u64 = 4096;

/// Which bundles are protected, and what is asked of those that come.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// The keys.
    pub keys: Vec<KeyFile>,
    /// How our bundles are protected; the first rule that matches the destination.
    pub outgoing: Vec<Protect>,
    /// What is accepted; the first rule that matches the source. Without one nothing is verified and nothing required.
    pub incoming: Vec<Accept>,
}

/// A key in a file: hexadecimal digits, as `openssl rand -hex 32` writes them.
#[derive(Clone, Debug)]
pub struct KeyFile {
    /// What rules call it.
    pub id: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it is for.
    pub kind: KeyKind,
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// HMAC-SHA-256: 32 to 64 octets.
    Integrity,
    /// AES-GCM: 16 or 32 octets.
    Confidentiality,
}

/// How bundles to some destinations are protected.
#[derive(Clone, Debug)]
pub struct Protect {
    /// To whom.
    pub destinations: Pattern,
    /// The integrity key that signs them.
    pub sign: Option<String>,
    /// The confidentiality key that encrypts their payload.
    pub encrypt: Option<String>,
}

/// What is accepted from some sources.
#[derive(Clone, Debug)]
pub struct Accept {
    /// From whom.
    pub sources: Pattern,
    /// The keys that they may use, of both kinds.
    pub keys: Vec<String>,
    /// Whether a bundle without a valid signature is deleted.
    pub required: bool,
}

/// The keys, and the rules about them.
pub(crate) struct Keyring {
    keys: HashMap<String, (KeyKind, Key)>,
    rules: Security,
}

/// Why a bundle is not what it says that it is.
#[derive(Debug)]
pub(crate) struct Doubt {
    pub(crate) reason: ReasonCode,
    cause: &'static str,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause)
    }
}

const FORGED: Doubt = Doubt {
    reason: ReasonCode::FailedSecurityOperation,
    cause: "a bundle whose integrity block is not of any key that its source may use",
};
const UNSIGNED: Doubt = Doubt {
    reason: ReasonCode::MissingSecurityOperation,
    cause: "a bundle without an integrity block, which its source has to use",
};
const SECRET: Doubt = Doubt {
    reason: ReasonCode::FailedSecurityOperation,
    cause: "a bundle that no key of its source decrypts",
};

/// At most one key for each operation.
#[derive(Clone, Copy, Default)]
struct Pair<'a> {
    integrity: Option<&'a Key>,
    confidentiality: Option<&'a Key>,
}

impl KeySource for Pair<'_> {
    fn key<'a>(&'a self, _source: &Eid, operations: &[Operation]) -> Option<&'a Key> {
        // Keys are used as they are, never to unwrap others.
        match operations {
            [Operation::Verify] => self.integrity,
            [Operation::Decrypt] => self.confidentiality,
            _ => None,
        }
    }
}

impl Keyring {
    /// Reads the keys.
    pub(crate) fn load(rules: &Security, problems: &mut Vec<String>) -> Self {
        let mut keys = HashMap::new();
        for file in &rules.keys {
            match read(file) {
                Ok(key) => {
                    if keys.insert(file.id.clone(), (file.kind, key)).is_some() {
                        problems.push(format!("there are two keys called {}", file.id));
                    }
                }
                Err(cause) => problems.push(format!("key {}: {}: {cause}", file.id, file.path.display())),
            }
        }
        let ring = Self {
            keys,
            rules: rules.clone(),
        };
        ring.check(problems);
        ring
    }

    fn check(&self, problems: &mut Vec<String>) {
        let mut uses = Vec::new();
        for rule in &self.rules.outgoing {
            uses.extend(rule.sign.iter().map(|id| (id, Some(KeyKind::Integrity))));
            uses.extend(rule.encrypt.iter().map(|id| (id, Some(KeyKind::Confidentiality))));
        }
        for rule in &self.rules.incoming {
            uses.extend(rule.keys.iter().map(|id| (id, None)));
            let integrity = |id: &String| {
                self.rules
                    .keys
                    .iter()
                    .any(|it| it.id == *id && it.kind == KeyKind::Integrity)
            };
            if rule.required && !rule.keys.iter().any(integrity) {
                problems.push(format!(
                    "bundles from {} have to be signed, but no integrity key is accepted from there",
                    rule.sources
                ));
            }
        }
        for (id, kind) in uses {
            match self.rules.keys.iter().find(|it| it.id == *id) {
                None => problems.push(format!("there is no key called {id}")),
                Some(key) if kind.is_some_and(|it| it != key.kind) => {
                    problems.push(format!("key {id} is of the other kind"));
                }
                Some(_) => {}
            }
        }
    }

    /// Protects a bundle of ours as the rules want it.
    pub(crate) fn protect(&self, bundle: Bundle, data: Bytes) -> Result<(Bundle, Bytes), String> {
        let rule = self
            .rules
            .outgoing
            .iter()
            .find(|it| it.destinations.matches(&bundle.destination));
        let Some(rule) = rule else {
            return Ok((bundle, data));
        };
        let key = |id: &Option<String>| Some(&self.keys.get(id.as_ref()?)?.1);
        let (mut bundle, mut data) = (bundle, data);
        if let Some(key) = key(&rule.sign) {
            let context = signer::Context::HMAC_SHA2(ScopeFlags::default());
            let signed = Signer::new(&bundle, &data)
                .sign_block(1, context, bundle.id.source.clone(), key)
                .map_err(|(_, error)| error)
                .and_then(Signer::rebuild_bundle)
                .map_err(|error| error.to_string())?;
            (bundle, data) = (signed.0, Bytes::from(signed.1));
        }
        if let Some(key) = key(&rule.encrypt) {
            let context = encryptor::Context::AES_GCM(ScopeFlags::default());
            let encrypted = Encryptor::new(&bundle, &data)
                .encrypt_block(1, context, bundle.id.source.clone(), key)
                .map_err(|(_, error)| error)
                .and_then(Encryptor::rebuild_bundle)
                .map_err(|error| error.to_string())?;
            (bundle, data) = (encrypted.0, Bytes::from(encrypted.1));
        }
        Ok((bundle, data))
    }

    /// The key that signed a bundle for us, if it is signed and that can be told.
    pub(crate) fn verify(&self, bundle: &Bundle, data: &Bytes) -> Result<Option<String>, Doubt> {
        let rule = self.accepted(&bundle.id.source);
        let found = self.signer(rule, bundle, data)?;
        if found.is_none() && rule.is_some_and(|it| it.required) {
            return Err(UNSIGNED);
        }
        Ok(found)
    }

    fn signer(&self, rule: Option<&Accept>, bundle: &Bundle, data: &Bytes) -> Result<Option<String>, Doubt> {
        let encrypted = bundle.blocks.get(&1).is_some_and(|it| it.bcb.is_some());
        let (confidentiality, opened) = if encrypted {
            let (key, _) = self.decrypt(rule, bundle, data).ok_or(SECRET)?;
            let keys = Pair {
                confidentiality: Some(key),
                ..Pair::default()
            };
            // Which block is signed is known only once the integrity block is decrypted, too.
            let opened = ParsedBundle::parse_with_keys(data, &keys).map_err(|_| SECRET)?;
            (Some(key), Some(opened.bundle))
        } else {
            (None, None)
        };
        let bundle = opened.as_ref().unwrap_or(bundle);
        let mut tried = false;
        for (id, key) in self.keys_of(rule, KeyKind::Integrity) {
            let keys = Pair {
                integrity: Some(key),
                confidentiality,
            };
            match bundle.verify_block(1, data, &keys) {
                Ok(true) => return Ok(Some(id.to_owned())),
                Ok(false) => return Ok(None),
                Err(_) => tried = true,
            }
        }
        if tried { Err(FORGED) } else { Ok(None) }
    }

    /// The application data unit of a bundle for us, decrypted where need be.
    pub(crate) fn payload(&self, bundle: &Bundle, data: &Bytes) -> Option<Bytes> {
        let block = bundle.blocks.get(&1)?;
        if block.bcb.is_none() {
            let range = block.payload_range();
            return (range.end <= data.len()).then(|| data.slice(range));
        }
        let rule = self.accepted(&bundle.id.source);
        self.decrypt(rule, bundle, data).map(|(_, payload)| payload)
    }

    fn decrypt<'a>(
        &'a self,
        rule: Option<&'a Accept>,
        bundle: &Bundle,
        data: &Bytes,
    ) -> Option<(&'a Key, Bytes)> {
        self.keys_of(rule, KeyKind::Confidentiality).find_map(|(_, key)| {
            let keys = Pair {
                confidentiality: Some(key),
                ..Pair::default()
            };
            let plain: Result<_, Error> = bundle.block_data(1, data, &keys);
            Some((key, Bytes::copy_from_slice(plain.ok()?.as_ref())))
        })
    }

    fn accepted(&self, source: &Eid) -> Option<&Accept> {
        let source = eid::plain(source);
        self.rules.incoming.iter().find(|it| it.sources.matches(&source))
    }

    fn keys_of<'a>(
        &'a self,
        rule: Option<&'a Accept>,
        kind: KeyKind,
    ) -> impl Iterator<Item = (&'a str, &'a Key)> + 'a {
        rule.into_iter()
            .flat_map(|it| &it.keys)
            .filter_map(move |id| match self.keys.get(id) {
                Some((found, key)) if *found == kind => Some((id.as_str(), key)),
                _ => None,
            })
    }
}

fn read(file: &KeyFile) -> Result<Key, String> {
    let said = |error: std::io::Error| error.to_string();
    let metadata = std::fs::metadata(&file.path).map_err(said)?;
    if metadata.len() > FILE {
        return Err("is too large for a key; write it as hexadecimal digits".to_owned());
    }
    warn_if_open(&file.path, metadata.permissions().mode());
    let text = std::fs::read_to_string(&file.path).map_err(said)?;
    let key =
        hexadecimal(text.trim()).ok_or("holds no hexadecimal digits; openssl rand -hex 32 writes some")?;
    let (key_algorithm, enc_algorithm) = match (file.kind, key.len()) {
        (KeyKind::Integrity, 32..=64) => (Some(KeyAlgorithm::HS256), None),
        (KeyKind::Confidentiality, 16) => (Some(KeyAlgorithm::Direct), Some(EncAlgorithm::A128GCM)),
        (KeyKind::Confidentiality, 32) => (Some(KeyAlgorithm::Direct), Some(EncAlgorithm::A256GCM)),
        (KeyKind::Integrity, octets) => {
            return Err(format!("holds {octets} octets; an integrity key has 32 to 64"));
        }
        (KeyKind::Confidentiality, octets) => {
            return Err(format!(
                "holds {octets} octets; a confidentiality key has 16 or 32"
            ));
        }
    };
    Ok(Key {
        key_type: Type::OctetSequence { key: key.into() },
        key_algorithm,
        enc_algorithm,
        id: Some(file.id.clone()),
        ..Key::default()
    })
}

fn warn_if_open(path: &Path, mode: u32) {
    if mode & 0o007 != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = format_args!("{:03o}", mode & 0o777),
            "everybody on this host can read this key; chmod it to 600 or 640"
        );
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(2) || !text.bytes().all(|it| it.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}
