//! Notifications to the local MTA.
//!
//! They have the null reverse-path: one that the MTA refuses for good is noted in the log and in its history, and nobody is told.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use lightpost_clock::add;
use lightpost_intake::Original;
use lightpost_mail::Envelope;
use lightpost_queue::{
    Claim, ClaimedMessage, ClaimedRecipient, Disposition, Exchanged, LOCAL, WaitReason, schedule::Policy,
};
use lightpost_smtp::send::{RecipientOutcome, Session, SmtpError, Target};

use super::{
    LEASE, Shared,
    plan::{expired, retry},
    settle::Fate,
};

/// Notifications that are claimed at once.
const BATCH: usize = 32;

impl Shared {
    /// Delivers until nothing more is due; returns how many messages were claimed.
    pub(crate) async fn serve_local(self: Arc<Self>, target: Arc<Target>) -> usize {
        let mut total = 0;
        while !self.stop.is_cancelled() {
            let now = self.clock.now();
            let claim = Claim {
                owner: &self.config.name,
                destination: LOCAL,
                now,
                until: add(now, LEASE),
                limit: BATCH,
            };
            let claimed = match self.store.claim(claim).await {
                Ok(claimed) if !claimed.is_empty() => claimed,
                Ok(_) => break,
                Err(error) => {
                    tracing::error!(%error, "notifications cannot be claimed; trying again");
                    self.clock.sleep(super::STORE_RETRY).await;
                    break;
                }
            };
            total += claimed.len();
            self.deliver(&target, claimed).await;
        }
        total
    }

    async fn deliver(&self, target: &Target, claimed: Vec<ClaimedMessage>) {
        let mut session: Option<Session> = None;
        let mut broken: Option<SmtpError> = None;
        for message in claimed {
            if self.stop.is_cancelled() {
                // What is left is queued again at the next start.
                break;
            }
            let original = Arc::new(Original::from(&message));
            let (dead, alive): (Vec<_>, Vec<_>) = message
                .recipients
                .iter()
                .cloned()
                .partition(|one| one.expires <= self.clock.now());
            let mut fates: Vec<Fate> = dead.into_iter().map(expired).collect();
            if !alive.is_empty() {
                if session.is_none() && broken.is_none() {
                    match Session::open(target, &self.clock).await {
                        Ok(open) => session = Some(open),
                        Err(error) => broken = Some(error),
                    }
                }
                let delivered = match (&mut session, &broken) {
                    (Some(session), _) => self.one(session, &message, alive).await,
                    (None, error) => {
                        let detail = error.as_ref().map(ToString::to_string).unwrap_or_default();
                        Ok(self.deferred(alive, &detail, None))
                    }
                };
                match delivered {
                    Ok(all) => fates.extend(all),
                    Err((recipients, error)) => {
                        tracing::warn!(%error, "a notification waits for the local MTA");
                        fates.extend(self.deferred(recipients, &error.to_string(), None));
                        session = None;
                    }
                }
            }
            self.settle(original, fates, None).await;
        }
        if let Some(error) = broken {
            tracing::warn!(%error, "notifications wait for the local MTA");
        }
        if let Some(session) = session {
            session.close().await;
        }
    }

    async fn one(
        &self,
        session: &mut Session,
        message: &ClaimedMessage,
        recipients: Vec<ClaimedRecipient>,
    ) -> Result<Vec<Fate>, (Vec<ClaimedRecipient>, SmtpError)> {
        let envelope = Envelope {
            sender: message.sender.clone(),
            recipients: recipients.iter().map(|one| one.recipient.clone()).collect(),
        };
        let (store, id, size) = (self.store.clone(), message.body, message.facts.size);
        let body = stream::try_unfold(0, move |offset| {
            let store = store.clone();
            async move {
                if offset >= size {
                    return Ok(None);
                }
                let chunk = store.read_body(id, offset).await.map_err(std::io::Error::other)?;
                if chunk.is_empty() {
                    return Err(std::io::Error::other("the stored body is cut off"));
                }
                let next = offset + chunk.len() as u64;
                Ok(Some((chunk, next)))
            }
        });
        let delivery = match session.deliver(&envelope, &message.facts, body.boxed()).await {
            Ok(delivery) => delivery,
            Err(error) => return Err((recipients, error)),
        };
        let server = delivery.server;
        let fates = recipients
            .into_iter()
            .zip(delivery.recipients)
            .flat_map(|(recipient, outcome)| {
                let (disposition, detail) = match outcome {
                    RecipientOutcome::Accepted(reply) => (Disposition::Delivered, reply.to_string()),
                    RecipientOutcome::Refused(reply) if reply.is_permanent() => {
                        (Disposition::Failed(reply.status()), reply.to_string())
                    }
                    RecipientOutcome::Unsupported(what) => (
                        Disposition::Failed(lightpost_mail::EnhancedCode::new(5, 6, 7)),
                        format!("the local MTA does not offer {what}"),
                    ),
                    RecipientOutcome::Refused(reply) => {
                        return self.deferred(vec![recipient], &reply.to_string(), Some(&server));
                    }
                    RecipientOutcome::Unknown(why) => {
                        return self.deferred(vec![recipient], &why, Some(&server));
                    }
                };
                vec![Fate {
                    recipient,
                    disposition,
                    remote: Some(server.clone()),
                    detail,
                }]
            });
        Ok(fates.collect())
    }

    fn deferred(&self, recipients: Vec<ClaimedRecipient>, detail: &str, server: Option<&str>) -> Vec<Fate> {
        let now = self.clock.now();
        // The MTA is next door: no light time enters here.
        let policy = Policy {
            first: Duration::from_secs(10),
            longest: Duration::from_secs(1800),
            factor: 2.0,
            lifetime: self.config.local.lifetime,
            reply: self.config.local.reply_timeout,
        };
        recipients
            .into_iter()
            .map(|recipient| {
                let due = policy.next(recipient.attempts.saturating_add(1), now, recipient.expires);
                match due {
                    Some(due) => Fate {
                        recipient,
                        disposition: retry(due, WaitReason::Deferred, true, Exchanged::Closed),
                        remote: server.map(str::to_owned),
                        detail: detail.to_owned(),
                    },
                    None => expired(recipient),
                }
            })
            .collect()
    }
}
