//! Notifications (RFC 3464) as messages of the queue: written from what became of a mail, stored in the transaction that caused them.
//! [`delays`] tells of mail that is late.

pub mod delays;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use lightpost_clock::add;
use lightpost_mail::{
    Address, ReversePath, Sender,
    dsn::{self, Action, Notification, RecipientStatus},
    envelope::Ret,
    lines::{BareLineEnds, Canonicaliser},
};
use lightpost_queue::{
    BodyId, ClaimedMessage, LOCAL, LateMessage, NewBody, NewMessage, NewRecipient, Store, StoreError,
};
use ulid::Ulid;

pub use settings::NoticeSettings;

/// The largest mail that comes back whole where `RET=FULL` asks for it.
const WHOLE: u64 = 256 * 1024;
/// The most of a header section that comes back.
const HEADERS: usize = 64 * 1024;

/// The mail that a notification is about.
#[derive(Clone, Debug)]
pub struct Original {
    /// Its id.
    pub id: Ulid,
    /// `MAIL FROM`.
    pub sender: Sender,
    /// Its body.
    pub body: BodyId,
    /// Octets of the body.
    pub size: u64,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// Sending order, the notification's as well.
    pub priority: i8,
}

impl From<&ClaimedMessage> for Original {
    fn from(message: &ClaimedMessage) -> Self {
        Self {
            id: message.id,
            sender: message.sender.clone(),
            body: message.body,
            size: message.facts.size,
            accepted: message.accepted,
            priority: message.priority,
        }
    }
}

impl From<&LateMessage> for Original {
    fn from(message: &LateMessage) -> Self {
        Self {
            id: message.id,
            sender: message.sender.clone(),
            body: message.body,
            size: message.facts.size,
            accepted: message.accepted,
            priority: message.priority,
        }
    }
}

/// Who writes notifications.
#[derive(Clone)]
pub struct Reporter {
    /// Where originals are.
    pub store: Arc<dyn Store>,
    /// The name of this host.
    pub name: String,
    /// Who notifications come from in their header.
    pub from: Address,
    /// Who hears of mail without a reverse-path.
    pub postmaster: Address,
    /// How long a notification is tried.
    pub lifetime: std::time::Duration,
}

impl Reporter {
    /// Whether somebody hears of it: the sender who wants to, or the postmaster where a mail without a sender failed.
    pub fn tells(&self, original: &Original, status: &RecipientStatus) -> bool {
        let (sender, recipient) = (&original.sender, &status.recipient);
        dsn::wanted(sender, recipient, status.action)
            || (status.action == Action::Failed
                && dsn::concerns_postmaster(sender, recipient, &self.postmaster))
    }

    /// The notification that reports `statuses`, at `now`: to the sender or, where there is none, to the postmaster. It has to be stored
    /// together with what it reports.
    ///
    /// Which of them anybody wants to hear is the caller's business.
    pub async fn write(
        &self,
        original: &Original,
        statuses: &[RecipientStatus],
        now: Timestamp,
    ) -> NewMessage {
        // RET is about failures; of all else the header section tells enough (RFC 3461 section 4.3).
        let failed = statuses.iter().any(|status| status.action == Action::Failed);
        let full = failed && original.sender.parameters.ret == Some(Ret::Full) && original.size <= WHOLE;
        let returned = self.returned(original, full).await.unwrap_or_else(|error| {
            tracing::warn!(id = %original.id, %error, "a notification goes without the original's header section");
            Vec::new()
        });
        let id = new_id(now);
        let notification = Notification {
            reporting_mta: &self.name,
            from: &self.from,
            original: &original.sender,
            arrival: original.accepted,
            recipients: statuses,
            returned: &returned,
            returned_full: full,
            now,
            id: &id.to_string(),
        };
        let (recipient, octets) = dsn::write(&notification)
            .unwrap_or_else(|| dsn::write_to_postmaster(&notification, &self.postmaster));
        let mut machine = Canonicaliser::new(BareLineEnds::Normalise);
        let mut body = Vec::with_capacity(octets.len() + 2);
        // A normalising machine refuses nothing.
        let _ = machine.push(&octets, &mut body);
        let facts = machine.finish(&mut body).unwrap_or_default();
        tracing::info!(id = %original.id, notification = %id, to = %recipient.address, "a notification is written");
        NewMessage {
            id,
            sender: Sender::new(ReversePath::Null),
            recipients: vec![NewRecipient {
                recipient,
                destination: LOCAL.to_owned(),
                due: now,
                expires: add(now, self.lifetime),
                notice: None,
            }],
            body: NewBody::Inline(Bytes::from(body)),
            facts,
            priority: original.priority,
            origin: "dsn".into(),
            origin_id: Some(original.id.to_string()),
            upstream: None,
            accepted: now,
            hold: None,
            notes: Vec::new(),
        }
    }

    /// The original whole, or its header section.
    async fn returned(&self, original: &Original, full: bool) -> Result<Vec<u8>, StoreError> {
        let mut octets = Vec::new();
        while (octets.len() as u64) < original.size {
            let chunk = self.store.read_body(original.body, octets.len() as u64).await?;
            if chunk.is_empty() {
                break;
            }
            octets.extend_from_slice(&chunk);
            if full {
                continue;
            }
            if let Some(end) = end_of_headers(&octets) {
                octets.truncate(end);
                break;
            }
            if octets.len() >= HEADERS {
                // Cut at a line's end: what follows would not be a field.
                let kept = octets.get(..HEADERS).unwrap_or_default();
                let end = kept
                    .windows(2)
                    .rposition(|pair| pair == b"\r\n")
                    .map_or(0, |at| at + 2);
                octets.truncate(end);
                break;
            }
        }
        Ok(octets)
    }
}

/// The length of a header section with the line end of its last field; `None` when its end is not there yet.
fn end_of_headers(octets: &[u8]) -> Option<usize> {
    if octets.starts_with(b"\r\n") {
        return Some(0);
    }
    octets
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 2)
}

/// A new id that sorts by `now`.
fn new_id(now: Timestamp) -> Ulid {
    let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or_default();
    Ulid::from_parts(milliseconds, rand::random())
}
