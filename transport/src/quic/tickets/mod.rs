//! What a listener gives to its clients so that their next connection is quicker: TLS sessions and address-validation tokens.
//!
//! A client that resumes a session sends its requests with its first packet (0-RTT) and is heard after one light time instead of three. Three
//! things keep that from working over distance by itself, and are seen to here:
//!
//! - rustls keeps sessions in memory, and a restart loses them. Ours are written to a file a moment later ([`disk`]), never within rustls'
//!   call. A session that was used just before a crash may come back with the next start; a first flight that is replayed then is a repeat of
//!   the same exchange and is answered as one.
//! - rustls takes early data only when client and server agree about a session's age within a minute; over distance they differ by
//!   the round trip, and across an outage by its length. The age that the client claims is read from its ClientHello ([`hello`]), and a
//!   difference that the path explains is settled in the client's favour ([`value`]).
//! - Whose address is not known for real is sent no more than three times what it has sent; a token of its last connection shows
//!   that it is ([`validation`]).

mod crypto;
mod disk;
mod hello;
mod sessions;
mod validation;
mod value;

use std::{
    io,
    path::{Path as FilePath, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lightpost_clock::Clock;
use quinn::{ServerConfig, TransportConfig, crypto::rustls::QuicServerConfig};
use ring::digest::{Context, SHA256};

use self::{
    crypto::Listening,
    sessions::{Bounds, Sessions},
};
use crate::{
    Path,
    quic::net::TlsTime,
    tls::{self, TlsError},
};

/// How long a change waits at least before it is written.
const PAUSE: Duration = Duration::from_secs(1);
/// Writing may take this share of the time: the disk belongs to the mail.
const SHARE: u32 = 50;
/// How often the old are swept out although nothing changes.
const SWEEP: Duration = Duration::from_secs(60 * 60);
/// What clocks and queues on the way may add to the path's own difference between two ages.
const MARGIN: Duration = Duration::from_secs(10 * 60);

/// Where sessions are kept between two runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file, made when missing. It holds secrets and is readable by us only.
    pub file: PathBuf,
    /// What the sessions are bound to: those of another scope are not taken up. See [`scope`].
    pub scope: [u8; 32],
}

impl Place {
    /// A client that resumes a session relies on what it was allowed then, and ends the connection when it is allowed less (RFC 9000
    /// section 7.4.1): sessions end when the profile changes.
    fn bound_to(mut self, transport: &TransportConfig) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(&self.scope);
        hash.update(format!("{transport:?}").as_bytes());
        self.scope.copy_from_slice(hash.finish().as_ref());
        self
    }
}

/// A scope for [`Place`]: what these files hold. A session stands for a client certificate that was verified once and is not verified
/// again, so it must not outlive the CAs that it was verified with.
///
/// # Errors
/// Names the file that cannot be read.
pub fn scope(files: &[&FilePath]) -> Result<[u8; 32], TlsError> {
    let mut hash = Context::new(&SHA256);
    for file in files {
        let octets = tls::read(file)?;
        hash.update(&(octets.len() as u64).to_be_bytes());
        hash.update(&octets);
    }
    let mut scope = [0; 32];
    scope.copy_from_slice(hash.finish().as_ref());
    Ok(scope)
}

/// How far a client's idea of a session's age may be from ours when it comes by the slowest of `paths`: a round trip, the longest
/// outage that can hold its first flight, and ten minutes.
pub fn age_tolerance(paths: &[Path]) -> Duration {
    let held = |path: &Path| path.round_trip_max().saturating_add(path.outage_max);
    let longest = paths.iter().map(held).max().unwrap_or_default();
    longest.saturating_add(MARGIN)
}

/// How a listener keeps sessions and makes tokens.
#[derive(Clone, Debug, Default)]
pub struct Tickets {
    /// Where sessions outlive the process; in memory only when `None`.
    pub sessions: Option<Place>,
    /// The file with the key of the tokens, made when missing; a fresh key with each start when `None`.
    pub token_key: Option<PathBuf>,
    /// How far a client may be wrong about a session's age; [`age_tolerance`] when `None`, and rustls' minute alone when zero.
    pub age_tolerance: Option<Duration>,
}

impl Tickets {
    /// QUIC's configuration for a listener with `tls` and `transport`, and what keeps its sessions.
    ///
    /// # Errors
    /// When `tls` cannot be used for QUIC, or the key of the tokens cannot be read or made. Sessions that cannot be read are none.
    pub(crate) fn server_config(
        &self,
        tls: &rustls::ServerConfig,
        transport: Arc<TransportConfig>,
        paths: &[Path],
    ) -> io::Result<(ServerConfig, Keeper)> {
        let tolerance = self.age_tolerance.unwrap_or_else(|| age_tolerance(paths));
        let mut tls = tls::quic_server(tls);
        let sessions = Arc::new(Sessions::new(
            tls.time_provider.clone(),
            tolerance,
            Bounds::default(),
        ));
        tls.session_storage = sessions.clone();
        let keeper = Keeper {
            sessions: sessions.clone(),
            writing: Arc::default(),
            place: self.sessions.clone().map(|place| place.bound_to(&transport)),
        };
        keeper.take_up();
        let time = TlsTime(tls.time_provider.clone());
        let tls = QuicServerConfig::try_from(Arc::new(tls)).map_err(io::Error::other)?;
        let crypto = Listening {
            tls: Arc::new(tls),
            sessions,
        };
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(transport).time_source(Arc::new(time));
        validation::configure(&mut config, paths, self.token_key.as_deref())?;
        Ok((config, keeper))
    }
}

/// Writes a listener's sessions behind its back.
pub(crate) struct Keeper {
    sessions: Arc<Sessions>,
    /// Held while the disk is written to: a write goes on when nobody waits for it any more.
    writing: Arc<Mutex<()>>,
    place: Option<Place>,
}

impl Keeper {
    /// Takes up what the last run has kept; one line when that cannot be used.
    fn take_up(&self) {
        let Some(place) = &self.place else { return };
        match disk::read(&place.file, &place.scope) {
            Ok(kept) => self.sessions.restore(kept),
            Err(cause) => tracing::warn!(
                file = %place.file.display(),
                %cause,
                "the sessions of the last run are not taken up; the next connection of each client takes a round trip more"
            ),
        }
    }

    /// Writes each change after a moment, for ever.
    pub(crate) async fn keep(&self, clock: &Clock) {
        let mut told = false;
        loop {
            let _ = clock.timeout(SWEEP, self.sessions.changed.notified()).await;
            clock.sleep(PAUSE).await;
            let start = clock.instant();
            let written = self.write().await;
            if let (Err(cause), false, Some(place)) = (&written, told, &self.place) {
                tracing::warn!(file = %place.file.display(), %cause, "sessions cannot be written; a restart will lose them");
            }
            told = written.is_err();
            clock.sleep(clock.instant().duration_since(start) * SHARE).await;
        }
    }

    /// Writes all sessions now.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) async fn write(&self) -> io::Result<()> {
        let Some(place) = self.place.clone() else {
            return Ok(());
        };
        let (sessions, writing) = (self.sessions.clone(), self.writing.clone());
        let write = move || {
            // In this order, so that the last image is also the newest.
            let _alone = writing.lock().unwrap_or_else(PoisonError::into_inner);
            disk::write(&place.file, &place.scope, &sessions.all())
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(io::Error::other)?
    }
}
