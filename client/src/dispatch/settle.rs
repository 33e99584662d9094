//! Storing what became of recipients, many at once, together with the notifications that follow from it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use lightpost_clock::{Clock, add};
use lightpost_mail::{
    Address, EnhancedCode, Recipient, ReversePath, Sender,
    dsn::{self, Action, Notification, RecipientStatus},
    envelope::Ret,
    lines::{BareLineEnds, Canonicaliser},
};
use lightpost_queue::{
    BodyId, ClaimedMessage, ClaimedRecipient, Disposition, LOCAL, NewBody, NewMessage, NewRecipient,
    Settlement, Store,
};
use tokio::sync::{Notify, mpsc};
use ulid::Ulid;

use crate::config::Config;

/// Settlements in one transaction.
const BATCH: usize = 512;
/// Originals up to this size are returned whole where the sender asked for it.
const FULL: u64 = 64 * 1024;
/// The wait before a store that refused is asked again.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Delivery time expired.
const EXPIRED: EnhancedCode = EnhancedCode::new(5, 4, 7);

/// The message that fates belong to.
#[derive(Clone, Debug)]
pub(crate) struct Original {
    pub(crate) id: Ulid,
    pub(crate) sender: Sender,
    pub(crate) body: BodyId,
    pub(crate) size: u64,
    pub(crate) accepted: Timestamp,
}

impl From<&ClaimedMessage> for Original {
    fn from(message: &ClaimedMessage) -> Self {
        Self {
            id: message.id,
            sender: message.sender.clone(),
            body: message.body,
            size: message.facts.size,
            accepted: message.accepted,
        }
    }
}

/// What became of one recipient.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub(crate) recipient: ClaimedRecipient,
    pub(crate) disposition: Disposition,
    pub(crate) remote: Option<String>,
    pub(crate) detail: String,
}

/// What became of recipients of one message.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) original: Arc<Original>,
    pub(crate) at: Timestamp,
    pub(crate) fates: Vec<Fate>,
}

/// Takes verdicts until the last sender is gone.
pub(crate) struct Settler {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    /// Told when something may have become due.
    pub(crate) wake: Arc<Notify>,
}

impl Settler {
    pub(crate) async fn run(self, mut verdicts: mpsc::Receiver<Verdict>) {
        let mut batch = Vec::with_capacity(BATCH);
        while verdicts.recv_many(&mut batch, BATCH).await > 0 {
            let (mut settlements, mut notifications) = (Vec::new(), Vec::new());
            for verdict in batch.drain(..) {
                if let Some(notification) = self.notification(&verdict).await {
                    notifications.push(notification);
                }
                for fate in &verdict.fates {
                    tracing::info!(
                        id = %verdict.original.id,
                        recipient = %fate.recipient.recipient.address,
                        server = fate.remote,
                        outcome = ?fate.disposition,
                        detail = fate.detail
                    );
                }
                settlements.extend(verdict.fates.into_iter().map(|fate| Settlement {
                    recipient: fate.recipient.id,
                    disposition: fate.disposition,
                    at: verdict.at,
                    remote: fate.remote,
                    detail: fate.detail,
                }));
            }
            self.store(settlements, notifications).await;
        }
    }

    /// Stores them, however long that takes: what is not stored is sent or said again after a restart.
    async fn store(&self, settlements: Vec<Settlement>, notifications: Vec<NewMessage>) {
        let again = !notifications.is_empty()
            || settlements
                .iter()
                .any(|one| matches!(one.disposition, Disposition::Retry { .. }));
        while let Err(error) = self
            .store
            .settle(settlements.clone(), notifications.clone())
            .await
        {
            tracing::error!(%error, "what became of sent mail cannot be stored; trying again");
            self.clock.sleep(STORE_RETRY).await;
        }
        if again {
            self.wake.notify_one();
        }
    }

