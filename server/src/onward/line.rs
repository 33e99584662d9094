//! One server that mail is handed to: its sessions, its room, and whether it can be reached.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use lightpost_clock::{Clock, add};
use lightpost_smtp::Pool;
use lightpost_transport::tls::TlsError;
use tokio::sync::Semaphore;

use crate::config::Relay;

/// Mails that are leased for each session: enough to keep it busy while outcomes are being stored.
const AHEAD: usize = 8;
/// Mails that are leased at most for a server that could not be reached before: the first of them finds out whether it can now, and
/// those whose lifetime is over get their end.
const PROBES: usize = 16;
/// How long a server that could not be reached is left alone.
const REST: Duration = Duration::from_secs(10);

/// A server with its sessions.
pub(super) struct Line {
    pub(super) relay: Relay,
    pub(super) pool: Pool,
    /// A permit for each session.
    pub(super) sessions: Semaphore,
    /// Mails that are leased for it.
    leased: AtomicUsize,
    /// Until when it is left alone, and why.
    down: Mutex<Option<(Timestamp, String)>>,
}

impl Line {
    pub(super) fn new(relay: Relay, clock: Clock) -> Result<Self, TlsError> {
        let target = relay.target()?;
        Ok(Self {
            pool: Pool::new(target, clock, relay.concurrency),
            sessions: Semaphore::new(relay.concurrency.min(Semaphore::MAX_PERMITS)),
            leased: AtomicUsize::new(0),
            down: Mutex::default(),
            relay,
        })
    }

    /// How many more mails may be leased.
    pub(super) fn room(&self) -> usize {
        let mut most = self.relay.concurrency.saturating_mul(AHEAD);
        if self.down().is_some() {
            most = most.min(PROBES);
        }
        most.saturating_sub(self.leased.load(Ordering::Acquire))
    }

    /// Takes room for one mail.
    pub(super) fn take(&self) {
        self.leased.fetch_add(1, Ordering::AcqRel);
    }

    /// Gives the room of one mail back; whether so much is free that leasing is worth while.
    pub(super) fn give(&self) -> bool {
        let before = self.leased.fetch_sub(1, Ordering::AcqRel);
        before <= self.relay.concurrency.saturating_mul(AHEAD / 2)
    }

    /// Why the server need not be tried at `now`.
    pub(super) fn is_down(&self, now: Timestamp) -> Option<String> {
        let down = self.down();
        down.as_ref()
            .filter(|(until, _)| now < *until)
            .map(|(_, why)| why.clone())
    }

    /// Notes that it could not be reached.
    pub(super) fn failed(&self, now: Timestamp, why: &str) {
        let until = add(now, REST.min(self.relay.policy.first / 2));
        if self.down().replace((until, why.to_owned())).is_none() {
            tracing::warn!(server = %self.relay.address, why, "the server cannot be reached; mail waits");
        }
    }

    /// Notes that it answered.
    pub(super) fn works(&self) {
        if self.down().take().is_some() {
            tracing::info!(server = %self.relay.address, "the server can be reached again");
        }
    }

    /// Whether it could be reached when it was tried last, and how many mails are leased for it.
    pub(super) fn measured(&self) -> (bool, usize) {
        (self.down().is_none(), self.leased.load(Ordering::Acquire))
    }

    fn down(&self) -> MutexGuard<'_, Option<(Timestamp, String)>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
