//! Idle sessions to one server.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use lightpost_clock::{Clock, Instant};
use lightpost_mail::{Envelope, lines::BodyFacts};

use crate::send::{Delivery, RecipientOutcome, Session, SmtpError, Target};

/// How long a session is kept idle; well below the five minutes after which a server may hang up (RFC 5321 section
/// 4.5.3.2.7).
const IDLE: Duration = Duration::from_secs(60);

/// Keeps sessions to one server open between mails. Shared by reference or in an `Arc`.
#[derive(Debug)]
pub struct Pool {
    target: Target,
    clock: Clock,
    max_idle: usize,
    idle: Mutex<VecDeque<(Session, Instant)>>,
}

impl Pool {
    /// A pool that keeps at most `max_idle` idle sessions; how many are in use at a time is the caller's business.
    pub fn new(target: Target, clock: Clock, max_idle: usize) -> Self {
        Self {
            target,
            clock,
            max_idle,
            idle: Mutex::default(),
        }
    }

    /// The server.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// An idle session that the server has not closed meanwhile, or a new one.
    ///
    /// # Errors
    /// [`SmtpError`] of [`Session::open`]
    pub async fn get(&self) -> Result<Session, SmtpError> {
        match self.take() {
            Some(session) => Ok(session),
            // Rare, and much larger than the rest of what a delivery keeps.
            None => Box::pin(Session::open(&self.target, &self.clock)).await,
        }
    }

    /// Takes a session back; one that cannot be used again, or that is one too many, is closed.
    pub async fn put(&self, session: Session) {
        if let Some(session) = self.keep(session) {
            session.close().await;
        }
    }

    /// Delivers one mail on an idle session or a new one. Where an idle session turns out to be dead (lost or 421 before the
    /// server accepted MAIL) the mail is tried once more on a new one.
    ///
    /// # Errors
    /// [`SmtpError`]; nothing was accepted.
    pub async fn deliver(
        &self,
        envelope: &Envelope,
        facts: &BodyFacts,
        mut body: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<Delivery, SmtpError> {
        let mut session = self.get().await?;
        let was_used = session.is_used();
        let mut result = session.transact(envelope, facts, &mut body).await;
        if was_used && session.died_at_mail() && is_farewell(&result) {
            drop(session);
            session = Box::pin(Session::open(&self.target, &self.clock)).await?;
            result = session.transact(envelope, facts, &mut body).await;
        }
        self.put(session).await;
        result
    }

    fn take(&self) -> Option<Session> {
        let now = self.clock.instant();
        let mut idle = self.lock();
        // The latest first: it is the least likely to be stale, and the others may end by age.
        while let Some((mut session, since)) = idle.pop_back() {
            if now.duration_since(since) < IDLE && !session.is_stale() {
                return Some(session);
            }
        }
        None
    }

    /// Returns the session to close, if any.
    fn keep(&self, session: Session) -> Option<Session> {
        if !session.is_reusable() || self.max_idle == 0 {
            return Some(session);
        }
        let mut idle = self.lock();
        idle.push_back((session, self.clock.instant()));
        if idle.len() > self.max_idle {
            idle.pop_front().map(|(session, _)| session)
        } else {
            None
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Session, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the server ended the session instead of judging the mail.
fn is_farewell(result: &Result<Delivery, SmtpError>) -> bool {
    match result {
        Ok(delivery) => delivery
            .recipients
            .iter()
            .any(|outcome| matches!(outcome, RecipientOutcome::Refused(reply) if reply.code == 421)),
        Err(error) => matches!(error, SmtpError::Lost { .. }),
    }
}
