//! The part for programs: `message/delivery-status` (RFC 3464 section 2) or its UTF-8 form (RFC 6533 section 4).

use super::{Action, Notification, RecipientStatus, one_line, token};
use crate::{EnhancedCode, date};

/// Longest line of a folded field, where its words allow.
const FOLD: usize = 76;

pub(super) fn report(notification: &Notification<'_>, international: bool) -> String {
    let mut out = String::new();
    field(
        &mut out,
        "Reporting-MTA",
        &format!("dns; {}", token(notification.reporting_mta)),
    );
    if let Some(envid) = &notification.original.parameters.envid {
        field(&mut out, "Original-Envelope-Id", &one_line(envid, international));
    }
    field(&mut out, "Arrival-Date", &date::rfc5322(notification.arrival));
    if let Some(by) = notification.original.parameters.deliver_by {
        // RFC 2852 section 5.
        let until = by.deadline(notification.arrival);
        field(&mut out, "Deliver-By-Date", &date::rfc5322(until));
    }
    for status in notification.recipients {
        out.push_str("\r\n");
        recipient(&mut out, status, international);
    }
    out
}

fn recipient(out: &mut String, status: &RecipientStatus, international: bool) {
    let address = &status.recipient.address;
    if let Some((kind, original)) = &status.recipient.parameters.orcpt {
        let kind = one_line(kind, false);
        field(
            out,
            "Original-Recipient",
            &format!("{kind}; {}", one_line(original, international)),
        );
    }
    let kind = if address.is_ascii() { "rfc822" } else { "utf-8" };
    field(out, "Final-Recipient", &format!("{kind}; {address}"));
    field(out, "Action", action(status.action));
    field(out, "Status", &code(status).to_string());
    if let Some(remote) = &status.remote_mta {
        field(out, "Remote-MTA", &format!("dns; {}", one_line(remote, false)));
    }
    let diagnostic = one_line(&status.diagnostic, international);
    if !diagnostic.is_empty() {
        let kind = if status.smtp { "smtp" } else { "x-lightpost" };
        field(out, "Diagnostic-Code", &format!("{kind}; {diagnostic}"));
    }
    if let Some(at) = status.last_attempt {
        field(out, "Last-Attempt-Date", &date::rfc5322(at));
    }
    if let (Action::Delayed, Some(until)) = (status.action, status.retry_until) {
        field(out, "Will-Retry-Until", &date::rfc5322(until));
    }
}

const fn action(action: Action) -> &'static str {
    match action {
        Action::Failed => "failed",
        Action::Delayed => "delayed",
        Action::Relayed => "relayed",
        Action::Delivered => "delivered",
    }
}

/// The status with a class that its action allows (RFC 3464 section 2.3.4): a failure is 4 (given up) or 5.
pub(super) fn code(status: &RecipientStatus) -> EnhancedCode {
    let class = match status.action {
        Action::Failed if status.status.class == 4 => 4,
        Action::Failed => 5,
        Action::Delayed => 4,
        Action::Relayed | Action::Delivered => 2,
    };
    EnhancedCode {
        class,
        ..status.status
    }
}

/// Appends a field, folded between words.
fn field(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push(':');
    let mut column = name.len() + 1;
    for word in value.split(' ') {
        // A word that is longer than a line gains nothing from a new one.
        if column + 1 + word.len() > FOLD && column > name.len() + 1 {
            out.push_str("\r\n");
            column = 0;
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + word.len();
    }
    out.push_str("\r\n");
}
