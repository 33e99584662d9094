//! The queue's contract.

use bytes::Bytes;
use jiff::Timestamp;
use ulid::Ulid;

use crate::{Shortage, model::*};

/// Why the store did not do what was asked. Nothing of a failed call is stored.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No room: 507, 452.
    #[error(
        "the disk of {path} is full{}; free some room: nothing acknowledged is lost, new mail is refused until then",
        .shortage.as_ref().map(|it| format!(" (file system {}: {it})", it.file_system)).unwrap_or_default()
    )]
    Full {
        /// The database.
        path: String,
        /// How much there is and should be, where the system says it.
        shortage: Option<Shortage>,
    },
    /// Cannot be written: 503, 451.
    #[error("{path} cannot be written ({cause}); give the service write access to the file and its folder")]
    ReadOnly {
        /// The database.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// Not a sound database: 503, 451.
    #[error(
        "{path} is damaged ({cause}); stop the service, keep a copy of the file and recover it with `sqlite3 {path} .recover`"
    )]
    Damaged {
        /// The database.
        path: String,
        /// What SQLite said.
        cause: String,
    },
    /// Written by a newer version.
    #[error(
        "{path} was written by a newer version ({found}, this one knows {known}); install that version or newer"
    )]
    Newer {
        /// The database.
        path: String,
        /// Its schema version.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// Another program works on it.
    #[error(
        "{path} is in use by {holder}, and only one program may send what is queued there; stop that process, or give this program a database of its own"
    )]
    InUse {
        /// The database.
        path: String,
        /// Who has it, such as `process 1234`.
        holder: String,
    },
    /// Anything else: 503, 451.
    #[error("{path}: {cause}")]
    Other {
        /// The database.
        path: String,
        /// What went wrong.
        cause: String,
    },
}

impl StoreError {
    /// What a disk that is full lacks, in brackets, without a path; empty for all else, and where the system does not say.
    pub fn lack(&self) -> String {
        match self {
            Self::Full {
                shortage: Some(shortage),
                ..
            } => format!(" ({shortage})"),
            _ => String::new(),
        }
    }
}

/// A durable queue. When a writing call returns `Ok`, its effect survives a crash of process and host.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// Starts a large body. Bodies that no message refers to are removed at the next start.
    async fn begin_body(&self) -> Result<BodyId, StoreError>;
    /// Appends to a body that was begun in this process.
    async fn append_body(&self, body: BodyId, chunk: Bytes) -> Result<(), StoreError>;
    /// Removes a body that no message refers to.
    async fn discard_body(&self, body: BodyId) -> Result<(), StoreError>;
    /// Stores messages and reply in one synced transaction.
    async fn enqueue(&self, submission: Submission) -> Result<Enqueued, StoreError>;
    /// The stored answer to a request, for a repeat that is recognised before its body is read. `Conflict` when the digest differs
    /// (pass `None` as digest to look by key only); `None` when unknown.
    async fn find_reply(
        &self,
        scope: &str,
        key: &str,
        digest: Option<[u8; 32]>,
    ) -> Result<Option<Enqueued>, StoreError>;

    /// Destinations with a recipient that is due: queued and due, leased beyond its lease, awaiting beyond its deadline.
    async fn due(&self, now: Timestamp) -> Result<Vec<DueDestination>, StoreError>;
    /// When the next recipient becomes due, `None` when nothing waits.
    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError>;
    /// When the next recipient becomes due that is not due at `after` yet: what somebody who already looks after all that is due waits for.
    async fn next_due_after(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError>;
    /// Leases due messages, highest priority first, then longest due. Atomic: no two claims get the same recipient.
    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<ClaimedMessage>, StoreError>;
    /// Stores that exchanges are about to leave; their recipients become `awaiting`. Durable before the first octet leaves.
    async fn begin_exchanges(&self, exchanges: Vec<NewExchange>, at: Timestamp) -> Result<(), StoreError>;
    /// Stores outcomes, together with the notifications that they cause, in one transaction. The first final outcome of a recipient counts;
    /// a notification about a message of which no outcome counts is not stored.
    async fn settle(
        &self,
        settlements: Vec<Settlement>,
        notifications: Vec<NewMessage>,
    ) -> Result<(), StoreError>;
    /// Messages with recipients whose [`NewRecipient::notice`] is over at `now` and that still wait: those of about `limit` messages, the
    /// latest first.
    async fn late(&self, now: Timestamp, limit: usize) -> Result<Late, StoreError>;
    /// When the next notice is due, `None` when there is none.
    async fn next_notice(&self) -> Result<Option<Timestamp>, StoreError>;
    /// Stores a notice together with the times of the next ones, in one transaction. `false`, and nothing is stored, when it has a
    /// message and one of its recipients is done by now.
    async fn notice(&self, notice: Notice) -> Result<bool, StoreError>;
    /// The message of an open exchange, with those recipients that it carried and that are not done: for a reply that comes late. Nothing
    /// is leased.
    async fn find_exchange(&self, name: ExchangeName<'_>) -> Result<Option<ClaimedMessage>, StoreError>;
    /// At start: what this owner had leased is queued again at once (`interrupted`); what awaits stays awaiting.
    async fn recover(&self, owner: &str, now: Timestamp) -> Result<u64, StoreError>;
    /// At start, where replies die with the process that awaits them: what awaits and is in no carrier's custody is queued again at once
    /// (`interrupted`) and keeps its exchange, which the next claim brings along to be repeated. Bounded work per call, whatever else is queued; returns how
    /// many recipients it was, 0 once there are none.
    async fn resume(&self, now: Timestamp) -> Result<u64, StoreError>;
    /// Resolves once something became due earlier than was known: an enqueue, a release, a retry.
    async fn changed(&self);

    /// The body from octet `offset` on: at most one stored chunk, empty at the end.
    async fn read_body(&self, body: BodyId, offset: u64) -> Result<Bytes, StoreError>;

    /// One message with its history.
    async fn message(&self, id: Ulid) -> Result<Option<MessageView>, StoreError>;
    /// Messages in order of id, without history.
    async fn list(&self, filter: Filter) -> Result<Vec<MessageView>, StoreError>;
    /// Applies an operation to every recipient of a message that it fits; how many it fitted, `None` when there is no such message.
    async fn operate(
        &self,
        id: Ulid,
        operation: Operation,
        at: Timestamp,
        by: &str,
    ) -> Result<Option<u64>, StoreError>;
    /// Counts.
    async fn totals(&self) -> Result<Totals, StoreError>;
    /// When the oldest message was accepted that is not done.
    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError>;
    /// How many lines histories got from this process since it opened the store, by [`EventView::kind`].
    fn events(&self) -> Vec<(&'static str, u64)>;
    /// Removes messages whose recipients are all done since before `done_before`, and request keys that expired before `now`.
    /// Bounded work per call; returns how many messages went.
    async fn purge(&self, done_before: Timestamp, now: Timestamp) -> Result<u64, StoreError>;
    /// Whether new mail can be stored: tries a synced write.
    async fn check(&self) -> Result<(), StoreError>;
    /// Waits for what was accepted and closes the store.
    async fn close(&self);
}