    /// The notification that a verdict causes, if any.
    async fn notification(&self, verdict: &Verdict) -> Option<NewMessage> {
        let original = &*verdict.original;
        let dead: Vec<&Fate> = verdict
            .fates
            .iter()
            .filter(|fate| matches!(fate.disposition, Disposition::Failed(_) | Disposition::Expired))
            .collect();
        if dead.is_empty() {
            return None;
        }
        for fate in &dead {
            let to = &fate.recipient.recipient.address;
            let sender = &original.sender.path;
            tracing::warn!(message = %original.id, %to, from = %sender, detail = fate.detail, "mail is given up");
        }
        let local = &self.config.local;
        let concerned = |fate: &Fate| {
            let recipient = &fate.recipient.recipient;
            dsn::wanted(&original.sender, recipient, Action::Failed)
                || dsn::concerns_postmaster(&original.sender, recipient, &local.postmaster)
        };
        let statuses: Vec<RecipientStatus> = dead
            .iter()
            .filter(|fate| concerned(fate))
            .map(|fate| status(fate, verdict.at))
            .collect();
        if statuses.is_empty() {
            return None;
        }
        self.write(original, verdict.at, &statuses).await
    }

    async fn write(
        &self,
        original: &Original,
        now: Timestamp,
        statuses: &[RecipientStatus],
    ) -> Option<NewMessage> {
        let from = Address::parse(&format!("MAILER-DAEMON@{}", self.config.name)).ok()?;
        let full = original.sender.parameters.ret == Some(Ret::Full) && original.size <= FULL;
        let returned = self.returned(original, full).await;
        let id = crate::ids::new(now);
        let notification = Notification {
            reporting_mta: &self.config.name,
            from: &from,
            original: &original.sender,
            arrival: original.accepted,
            recipients: statuses,
            returned: &returned,
            returned_full: full,
            now,
            id: &id.to_string(),
        };
        let (recipient, body) = dsn::write(&notification)
            .unwrap_or_else(|| dsn::write_to_postmaster(&notification, &self.config.local.postmaster));
        Some(self.message(id, recipient, &body, original, now))
    }

    fn message(
        &self,
        id: Ulid,
        recipient: Recipient,
        body: &[u8],
        original: &Original,
        now: Timestamp,
    ) -> NewMessage {
        let mut canonical = Canonicaliser::new(BareLineEnds::Normalise);
        let mut out = Vec::with_capacity(body.len());
        // A normalising machine refuses nothing.
        let _ = canonical.push(body, &mut out);
        let facts = canonical.finish(&mut out).unwrap_or_default();
        NewMessage {
            id,
            sender: Sender::new(ReversePath::Null),
            recipients: vec![NewRecipient {
                recipient,
                destination: LOCAL.into(),
                due: now,
                expires: add(now, self.config.local.lifetime),
            }],
            body: NewBody::Inline(Bytes::from(out)),
            facts,
            priority: 0,
            origin: "dsn".into(),
            origin_id: Some(original.id.to_string()),
            upstream: None,
            accepted: now,
            hold: None,
        }
    }

    /// The original's header section, or all of it.
    async fn returned(&self, original: &Original, full: bool) -> Vec<u8> {
        let mut octets = Vec::new();
        loop {
            match self.store.read_body(original.body, octets.len() as u64).await {
                Ok(chunk) if chunk.is_empty() => break,
                Ok(chunk) => octets.extend_from_slice(&chunk),
                Err(error) => {
                    tracing::warn!(message = %original.id, %error, "a notification goes without the original's header");
                    break;
                }
            }
            if !full {
                break;
            }
        }
        if !full {
            let end = octets
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
                .map_or(octets.len().min(FULL as usize), |end| end + 2);
            octets.truncate(end);
        }
        octets
    }
}

fn status(fate: &Fate, at: Timestamp) -> RecipientStatus {
    let status = match fate.disposition {
        Disposition::Failed(code) => code,
        _ => EXPIRED,
    };
    RecipientStatus {
        recipient: fate.recipient.recipient.clone(),
        action: Action::Failed,
        status,
        remote_mta: fate.remote.clone(),
        diagnostic: fate.detail.clone(),
        last_attempt: (fate.recipient.attempts > 0 || fate.remote.is_some()).then_some(at),
        retry_until: None,
    }
}
