//! What the queue holds.

use bytes::Bytes;
use jiff::Timestamp;
use lightpost_mail::{EnhancedCode, Recipient, Sender, lines::BodyFacts};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// The destination of mail that goes to the local MTA instead of across space (notifications about mail that died
/// here). `@` cannot occur in a domain.
pub const LOCAL: &str = "@local";

/// A body that is stored or being stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BodyId(pub i64);

/// A recipient's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecipientId(pub i64);

/// A message's body on its way into the queue.
#[derive(Clone, Debug)]
pub enum NewBody {
    /// A small one, stored together with the message.
    Inline(Bytes),
    /// One that was written before by [`crate::Store::begin_body`] and [`crate::Store::append_body`].
    Spooled(BodyId),
}

/// A message on its way into the queue.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Its id, made by the caller.
    pub id: Ulid,
    /// `MAIL FROM`.
    pub sender: Sender,
    /// Its recipients; may not be empty.
    pub recipients: Vec<NewRecipient>,
    /// The canonical body, our `Received` included.
    pub body: NewBody,
    /// What was learnt about the body.
    pub facts: BodyFacts,
    /// Sending order, higher first: `MT-PRIORITY` or 0.
    pub priority: i8,
    /// Who handed it over, for the history: `rest`, a peer's name, `dsn`.
    pub origin: String,
    /// The peer's exchange id, or the caller's key: one id followed through both programs.
    pub origin_id: Option<String>,
    /// The id that the mail had where it was handed over, by its first `Received` field: an MTA's queue id, a client's message id.
    pub upstream: Option<String>,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// Why it waits for an operator, if it does.
    pub hold: Option<String>,
    /// What was found out about it, one line each, for the history.
    pub notes: Vec<String>,
}

/// A recipient on its way into the queue.
#[derive(Clone, Debug)]
pub struct NewRecipient {
    /// `RCPT TO`.
    pub recipient: Recipient,
    /// Routing key: the lower-case A-label domain, or [`LOCAL`].
    pub destination: String,
    /// When it is first tried.
    pub due: Timestamp,
    /// When it is given up.
    pub expires: Timestamp,
    /// When the sender hears that it is late, should it still wait then.
    pub notice: Option<Timestamp>,
}

/// What one request hands over: messages and the answer to it, stored in one transaction.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Makes the request idempotent.
    pub key: Option<RequestKey>,
    /// The answer, given again to a repeat.
    pub reply: StoredReply,
    /// The messages; may be empty when everything was refused.
    pub messages: Vec<NewMessage>,
    /// What the messages use up of daily allowances, one entry per subject; nothing is stored when one of them does not suffice.
    pub charges: Vec<Charge>,
}

/// Whose daily allowance it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A reverse-path.
    Sender = 0,
    /// A routing key.
    Destination = 1,
}

/// What a submission uses up of an allowance for one UTC day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Whose allowance.
    pub subject: Subject,
    /// The address or the destination.
    pub name: String,
    /// Messages that the submission brings.
    pub messages: u64,
    /// Octets of their bodies.
    pub octets: u64,
    /// Messages a day at most; any number when `None`.
    pub most_messages: Option<u64>,
    /// Octets a day at most; any number when `None`.
    pub most_octets: Option<u64>,
}

/// The allowance that does not suffice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// Whose it is.
    pub subject: Subject,
    /// The address or the destination.
    pub name: String,
}

/// What identifies a request across repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// Whose keys these are: the authenticated peer's name, or the ingestion listener's.
    pub scope: String,
    /// `Idempotency-Key`.
    pub key: String,
    /// SHA-256 over the decoded request body (and envelope where it travels outside the body).
    pub digest: [u8; 32],
    /// Until when a repeat is recognised.
    pub expires: Timestamp,
}

/// An answer that can be given again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredReply {
    /// HTTP status.
    pub status: u16,
    /// Body (JSON), empty when none.
    pub body: Vec<u8>,
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// Stored and synced.
    Stored,
    /// The same request was stored before; this was its answer.
    Repeat(StoredReply),
    /// The same key was used before for other content.
    Conflict,
    /// An allowance does not suffice today; nothing was stored.
    Over(Over),
}

/// What is asked of [`crate::Store::claim`].
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// Who leases.
    pub owner: &'a str,
    /// Messages with a due recipient for this destination.
    pub destination: &'a str,
    /// Now.
    pub now: Timestamp,
    /// When the lease ends if it is not settled.
    pub until: Timestamp,
    /// At most so many messages.
    pub limit: usize,
}

/// A destination that has something due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueDestination {
    /// The routing key.
    pub destination: String,
    /// The highest priority among what is due.
    pub priority: i8,
}

