//! The part for people.

use std::fmt::Write;

use super::{Action, Notification, RecipientStatus, one_line, report::code};
use crate::date;

/// Width to which the text is wrapped.
const WIDTH: usize = 76;

/// Why the postmaster gets it.
const FOR_POSTMASTER: &str = "Such mail, mostly a notification itself, has nobody who could be told what became of it. You \
                              get this report as the postmaster of this host; it is the last one about that mail.";

/// Behind a delay that nobody asked to hear of.
const OTHERS: &str = "Other mails of yours to the same place may be waiting, too. You are not told of each of them, unless you \
                      asked for it.";

/// What the notification is about, in a few words.
pub(super) fn subject(notification: &Notification<'_>) -> &'static str {
    let recipients = notification.recipients;
    if notification.original.path.is_null() {
        "Undeliverable mail without a sender"
    } else if any(recipients, Action::Failed) {
        "Undelivered mail returned to sender"
    } else if any(recipients, Action::Delayed) {
        "Delayed mail (still being retried)"
    } else if any(recipients, Action::Relayed) {
        "Mail passed on"
    } else {
        "Mail delivered"
    }
}

fn any(recipients: &[RecipientStatus], action: Action) -> bool {
    recipients.iter().any(|status| status.action == action)
}

pub(super) fn text(notification: &Notification<'_>, international: bool) -> String {
    let host = one_line(notification.reporting_mta, false);
    let arrival = date::rfc5322(notification.arrival);
    let anonymous = notification.original.path.is_null();
    let subject = if anonymous {
        "a mail without a reverse-path"
    } else {
        "your mail"
    };
    let mut out = String::new();
    wrap(
        &mut out,
        "",
        &format!(
            "This is the mail system at host {host}. It reports on {subject} that it accepted on {arrival}."
        ),
    );
    if anonymous {
        out.push_str("\r\n");
        wrap(&mut out, "", FOR_POSTMASTER);
    }
    for (action, introduction) in [
        (
            Action::Failed,
            if anonymous {
                "It could not be delivered to the following recipients and is no longer tried."
            } else {
                "Your mail could not be delivered to the following recipients. It is no longer tried; if it matters, \
                 please send it again once the cause is gone."
            },
        ),
        (
            Action::Delayed,
            "Your mail has not yet been delivered to the following recipients. You do not need to do anything: it is \
             kept and still being tried.",
        ),
        (
            Action::Relayed,
            "Your mail has been passed on for the following recipients to a system that does not report on delivery. \
             You will hear no more of it unless it fails later.",
        ),
        (
            Action::Delivered,
            "Your mail has been delivered to the following recipients.",
        ),
    ] {
        if !any(notification.recipients, action) {
            continue;
        }
        out.push_str("\r\n");
        wrap(&mut out, "", introduction);
        for status in notification
            .recipients
            .iter()
            .filter(|status| status.action == action)
        {
            out.push_str("\r\n");
            recipient(&mut out, status, international);
        }
    }
    if notification.recipients.iter().any(is_courtesy) {
        out.push_str("\r\n");
        wrap(&mut out, "", OTHERS);
    }
    out
}

/// Whether it tells of a delay that nobody asked to hear of.
fn is_courtesy(status: &RecipientStatus) -> bool {
    status.action == Action::Delayed && status.recipient.parameters.notify.is_none()
}

fn recipient(out: &mut String, status: &RecipientStatus, international: bool) {
    // Writing to a String cannot fail.
    let _ = write!(out, "<{}>\r\n", status.recipient.address);
    let diagnostic = one_line(&status.diagnostic, international);
    let said = match &status.remote_mta {
        Some(remote) if status.smtp => format!("Host {} said: {diagnostic}", one_line(remote, false)),
        Some(remote) => format!("{diagnostic} (host {})", one_line(remote, false)),
        None => diagnostic,
    };
    wrap(out, "    ", &format!("{said} (status {})", code(status)));
    if let (Action::Delayed, Some(until)) = (status.action, status.retry_until) {
        wrap(
            out,
            "    ",
            &format!("It is tried until {}.", date::rfc5322(until)),
        );
    }
}

/// Appends words, as many to a line as fit.
fn wrap(out: &mut String, indent: &str, text: &str) {
    let mut column = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if column > 0 && column + 1 + word.len() > WIDTH {
            out.push_str("\r\n");
            column = 0;
        }
        let gap = if column == 0 { indent } else { " " };
        out.push_str(gap);
        out.push_str(word);
        column += gap.len() + word.len();
    }
    out.push_str("\r\n");
}
