//! From what the server said to each recipient's next status. No I/O.

use jiff::Timestamp;
use lightpost_mail::{
    Address, EnhancedCode, Recipient,
    dsn::{Action, RecipientStatus, concerns_postmaster, wanted},
};
use lightpost_queue::{ClaimedRecipient, Disposition, Settlement, WaitReason, schedule::Policy};
use lightpost_smtp::send::{Delivery, RecipientOutcome};

use super::deliver::Job;

/// The lifetime is over (RFC 3463: delivery time expired).
const EXPIRED: EnhancedCode = EnhancedCode::new(4, 4, 7);

/// Whether somebody hears of it: the sender who asked, or the postmaster where there is no sender.
fn is_told(job: &Job, recipient: &Recipient, action: Action, postmaster: &Address) -> bool {
    let sender = &job.message.sender;
    wanted(sender, recipient, action)
        || (action == Action::Failed && concerns_postmaster(sender, recipient, postmaster))
}

/// What an attempt brought.
#[derive(Clone, Debug)]
pub(super) enum Attempt {
    /// The server answered for every recipient.
    Made(Delivery),
    /// There was no session to be had.
    Unreachable(String),
    /// The session broke before the final dot, or the body could not be read.
    Broken(String),
}

/// A recipient's status and what a notification would say about it.
type Verdict = (Disposition, String, Option<(Action, EnhancedCode)>);

/// The next status of each recipient, and what the sender (or, without one, the `postmaster`) has to hear.
pub(super) fn conclude(
    job: &Job,
    attempt: &Attempt,
    server: &str,
    postmaster: &Address,
    now: Timestamp,
) -> (Vec<Settlement>, Vec<RecipientStatus>) {
    let policy = &job.line.relay.policy;
    let (mut settlements, mut statuses) = (Vec::new(), Vec::new());
    for (index, recipient) in job.recipients.iter().enumerate() {
        let (disposition, detail, report) = verdict(policy, recipient, attempt, index, now);
        let remote = match attempt {
            Attempt::Made(delivery) => delivery.server.as_str(),
            _ => server,
        };
        if let Some((action, status)) = report
            && is_told(job, &recipient.recipient, action, postmaster)
        {
            statuses.push(RecipientStatus {
                recipient: recipient.recipient.clone(),
                action,
                status,
                remote_mta: Some(host(remote).to_owned()),
                diagnostic: detail.clone(),
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
            outcome = ?disposition,
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
    policy: &Policy,
    recipient: &ClaimedRecipient,
    attempt: &Attempt,
    index: usize,
    now: Timestamp,
) -> Verdict {
    let later = |reason, detail: String| later(policy, recipient, reason, detail, now);
    let (outcome, dsn) = match attempt {
        Attempt::Unreachable(why) => return later(WaitReason::Unreachable, why.clone()),
        Attempt::Broken(why) => return later(WaitReason::Deferred, why.clone()),
        Attempt::Made(delivery) => (delivery.recipients.get(index), delivery.dsn),
    };
    match outcome {
        None => later(
            WaitReason::Deferred,
            "the server did not answer for this recipient".into(),
        ),
        Some(RecipientOutcome::Accepted(reply)) => {
            // A server that knows DSN tells the sender itself (RFC 3461 section 5.2.2).
            let report = (!dsn).then(|| (Action::Relayed, reply.status()));
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
) -> Verdict {
    match policy.next(recipient.attempts + 1, now, recipient.expires) {
        Some(due) => {
            let again = Disposition::Retry {
                due,
                reason,
                counted: true,
                close_exchange: true,
            };
            (again, detail, None)
        }
        None => (Disposition::Expired, detail, Some((Action::Failed, EXPIRED))),
    }
}

/// A server's name without its port, for `Remote-MTA`.
fn host(server: &str) -> &str {
    let host = match server.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => host,
        _ => server,
    };
    host.trim_matches(['[', ']'])
}
