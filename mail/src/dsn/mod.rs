//! Delivery status notifications (RFC 3461, 3464, 6522, 6533).
//!
//! A notification has three parts: a text for people, a table for programs, and what came back of the original. Every text
//! from outside is put on one line without control characters before it enters any of them.

mod report;
#[cfg(test)]
mod tests;
mod text;

use std::fmt::Write;

use jiff::Timestamp;

use crate::{
    Address, EnhancedCode, Recipient, Sender, date,
    envelope::{DeliverByMode, Notify},
};

/// What happened to a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Given up.
    Failed,
    /// Not yet there, still tried.
    Delayed,
    /// Handed to a system that does not send notifications.
    Relayed,
    /// In the mailbox, as far as its keeper tells.
    Delivered,
}

/// One recipient's part of a notification.
#[derive(Clone, Debug)]
pub struct RecipientStatus {
    /// The recipient with its `ORCPT` and `NOTIFY`.
    pub recipient: Recipient,
    /// What happened.
    pub action: Action,
    /// Its status code.
    pub status: EnhancedCode,
    /// Who said so, when a remote server did.
    pub remote_mta: Option<String>,
    /// What it said, or what is known here: one line, free text.
    pub diagnostic: String,
    /// Whether `diagnostic` is a reply of SMTP or LMTP.
    pub smtp: bool,
    /// When it was last tried.
    pub last_attempt: Option<Timestamp>,
    /// Until when it will be tried (delayed only).
    pub retry_until: Option<Timestamp>,
}

/// A notification to be written.
#[derive(Clone, Debug)]
pub struct Notification<'a> {
    /// The name of the host that reports.
    pub reporting_mta: &'a str,
    /// Who the notification comes from in its header, `MAILER-DAEMON@gw.moon.example`.
    pub from: &'a Address,
    /// The mail that it is about: sender with `RET` and `ENVID`.
    pub original: &'a Sender,
    /// When the original was accepted.
    pub arrival: Timestamp,
    /// The recipients that it reports.
    pub recipients: &'a [RecipientStatus],
    /// The original's header section, or the whole original where `RET=FULL` and the policy allows it (canonical).
    pub returned: &'a [u8],
    /// Whether `returned` is the whole message.
    pub returned_full: bool,
    /// Now.
    pub now: Timestamp,
    /// A unique id, ASCII letters and digits, for Message-ID and MIME boundary.
    pub id: &'a str,
}

/// Whether the sender wants to hear of `action` for this recipient (RFC 3461 sections 4.1 and 5.2). Never for a null reverse-path.
///
/// Without NOTIFY that is failures and delays. `SUCCESS` is what asks for [`Action::Relayed`] and [`Action::Delivered`]; the trace
/// modifier of `BY=` (RFC 2852) asks for [`Action::Relayed`], too.
pub fn wanted(original: &Sender, recipient: &Recipient, action: Action) -> bool {
    if original.path.is_null() {
        return false;
    }
    match (recipient.parameters.notify, action) {
        (None, Action::Failed | Action::Delayed) => true,
        (Some(Notify::Never), _) => false,
        (_, Action::Relayed) if original.parameters.deliver_by.is_some_and(|by| by.trace) => true,
        (None, Action::Relayed | Action::Delivered) => false,
        (Some(Notify::On { failure, .. }), Action::Failed) => failure,
        (Some(Notify::On { delay, .. }), Action::Delayed) => delay,
        (Some(Notify::On { success, .. }), Action::Relayed | Action::Delivered) => success,
    }
}

/// When the sender has to hear that the mail is late although NOTIFY may not ask for it: the time of by-mode N (RFC 2852), for a mail
/// that was accepted at `arrival`. NOTIFY=NEVER and a null reverse-path forbid it.
pub fn notice_by(original: &Sender, recipient: &Recipient, arrival: Timestamp) -> Option<Timestamp> {
    let by = original.parameters.deliver_by?;
    let silent = original.path.is_null() || recipient.parameters.notify == Some(Notify::Never);
    (by.mode == DeliverByMode::Notify && !silent).then(|| by.deadline(arrival))
}