/// A leased message with the due recipients (of every destination) that were leased with it.
#[derive(Clone, Debug)]
pub struct ClaimedMessage {
    /// Its id.
    pub id: Ulid,
    /// `MAIL FROM`.
    pub sender: Sender,
    /// Its body.
    pub body: BodyId,
    /// What is known about the body.
    pub facts: BodyFacts,
    /// Sending order.
    pub priority: i8,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// Who handed it over.
    pub origin: String,
    /// The peer's exchange id, or the caller's key.
    pub origin_id: Option<String>,
    /// The id that the mail had where it was handed over.
    pub upstream: Option<String>,
    /// The whole body, where it is small; otherwise [`crate::Store::read_body`] has it.
    pub content: Option<Bytes>,
    /// The leased recipients.
    pub recipients: Vec<ClaimedRecipient>,
    /// Exchanges with it that were closed, oldest first: another gateway was to take over. The gateway of such a one may have it, and knows
    /// it by its id if the same recipients come back to it.
    pub closed: Vec<OpenExchange>,
}

/// A leased recipient.
#[derive(Clone, Debug)]
pub struct ClaimedRecipient {
    /// Its row.
    pub id: RecipientId,
    /// `RCPT TO`.
    pub recipient: Recipient,
    /// Routing key.
    pub destination: String,
    /// Counted attempts so far.
    pub attempts: u32,
    /// When it is given up.
    pub expires: Timestamp,
    /// The exchange that carried it last, unless that one was answered: a repeat must reuse it.
    pub exchange: Option<OpenExchange>,
}

/// An exchange that may have left and has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenExchange {
    /// Its id.
    pub id: Ulid,
    /// The URI that it went to.
    pub gateway: String,
    /// All recipients that it carried.
    pub recipients: Vec<RecipientId>,
    /// The name that its object says EHLO with, so that a repeat is the same object; empty where it was not kept.
    pub name: String,
    /// The terms on which it has left, as [`NewExchange::terms`]; none where they were not kept.
    pub terms: Option<u32>,
    /// When it was first begun, since it was last closed.
    pub begun: Timestamp,
    /// Until when a reply was awaited.
    pub until: Timestamp,
    /// What the carrier that holds it calls it.
    pub custody: Option<String>,
}

/// What names an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeName<'a> {
    /// Its id.
    Id(Ulid),
    /// What the carrier that holds it calls it.
    Custody(&'a str),
}

/// An exchange that is about to leave.
#[derive(Clone, Debug)]
pub struct NewExchange {
    /// Its id; beginning an id again renews `until` (a repeat), and opens what was closed.
    pub id: Ulid,
    /// The message that it carries.
    pub message: Ulid,
    /// The URI that it goes to.
    pub gateway: String,
    /// SHA-256 over the Batch SMTP object.
    pub digest: [u8; 32],
    /// The name that the object says EHLO with.
    pub name: String,
    /// What else shapes the object beside the message, in the caller's own numbers: given back when it is to be repeated.
    pub terms: u32,
    /// The recipients that it carries; they become `awaiting`.
    pub recipients: Vec<RecipientId>,
    /// Until when a reply is awaited.
    pub until: Timestamp,
}

/// What became of a leased or awaiting recipient.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The recipient.
    pub recipient: RecipientId,
    /// Its new status.
    pub disposition: Disposition,
    /// When it happened.
    pub at: Timestamp,
    /// Who said so (gateway, remote server), for the history.
    pub remote: Option<String>,
    /// What was said: one line for the operator.
    pub detail: String,
}

/// What becomes of an exchange whose recipients are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchanged {
    /// It stays open: the next attempt repeats it.
    Open,
    /// Closed without an answer: the next attempt is another one, unless the same recipients come back to its gateway, which may have it.
    Closed,
    /// Closed by an answer: its gateway has not taken it, and whatever comes next is another one.
    Refused,
}

/// A recipient's next status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Accepted by the next system; done.
    Delivered,
    /// Refused for good.
    Failed(EnhancedCode),
    /// Its lifetime is over.
    Expired,
    /// To be tried again.
    Retry {
        /// When.
        due: Timestamp,
        /// Why it waits.
        reason: WaitReason,
        /// Whether this was a failed attempt (no contact is none).
        counted: bool,
        /// What becomes of the exchange.
        exchange: Exchanged,
    },
    /// Waits for an operator.
    Held(String),
    /// Handed to a carrier that holds it, over a restart of ours, too; a reply may come.
    Awaiting {
        /// Until when.
        until: Timestamp,
        /// What the carrier calls it.
        custody: String,
    },
}

/// What senders are to hear of by now.
#[derive(Clone, Debug, Default)]
pub struct Late {
    /// Messages with the recipients that are late; which of them the sender hears of is the caller's business.
    pub messages: Vec<LateMessage>,
    /// Recipients whose rows cannot be read.
    pub unreadable: Vec<RecipientId>,
}

/// A message that is late for some of its recipients.
#[derive(Clone, Debug)]
pub struct LateMessage {
    /// Its id.
    pub id: Ulid,
    /// `MAIL FROM`.
    pub sender: Sender,
    /// Its body.
    pub body: BodyId,
    /// What is known about the body.
    pub facts: BodyFacts,
    /// Sending order.
    pub priority: i8,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// The late recipients.
    pub recipients: Vec<LateRecipient>,
}

