//! Notifications about mail that could not be handed over.

use jiff::Timestamp;
use lightpost_clock::add;
use lightpost_mail::{
    ReversePath, Sender,
    dsn::{self, Notification, RecipientStatus},
    envelope::Ret,
    lines::{BareLineEnds, Canonicaliser},
};
use lightpost_queue::{ClaimedMessage, LOCAL, NewBody, NewMessage, NewRecipient, StoreError};

use super::Shared;
use crate::new_id;

/// The largest mail that comes back whole where `RET=FULL` asks for it.
const WHOLE: u64 = 256 * 1024;
/// The most of a header section that comes back.
const HEADERS: usize = 64 * 1024;

/// Writes the notification that reports `statuses`, to the sender or, where there is none, to the postmaster; it is stored
/// together with the outcomes that it reports.
pub(super) async fn write(
    shared: &Shared,
    message: &ClaimedMessage,
    statuses: Vec<RecipientStatus>,
    now: Timestamp,
) -> NewMessage {
    let full = message.sender.parameters.ret == Some(Ret::Full) && message.facts.size <= WHOLE;
    let returned = returned(shared, message, full).await.unwrap_or_else(|error| {
        tracing::warn!(id = %message.id, %error, "a notification goes out without the original's header section");
        Vec::new()
    });
    let id = new_id(now);
    let notification = Notification {
        reporting_mta: &shared.config.name,
        from: &shared.config.postmaster,
        original: &message.sender,
        arrival: message.accepted,
        recipients: &statuses,
        returned: &returned,
        returned_full: full,
        now,
        id: &id.to_string(),
    };
    let (recipient, octets) = match dsn::write(&notification) {
        Some(written) => written,
        None => dsn::write_to_postmaster(&notification, &shared.config.postmaster),
    };
    let mut machine = Canonicaliser::new(BareLineEnds::Normalise);
    let mut body = Vec::with_capacity(octets.len() + 2);
    // A normalising machine refuses nothing.
    let _ = machine.push(&octets, &mut body);
    let facts = machine.finish(&mut body).unwrap_or_default();
    let relays = &shared.config.onward;
    let lifetime = relays.notify.as_ref().unwrap_or(&relays.local).policy.lifetime;
    tracing::info!(id = %message.id, notification = %id, to = %recipient.address, "a notification is written");
    NewMessage {
        id,
        sender: Sender::new(ReversePath::Null),
        recipients: vec![NewRecipient {
            recipient,
            destination: LOCAL.to_owned(),
            due: now,
            expires: add(now, lifetime),
        }],
        body: NewBody::Inline(body.into()),
        facts,
        priority: message.priority,
        origin: "dsn".into(),
        origin_id: Some(message.id.to_string()),
        upstream: None,
        accepted: now,
        hold: None,
    }
}

/// The original whole, or its header section.
async fn returned(shared: &Shared, message: &ClaimedMessage, full: bool) -> Result<Vec<u8>, StoreError> {
    let mut octets = Vec::new();
    while (octets.len() as u64) < message.facts.size {
        let chunk = shared.store.read_body(message.body, octets.len() as u64).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_sections_end_at_the_first_empty_line() {
        for (octets, end) in [
            (&b"A: b\r\nC: d\r\n\r\nbody\r\n\r\n"[..], Some(12)),
            (b"\r\nbody", Some(0)),
            (b"A: b\r\n", None),
            (b"", None),
        ] {
            assert_eq!(end_of_headers(octets), end);
        }
    }
}