/// When the mail has to be returned (by-mode R of RFC 2852), if its sender has said so and it was accepted at `arrival`.
pub fn return_by(original: &Sender, arrival: Timestamp) -> Option<Timestamp> {
    let by = original.parameters.deliver_by?;
    (by.mode == DeliverByMode::Return).then(|| by.deadline(arrival))
}

/// The status of a recipient whose time is over at `now`: 5.4.7 where its sender set that time, 4.4.7 where it was tried as long as
/// mail is (RFC 3463: delivery time expired).
pub fn expired(original: &Sender, arrival: Timestamp, now: Timestamp) -> EnhancedCode {
    let class = match return_by(original, arrival) {
        Some(by) if by <= now => 5,
        _ => 4,
    };
    EnhancedCode::new(class, 4, 7)
}

/// Writes the notification: a canonical message for the null reverse-path towards `original`'s reverse-path.
/// `None` where the original's reverse-path is null.
///
/// It reports all of `recipients`; ask [`wanted`] for each beforehand.
pub fn write(notification: &Notification<'_>) -> Option<(Recipient, Vec<u8>)> {
    let to = notification.original.path.address()?;
    let message = compose(notification, to, notification.international());
    Some((Recipient::new(to.clone()), message))
}

/// Writes a notification about a mail whose reverse-path is null, so that nobody but the postmaster can be told: a canonical
/// message for the null reverse-path towards `postmaster`.
///
/// It reports all of `recipients`; ask [`concerns_postmaster`] for each beforehand.
pub fn write_to_postmaster(notification: &Notification<'_>, postmaster: &Address) -> (Recipient, Vec<u8>) {
    let international = notification.international() || !postmaster.is_ascii();
    let message = compose(notification, postmaster, international);
    (Recipient::new(postmaster.clone()), message)
}

/// Whether the postmaster has to hear that this recipient of `original` failed: nobody else is told, and this is no mail that
/// cannot reach the postmaster.
pub fn concerns_postmaster(original: &Sender, recipient: &Recipient, postmaster: &Address) -> bool {
    let address = &recipient.address;
    // `Postmaster` is the one local part whose case means nothing (RFC 5321 section 4.5.1); an operator's may differ as well.
    let same = address.local_part().eq_ignore_ascii_case(postmaster.local_part())
        && address.destination() == postmaster.destination();
    original.path.is_null() && !same && recipient.parameters.notify != Some(Notify::Never)
}

fn compose(notification: &Notification<'_>, to: &Address, international: bool) -> Vec<u8> {
    let returned = Returned::new(notification);
    let boundary = boundary(notification.id, returned.octets);
    let eight_bit = international || !returned.octets.is_ascii();

    let mut head = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        head,
        "From: Mail Delivery System <{from}>\r\n\
         To: <{to}>\r\n\
         Subject: {subject}\r\n\
         Date: {date}\r\n\
         Message-ID: <{id}@{host}>\r\n\
         Auto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\"\r\n",
        from = notification.from,
        subject = text::subject(notification),
        date = date::rfc5322(notification.now),
        id = token(notification.id),
        host = token(notification.reporting_mta),
    );
    head.push_str(if eight_bit { EIGHT_BIT } else { "" });
    head.push_str("\r\nThis is a message in MIME format that reports on the delivery of a mail.\r\n");

    let charset = if international { "utf-8" } else { "us-ascii" };
    let transfer = if international { EIGHT_BIT } else { "" };
    let _ = write!(
        head,
        "\r\n--{boundary}\r\nContent-Description: Notification\r\nContent-Type: text/plain; charset={charset}\r\n{transfer}\r\n"
    );
    head.push_str(&text::text(notification, international));
    let status_type = if international {
        "message/global-delivery-status"
    } else {
        "message/delivery-status"
    };
    let _ = write!(
        head,
        "\r\n--{boundary}\r\nContent-Description: Delivery report\r\nContent-Type: {status_type}\r\n{transfer}\r\n"
    );
    head.push_str(&report::report(notification, international));
    let transfer = if returned.octets.is_ascii() { "" } else { EIGHT_BIT };
    let _ = write!(
        head,
        "\r\n--{boundary}\r\nContent-Description: {}\r\nContent-Type: {}\r\n{transfer}\r\n",
        returned.description, returned.media_type
    );

    let mut message = head.into_bytes();
    message.extend_from_slice(returned.octets);
    if !returned.octets.ends_with(b"\r\n") {
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    message
}

