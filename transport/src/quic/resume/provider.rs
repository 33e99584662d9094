//! A rustls configuration whose unforeseeable inputs come from the [`stage`].

use std::sync::Arc;

use ring::rand::SecureRandom as _;
use rustls::{
    NamedGroup, SignatureAlgorithm, SignatureScheme,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
    crypto::{
        ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
        ring::kx_group,
    },
    ffdhe_groups::FfdheGroup,
    sign::{CertifiedKey, Signer, SigningKey},
    time_provider::TimeProvider,
};
use rustls_pki_types::{ServerName, SubjectPublicKeyInfoDer, UnixTime};

use super::stage::{self, Kind};

/// `ring`, on the stage.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        secure_random: &Randomness,
        kx_groups: vec![&X25519, &SECP256R1, &SECP384R1],
        ..rustls::crypto::ring::default_provider()
    }
}

/// `key`, whose signatures are drawn on the stage.
pub(crate) fn signing(key: CertifiedKey) -> CertifiedKey {
    CertifiedKey {
        key: Arc::new(StagedKey(key.key)),
        ..key
    }
}

/// Lets `config`, made with [`provider`], take its time and its sessions from the stage.
pub(crate) fn prepare(config: &mut rustls::ClientConfig) {
    config.time_provider = Arc::new(StagedTime(config.time_provider.clone()));
    config.resumption = Resumption::store(Arc::new(StagedSessions));
}

#[derive(Debug)]
struct Randomness;

impl SecureRandom for Randomness {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        let drawn = stage::draw(Kind::Random, || {
            let mut octets = vec![0; buf.len()];
            ring::rand::SystemRandom::new().fill(&mut octets).ok()?;
            Some(octets)
        });
        let drawn = drawn.filter(|octets| octets.len() == buf.len());
        buf.copy_from_slice(&drawn.ok_or(GetRandomFailed)?);
        Ok(())
    }
}

/// A group whose key exchanges are drawn on the stage.
#[derive(Debug)]
struct Group(fn() -> &'static dyn SupportedKxGroup);

static X25519: Group = Group(|| kx_group::X25519);
static SECP256R1: Group = Group(|| kx_group::SECP256R1);
static SECP384R1: Group = Group(|| kx_group::SECP384R1);

impl SupportedKxGroup for Group {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        let mut inner = None;
        let share = stage::draw(Kind::Share, || {
            let begun = (self.0)().start().ok()?;
            let share = begun.pub_key().to_vec();
            inner = Some(begun);
            Some(share)
        });
        Ok(Box::new(Exchange {
            inner,
            group: self.name(),
            share: share.ok_or(rustls::Error::FailedToGetRandomBytes)?,
        }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        (self.0)().name()
    }
}

struct Exchange {
    /// Nothing on replay.
    inner: Option<Box<dyn ActiveKeyExchange>>,
    group: NamedGroup,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, rustls::Error> {
        let mut failed = rustls::Error::General("the replay has left the record".into());
        let secret = stage::draw(Kind::Secret, || match self.inner?.complete(peer) {
            Ok(secret) => Some(secret.secret_bytes().to_vec()),
            Err(error) => {
                failed = error;
                None
            }
        });
        secret.map(SharedSecret::from).ok_or(failed)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn group(&self) -> NamedGroup {
        self.group
    }
}

#[derive(Debug)]
struct StagedKey(Arc<dyn SigningKey>);

impl SigningKey for StagedKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = self.0.choose_scheme(offered)?;
        Some(Box::new(StagedSigner(signer)))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[derive(Debug)]
struct StagedSigner(Box<dyn Signer>);

impl Signer for StagedSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut failed = rustls::Error::General("the replay has left the record".into());
        let signature = stage::draw(Kind::Signature, || match self.0.sign(message) {
            Ok(signature) => Some(signature),
            Err(error) => {
                failed = error;
                None
            }
        });
        signature.ok_or(failed)
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}

#[derive(Debug)]
struct StagedTime(Arc<dyn TimeProvider>);

impl TimeProvider for StagedTime {
    fn current_time(&self) -> Option<UnixTime> {
        let staged = stage::look(|stage| stage.now);
        match staged {
            Some(now) => Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(now))),
            None => self.0.current_time(),
        }
    }
}

/// Sessions come from the stage and go there; without one there are none.
#[derive(Debug)]
struct StagedSessions;

impl ClientSessionStore for StagedSessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        stage::look(|stage| stage.group = Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        stage::look(|stage| stage.group).flatten()
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        stage::look(|stage| stage.born.push(value));
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        stage::look(|stage| stage.ticket.take()).flatten()
    }
}
