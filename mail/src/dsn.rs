//! Delivery status notifications (RFC 3461, 3464, 6522, 6533).

use jiff::Timestamp;

use crate::{Address, EnhancedCode, Recipient, Sender};

/// What happened to a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Given up.
    Failed,
    /// Not yet there, still tried.
    Delayed,
    /// Handed to a system that does not send notifications.
    Relayed,
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
    /// What it said: one line, free text.
    pub diagnostic: String,
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
    /// A unique id for Message-ID and MIME boundary.
    pub id: &'a str,
}

/// Whether the sender wants to hear of `action` for this recipient. Never for a null reverse-path.
pub fn wanted(_original: &Sender, _recipient: &Recipient, _action: Action) -> bool {
    unimplemented!()
}

/// Writes the notification: a canonical message for the null reverse-path towards `original`'s reverse-path.
/// `None` where the original's reverse-path is null.
pub fn write(_notification: &Notification<'_>) -> Option<(Recipient, Vec<u8>)> {
    unimplemented!()
}