const EIGHT_BIT: &str = "Content-Transfer-Encoding: 8bit\r\n";

impl Notification<'_> {
    /// Whether it has to speak of addresses that ASCII cannot spell, so that the forms of RFC 6533 are needed.
    fn international(&self) -> bool {
        let sender = self.original.path.address();
        sender.is_some_and(|address| !address.is_ascii())
            || !self.from.is_ascii()
            || self.recipients.iter().any(|status| {
                let recipient = &status.recipient;
                let orcpt = recipient.parameters.orcpt.as_ref();
                !recipient.address.is_ascii() || orcpt.is_some_and(|(_, address)| !address.is_ascii())
            })
    }
}

/// The third part.
struct Returned<'a> {
    octets: &'a [u8],
    media_type: &'static str,
    description: &'static str,
}

impl<'a> Returned<'a> {
    fn new(notification: &Notification<'a>) -> Self {
        let all = notification.returned;
        let headers = header_section(all);
        // Headers beyond ASCII are SMTPUTF8's where they are UTF-8; else they are an old mail's raw octets.
        let global = !headers.is_ascii() && str::from_utf8(headers).is_ok();
        let (octets, media_type, description) = match (notification.returned_full, global) {
            (true, true) => (all, "message/global", "Undelivered message"),
            (true, false) => (all, "message/rfc822", "Undelivered message"),
            (false, true) => (headers, "message/global-headers", "Message headers"),
            (false, false) => (headers, "text/rfc822-headers", "Message headers"),
        };
        Self {
            octets,
            media_type,
            description,
        }
    }
}

/// Everything before the first empty line.
fn header_section(message: &[u8]) -> &[u8] {
    if message.starts_with(b"\r\n") {
        return b"";
    }
    let end = memchr::memmem::find(message, b"\r\n\r\n").map_or(message.len(), |position| position + 2);
    message.get(..end).unwrap_or(message)
}

/// A boundary that does not occur in the returned octets.
fn boundary(id: &str, returned: &[u8]) -> String {
    let id: String = token(id).chars().take(32).collect();
    let mut boundary = format!("=_lightpost_{id}");
    let mut attempt = 0_u32;
    while memchr::memmem::find(returned, boundary.as_bytes()).is_some() {
        attempt += 1;
        boundary = format!("=_lightpost_{id}_{attempt}");
    }
    boundary
}

/// What of `text` may stand in a message id or a boundary.
fn token(text: &str) -> String {
    let token: String = text
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        .take(255)
        .collect();
    if token.is_empty() {
        "unknown".to_owned()
    } else {
        token
    }
}

/// Free text on one line: line ends and tabs become spaces, other control characters and, unless `international`, everything
/// beyond ASCII `?`; cut to a sane length.
fn one_line(text: &str, international: bool) -> String {
    let mut line = String::with_capacity(text.len().min(LINE_MAX));
    for word in text
        .split([' ', '\t', '\r', '\n'])
        .filter(|word| !word.is_empty())
    {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().map(|c| {
            let fit = !crate::address::is_control(c) && (international || c.is_ascii());
            if fit { c } else { '?' }
        }));
        if line.len() > LINE_MAX {
            let end = line.floor_char_boundary(LINE_MAX);
            line.truncate(end);
            break;
        }
    }
    line
}

/// Longest free text, in octets.
const LINE_MAX: usize = 700;
