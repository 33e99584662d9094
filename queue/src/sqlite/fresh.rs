//! What is being stored, as a claim will give it: so that it need not be read again.

use jiff::Timestamp;

use super::{
    memory::SMALL,
    rows::{self, millis},
    tx::{Recipient, Tx},
};
use crate::{BodyId, ClaimedMessage, ClaimedRecipient, NewBody, NewMessage, RecipientId, Status};

/// The reason of what was never tried.
pub(super) const NEW: &str = "new";

/// Keeps a small message that can be claimed. `ids` are those of its recipients, in order.
pub(super) fn keep(
    tx: &mut Tx<'_>,
    seq: i64,
    body: i64,
    message: &NewMessage,
    ids: impl Iterator<Item = i64>,
) {
    let NewBody::Inline(content) = &message.body else {
        return;
    };
    if message.hold.is_some() || content.len() > SMALL {
        return;
    }
    let Some(accepted) = stored(message.accepted) else {
        return;
    };
    let mut recipients = Vec::with_capacity(message.recipients.len());
    for (id, recipient) in ids.zip(&message.recipients) {
        let Some(expires) = stored(recipient.expires) else {
            return;
        };
        recipients.push(ClaimedRecipient {
            id: RecipientId(id),
            recipient: recipient.recipient.clone(),
            destination: recipient.destination.clone(),
            attempts: 0,
            expires,
            exchange: None,
        });
        let row = Recipient {
            message: seq,
            message_id: Some(message.id),
            status: Status::Queued,
            due: Some(millis(recipient.due)),
            attempts: 0,
            reason: Some(NEW.to_owned()),
            owner: None,
            exchange: None,
            remote: None,
            detail: None,
        };
        tx.memory.learn(id, row);
    }
    let message = ClaimedMessage {
        id: message.id,
        sender: message.sender.clone(),
        body: BodyId(body),
        facts: message.facts,
        priority: message.priority,
        accepted,
        origin: message.origin.clone(),
        origin_id: message.origin_id.clone(),
        upstream: message.upstream.clone(),
        content: Some(content.clone()),
        recipients,
        closed: Vec::new(),
    };
    tx.memory.keep(seq, message);
}

/// A time as its column gives it back.
fn stored(at: Timestamp) -> Option<Timestamp> {
    rows::time(millis(at)).ok()
}
