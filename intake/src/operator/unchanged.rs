//! What an operation left as it was, and why.
//!
//! Operations are for what waits here. A recipient whose exchange has left, or may have, is none of that: a repeat now would cross with
//! the answer that is on its way, and nothing calls the mail back. So it stays, and the operator hears what it waits for and what
//! happens then.

use jiff::Timestamp;
use lightpost_queue::{MessageView, Operation, RecipientView, Status};
use serde::{Deserialize, Serialize};

/// A recipient that an operation did not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unchanged {
    /// Its address.
    pub recipient: String,
    /// Its status.
    pub status: Status,
    /// Until when it stays like this by itself: the reply is awaited, the worker has it, it is queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What it waits for and what happens then.
    pub why: String,
}

/// The recipients of `message` that are not as `operation` makes them; those that are done only when it fitted nobody at all.
pub(super) fn unchanged(message: &MessageView, operation: Operation, changed: u64) -> Vec<Unchanged> {
    let others = message.recipients.iter().filter(|recipient| {
        recipient.status != target(operation) && (changed == 0 || !is_done(recipient.status))
    });
    others
        .map(|recipient| Unchanged {
            recipient: recipient.address.clone(),
            status: recipient.status,
            until: recipient.due,
            why: why(recipient, operation),
        })
        .collect()
}

const fn target(operation: Operation) -> Status {
    match operation {
        Operation::Retry | Operation::Release => Status::Queued,
        Operation::Hold => Status::Held,
        Operation::Cancel => Status::Cancelled,
    }
}

const fn is_done(status: Status) -> bool {
    matches!(
        status,
        Status::Delivered | Status::Failed | Status::Expired | Status::Cancelled
    )
}

fn why(recipient: &RecipientView, operation: Operation) -> String {
    let until = recipient
        .due
        .map(|due| format!(" until {due:.0}"))
        .unwrap_or_default();
    match recipient.status {
        Status::Awaiting => {
            let from = recipient.remote.as_deref().unwrap_or("the gateway");
            let then = match operation {
                Operation::Retry | Operation::Release => {
                    "without one the same exchange is repeated then, by itself"
                }
                Operation::Hold => "without one it is queued again then, and can be held",
                Operation::Cancel => "it cannot be called back",
            };
            format!("it has left, or may have, and a reply from {from} is awaited{until}; {then}")
        }
        Status::Leased => format!("it is being worked on{until}; look again in a moment"),
        Status::Held => "it is held; release it".to_owned(),
        Status::Queued => format!("it is not held; it waits for its next attempt{until}"),
        Status::Delivered | Status::Failed | Status::Expired | Status::Cancelled => "it is done".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use lightpost_queue::RecipientId;
    use ulid::Ulid;

    use super::*;

    fn recipient(status: Status) -> RecipientView {
        RecipientView {
            id: RecipientId(1),
            address: "b@moon.example".into(),
            destination: "moon.example".into(),
            status,
            reason: None,
            due: Some("2030-01-01T00:45:00.5Z".parse().unwrap()),
            expires: Timestamp::UNIX_EPOCH,
            attempts: 1,
            exchange: None,
            remote: Some("https://gw1/in".into()),
            detail: None,
        }
    }

    fn message(statuses: &[Status]) -> MessageView {
        MessageView {
            id: Ulid::nil(),
            sender: String::new(),
            size: 1,
            priority: 0,
            origin: String::new(),
            origin_id: None,
            upstream: None,
            accepted: Timestamp::UNIX_EPOCH,
            recipients: statuses.iter().copied().map(recipient).collect(),
            history: Vec::new(),
        }
    }

    #[test]
    fn each_says_what_it_waits_for() {
        use Operation::{Cancel, Hold, Release, Retry};
        for (status, operation, expected) in [
            (
                Status::Awaiting,
                Retry,
                "it has left, or may have, and a reply from https://gw1/in is awaited until 2030-01-01T00:45:00Z; \
                 without one the same exchange is repeated then, by itself",
            ),
            (
                Status::Awaiting,
                Cancel,
                "it has left, or may have, and a reply from https://gw1/in is awaited until 2030-01-01T00:45:00Z; it cannot be called back",
            ),
            (
                Status::Leased,
                Hold,
                "it is being worked on until 2030-01-01T00:45:00Z; look again in a moment",
            ),
            (Status::Held, Retry, "it is held; release it"),
            (Status::Delivered, Retry, "it is done"),
        ] {
            let told = unchanged(&message(&[status]), operation, 0);
            assert_eq!(told[0].why, expected);
            assert_eq!((told.len(), told[0].status), (1, status));
        }
        assert_eq!(unchanged(&message(&[Status::Queued]), Release, 0), []);
    }

    #[test]
    fn who_is_done_is_told_only_when_nobody_was_changed() {
        let message = message(&[Status::Queued, Status::Delivered, Status::Awaiting]);
        let statuses = |changed| {
            let told = unchanged(&message, Operation::Retry, changed);
            told.iter().map(|one| one.status).collect::<Vec<_>>()
        };
        assert_eq!(statuses(1), [Status::Awaiting]);
        assert_eq!(statuses(0), [Status::Delivered, Status::Awaiting]);
    }
}
