//! From what the server said to each recipient's next status. No I/O.

use jiff::Timestamp;
use lightpost_mail::{
    EnhancedCode,
    dsn::{self, Action, RecipientStatus},
};
use lightpost_queue::{ClaimedRecipient, Disposition, Exchanged, Settlement, WaitReason, schedule::Policy};
use lightpost_smtp::send::{Delivery, Protocol, RecipientOutcome};

use super::deliver::Job;

/// The time that its sender set is over (RFC 2852 section 4.1, RFC 3463: delivery time expired).
const RETURNED: EnhancedCode = EnhancedCode::new(5, 4, 7);

/// What an attempt brought.
#[derive(Clone, Debug)]
pub(super) enum Attempt {
    /// The server answered for every recipient.
    Made(Delivery),
    /// There was no session to be had.
    Unreachable(String),
    /// The session broke before the final dot, or the body could not be read.
    Broken(String),
    /// Nothing was tried: the time after which its sender wants the mail back is over.
    Over,
}

/// A recipient's status and what a notification would say about it.
type Verdict = (Disposition, String, Option<(Action, EnhancedCode)>);

/// The next status of each recipient, and what there is to tell of those that are done.
pub(super) fn conclude(
    job: &Job,
    attempt: &Attempt,
    server: &str,
    now: Timestamp,
) -> (Vec<Settlement>, Vec<RecipientStatus>) {
    let (mut settlements, mut statuses) = (Vec::new(), Vec::new());
    for (index, recipient) in job.recipients.iter().enumerate() {
        let (disposition, detail, report) = verdict(job, recipient, attempt, index, now);
        let remote = match attempt {
            Attempt::Made(delivery) => delivery.server.as_str(),
            _ => server,
        };
        let told = |action| {
            action == Action::Failed || dsn::wanted(&job.message.sender, &recipient.recipient, action)
        };
        if let Some((action, status)) = report
            && told(action)
        {
            statuses.push(RecipientStatus {
                recipient: recipient.recipient.clone(),
                action,
                status,
                remote_mta: (!matches!(attempt, Attempt::Over)).then(|| host(remote).to_owned()),
                diagnostic: detail.clone(),
                smtp: matches!(attempt, Attempt::Made(_)) && starts_with_code(&detail),
                last_attempt: Some(now),
                retry_until: None,
            });
        }
        tracing::info!(
            id = %job.message.id,
            exchange = job.message.origin_id,
            upstream = job.message.upstream,
            recipient = %recipient.recipient.address,
            server = remote,
            outcome = disposition.word(),
            reason = disposition.reason(),
            until = disposition.until().map(tracing::field::display),
            detail
        );
        settlements.push(Settlement {
            recipient: recipient.id,
            disposition,
            at: now,
            remote: Some(remote.to_owned()),
            detail,
        });
    }
    (settlements, statuses)
}

fn verdict(
    job: &Job,
    recipient: &ClaimedRecipient,
    attempt: &Attempt,
    index: usize,
    now: Timestamp,
) -> Verdict {
    let (message, relay) = (&*job.message, &job.line.relay);
    let expired = dsn::expired(&message.sender, message.accepted, now);
    let later = |reason, detail: String| later(&relay.policy, recipient, reason, detail, now, expired);
    let (outcome, dsn) = match attempt {
        Attempt::Unreachable(why) => return later(WaitReason::Unreachable, why.clone()),
        Attempt::Over => {
            let detail = "the time within which it was to be delivered is over".to_owned();
            return (Disposition::Expired, detail, Some((Action::Failed, RETURNED)));
        }
        Attempt::Broken(why) => return later(WaitReason::Deferred, why.clone()),
        Attempt::Made(delivery) => (delivery.recipients.get(index), delivery.dsn),
    };
    match outcome {
        None => later(
            WaitReason::Deferred,
            "the server did not answer for this recipient".into(),
        ),
        Some(RecipientOutcome::Accepted(reply)) => {
            // A server that knows DSN tells the sender itself (RFC 3461 section 5.2.2); one of LMTP keeps the mailbox (RFC 2033), so
            // that what it took is delivered. Who wants to hear of every relay hears of this one.
            let action = match relay.protocol {
                Protocol::Lmtp => Action::Delivered,
                Protocol::Smtp => Action::Relayed,
            };
            let traced = message.sender.parameters.deliver_by.is_some_and(|by| by.trace);
            let report = match action {
                Action::Relayed if traced => Some(action),
                _ => (!dsn).then_some(action),
            };
            let report = report.map(|action| (action, reply.status()));
            (Disposition::Delivered, reply.to_string(), report)
        }
        Some(RecipientOutcome::Refused(reply)) if reply.is_permanent() => {
            let code = reply.status();
            (
                Disposition::Failed(code),
                reply.to_string(),
                Some((Action::Failed, code)),
            )
        }
        Some(RecipientOutcome::Refused(reply)) => later(WaitReason::Deferred, reply.to_string()),
        Some(RecipientOutcome::Unsupported(extension)) => {
            let code = EnhancedCode::new(5, 6, 7);
            let detail = format!("the server does not offer {extension}, which this mail needs");
            (Disposition::Failed(code), detail, Some((Action::Failed, code)))
        }
        Some(RecipientOutcome::Unknown(cause)) => {
            tracing::warn!(recipient = %recipient.recipient.address, cause, "possible duplicate");
            let detail = format!(
                "cut between the final dot and its reply ({cause}); the next attempt may deliver it twice"
            );
            later(WaitReason::Deferred, detail)
        }
    }
}

/// Another attempt, or the end of the lifetime.
fn later(
    policy: &Policy,
    recipient: &ClaimedRecipient,
    reason: WaitReason,
    detail: String,
    now: Timestamp,
    expired: EnhancedCode,
) -> Verdict {
    match policy.next(recipient.attempts + 1, now, recipient.expires) {
        Some(due) => {
            let again = Disposition::Retry {
                due,
                reason,
                counted: true,
                exchange: Exchanged::Closed,
            };
            (again, detail, None)
        }
        None => (Disposition::Expired, detail, Some((Action::Failed, expired))),
    }
}

/// Whether it is a reply: three digits first.
fn starts_with_code(text: &str) -> bool {
    text.len() > 3 && text.bytes().take(3).all(|octet| octet.is_ascii_digit())
}

/// A server's name without its port, for `Remote-MTA`.
fn host(server: &str) -> &str {
    let host = match server.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => host,
        _ => server,
    };
    host.trim_matches(['[', ']'])
}