/// A recipient whose sender is to hear that the mail is late.
#[derive(Clone, Debug)]
pub struct LateRecipient {
    /// Its row.
    pub id: RecipientId,
    /// `RCPT TO`.
    pub recipient: Recipient,
    /// Routing key.
    pub destination: String,
    /// Status; not one of those that are final.
    pub status: Status,
    /// Why it waits, while it does.
    pub reason: Option<WaitReason>,
    /// Counted attempts.
    pub attempts: u32,
    /// When it is given up.
    pub expires: Timestamp,
    /// When the sender was to hear of it.
    pub notice: Timestamp,
    /// Whether it has left, or may have, at least once.
    pub sent: bool,
    /// The last gateway or remote server.
    pub remote: Option<String>,
    /// What was said last.
    pub detail: Option<String>,
    /// Whether the sender was told of other mail for the same destination, and that is not long ago ([`Notice::quiet`]).
    pub quiet: bool,
}

/// Until when a sender hears of no more late mail for a destination, unless he asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quiet {
    /// The reverse-path.
    pub sender: String,
    /// Routing key.
    pub destination: String,
    /// Until when.
    pub until: Timestamp,
}

/// A notice that mail is late, or that it has to wait.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The recipients that it is about, and when the sender hears of each of them again.
    pub recipients: Vec<(RecipientId, Option<Timestamp>)>,
    /// The notification; none where only the times change.
    pub message: Option<NewMessage>,
    /// What is kept of whom it tells, with the notification.
    pub quiet: Vec<Quiet>,
}

/// Why a recipient waits. Stored, logged, shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WaitReason {
    /// Just accepted.
    New,
    /// The resolver is silent and nothing is known from before.
    Discovery,
    /// No gateway of the destination could be reached.
    Unreachable,
    /// The gateway asked to try later (408, 425, 429, 5xx).
    Busy,
    /// No reply came in time.
    NoReply,
    /// There is no contact with the far side now.
    NoContact,
    /// The local MTA refused for now.
    Deferred,
    /// An operator asked for it.
    Operator,
    /// The sending process ended before it knew the outcome.
    Interrupted,
}

/// A recipient's status as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Waits for its due time.
    Queued,
    /// Waits for an operator.
    Held,
    /// A worker has it.
    Leased,
    /// It has left or may have left; a reply is awaited.
    Awaiting,
    /// Accepted by the next system.
    Delivered,
    /// Refused for good.
    Failed,
    /// Given up at the end of its lifetime.
    Expired,
    /// Withdrawn by an operator.
    Cancelled,
}

/// What an operator sees of a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageView {
    /// Its id.
    pub id: Ulid,
    /// The reverse-path, empty when null.
    pub sender: String,
    /// Octets of the canonical body.
    pub size: u64,
    /// Sending order.
    pub priority: i8,
    /// Who handed it over.
    pub origin: String,
    /// The peer's exchange id, or the caller's key.
    pub origin_id: Option<String>,
    /// The id that the mail had where it was handed over.
    pub upstream: Option<String>,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// Its recipients.
    pub recipients: Vec<RecipientView>,
    /// Its history, oldest first; empty in listings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<EventView>,
}

/// What an operator sees of a recipient.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecipientView {
    /// Its row.
    pub id: RecipientId,
    /// The address.
    pub address: String,
    /// Routing key.
    pub destination: String,
    /// Status.
    pub status: Status,
    /// Why it waits, while it does.
    pub reason: Option<WaitReason>,
    /// When it is tried next, or until when a reply is awaited.
    pub due: Option<Timestamp>,
    /// When it is given up.
    pub expires: Timestamp,
    /// Counted attempts.
    pub attempts: u32,
    /// The last exchange's id.
    pub exchange: Option<Ulid>,
    /// The last gateway or remote server.
    pub remote: Option<String>,
    /// What was said last.
    pub detail: Option<String>,
}

/// One line of a history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventView {
    /// When.
    pub at: Timestamp,
    /// `accepted`, `screened`, `sent`, `delivered`, `failed`, `expired`, `deferred`, `awaiting`, `held`, `released`, `retried`, `cancelled`,
    /// `interrupted`, `notified`.
    pub kind: String,
    /// The recipient that it concerns; absent when all.
    pub recipient: Option<String>,
    /// The exchange, gateway or server.
    pub remote: Option<String>,
    /// One line.
    pub detail: String,
}

/// Which messages a listing shows.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Filter {
    /// Only messages with a recipient in this status.
    pub status: Option<Status>,
    /// Only messages with a recipient for this destination.
    pub destination: Option<String>,
    /// Only messages from this reverse-path.
    pub sender: Option<String>,
    /// Only messages that are known by this id: their own, that of an exchange of theirs, of the request that brought them, or the one that they
    /// had where they came from.
    pub known_as: Option<String>,
    /// Only messages after this id (the cursor).
    pub after: Option<Ulid>,
    /// At most so many.
    pub limit: usize,
}

/// What an operator can do to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Make waiting recipients due now.
    Retry,
    /// Stop trying until released.
    Hold,
    /// End a hold.
    Release,
    /// Withdraw what has not left.
    Cancel,
}

/// Counts for dashboards and `queue ls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Recipients per status.
    pub recipients: std::collections::BTreeMap<String, u64>,
    /// Messages with a recipient that is not done.
    pub messages: u64,
}
