//! The queue on SQLite: write-ahead log, `synchronous=FULL`, one writer with group commit, a few readers.
//!
//! - [`lock`]: one program per database
//! - [`open`]: the file, its schema, the connections
//! - [`writer`]: commands in batches, one transaction each; [`tx`] is that transaction, [`memory`] what is known between two of them
//! - [`enqueue`], [`claim`], [`settle`], [`mod@notice`], [`operate`]: what the commands do
//! - [`read`], [`view`]: the way out
//! - [`mod@inspect`]: a look at the file that changes nothing

mod carried;
mod claim;
mod enqueue;
mod error;
mod events;
mod fresh;
mod insert;
pub mod inspect;
mod lock;
mod memory;
mod notice;
mod open;
mod operate;
mod read;
mod room;
mod rows;
mod settle;
#[cfg(test)]
mod tests;
mod tx;
mod usage;
mod view;
mod writer;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use jiff::Timestamp;
use lightpost_clock::Clock;
use sqlx::SqliteConnection;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use ulid::Ulid;

pub use self::lock::DatabaseLock;
use self::{
    events::Events,
    memory::Memory,
    read::Readers,
    writer::{Command, Job, Outcome, Writer},
};
use crate::{
    BodyId, Claim, ClaimedMessage, DueDestination, Enqueued, ExchangeName, Filter, Late, MessageView,
    NewBody, NewExchange, NewMessage, Notice, Operation, Settlement, Store, StoreError, Submission, Totals,
};

/// Commands that may wait for the writer.
const WAITING: usize = 1024;
/// Octets of bodies that may wait for the writer.
const WAITING_OCTETS: usize = 32 * 1024 * 1024;

/// A command that cannot be done, whatever the disk does.
#[derive(Debug)]
struct Refused(String);

/// A queue in one SQLite database.
///
/// Each body belongs to one message: a spooled body can be given to one [`NewMessage`] only. Several processes may open the
/// same file; [`Store::changed`] tells of this process's changes alone. Programs that dispatch keep each other out of it, with
/// [`DatabaseLock`].
pub struct SqliteStore {
    path: PathBuf,
    clock: Clock,
    jobs: mpsc::Sender<Job>,
    octets: Arc<Semaphore>,
    readers: Readers,
    changed: Arc<Notify>,
    events: Arc<Events>,
    /// Every message before this one is done.
    done_before: AtomicI64,
}

impl SqliteStore {
    /// Opens the database, creates it (not its folder) where there is none, and brings its schema up to date. Its cost does
    /// not depend on how much is queued.
    ///
    /// # Errors
    /// When the file cannot be written, is no sound database, or was written by a newer version.
    pub async fn open(path: &Path, clock: Clock) -> Result<Self, StoreError> {
        let _hold = clock.hold();
        let (connection, orphans) = open::open(path).await?;
        Ok(Self::start(path, clock, connection, orphans))
    }

    fn start(path: &Path, clock: Clock, connection: SqliteConnection, orphans: Vec<i64>) -> Self {
        let (jobs, receiver) = mpsc::channel(WAITING);
        let changed = Arc::new(Notify::new());
        let events = Arc::new(Events::default());
        let writer = Writer {
            path: path.to_owned(),
            clock: clock.clone(),
            connection: Some(connection),
            memory: Memory::default(),
            jobs: receiver,
            changed: Arc::clone(&changed),
            events: Arc::clone(&events),
            spools: HashMap::new(),
            orphans,
            written: 0,
            allowance: room::Allowance::default(),
            failing: false,
        };
        tokio::spawn(writer.run());
        Self {
            path: path.to_owned(),
            clock: clock.clone(),
            jobs,
            octets: Arc::new(Semaphore::new(WAITING_OCTETS)),
            readers: Readers::new(path, clock),
            changed,
            events,
            done_before: AtomicI64::new(0),
        }
    }

    /// Hands a command to the writer and waits until it is committed.
    async fn ask(&self, command: Command) -> Result<Outcome, StoreError> {
        let _hold = self.clock.hold();
        let octets = octets(&command).min(WAITING_OCTETS);
        let permit = match u32::try_from(octets) {
            Ok(octets) if octets > 0 => {
                let permits = Arc::clone(&self.octets).acquire_many_owned(octets);
                Some(permits.await.map_err(|_| self.other("the store is closed"))?)
            }
            _ => None,
        };
        let (answer, answered) = oneshot::channel();
        let job = Job {
            command,
            answer,
            permit,
        };
        self.jobs
            .send(job)
            .await
            .map_err(|_| self.other("the store is closed"))?;
        answered.await.map_err(|_| self.other("the store is closed"))?
    }

    /// The same where there is nothing to tell.
    async fn order(&self, command: Command) -> Result<(), StoreError> {
        self.ask(command).await.map(drop)
    }

    fn other(&self, cause: &str) -> StoreError {
        StoreError::Other {
            path: self.path.display().to_string(),
            cause: cause.to_owned(),
        }
    }

    fn unexpected(&self) -> StoreError {
        self.other("the writer answered something else than was asked")
    }
}

/// Octets of bodies that a command holds in memory.
fn octets(command: &Command) -> usize {
    let inline = |messages: &[NewMessage]| {
        messages
            .iter()
            .map(|message| match &message.body {
                NewBody::Inline(body) => body.len(),
                NewBody::Spooled(_) => 0,
            })
            .sum()
    };
    match command {
        Command::Append(_, data) => data.len(),
        Command::Enqueue(submission) => inline(&submission.messages),
        Command::Settle(_, notifications) => inline(notifications),
        Command::Notice(notice) => notice
            .message
            .as_ref()
            .map_or(0, |message| inline(std::slice::from_ref(message))),
        _ => 0,
    }
}

#[async_trait::async_trait]
impl Store for SqliteStore {
    async fn begin_body(&self) -> Result<BodyId, StoreError> {
        match self.ask(Command::BeginBody).await? {
            Outcome::Body(body) => Ok(body),
            _ => Err(self.unexpected()),
        }
    }

    async fn append_body(&self, body: BodyId, chunk: Bytes) -> Result<(), StoreError> {
        self.order(Command::Append(body, chunk)).await
    }

    async fn discard_body(&self, body: BodyId) -> Result<(), StoreError> {
        self.order(Command::Discard(body)).await
    }

    async fn enqueue(&self, submission: Submission) -> Result<Enqueued, StoreError> {
        match self.ask(Command::Enqueue(submission)).await? {
            Outcome::Enqueued(enqueued) => Ok(enqueued),
            _ => Err(self.unexpected()),
        }
    }

    async fn find_reply(
        &self,
        scope: &str,
        key: &str,
        digest: Option<[u8; 32]>,
    ) -> Result<Option<Enqueued>, StoreError> {
        let now = rows::millis(self.clock.now());
        self.readers
            .with(async |connection| view::reply(connection, scope, key, digest, now).await)
            .await
    }

    async fn due(&self, now: Timestamp) -> Result<Vec<DueDestination>, StoreError> {
        self.readers.due(rows::millis(now)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.readers.next_due().await
    }

    async fn next_due_after(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.readers.next_due_after(rows::millis(after)).await
    }

    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<ClaimedMessage>, StoreError> {
        let request = claim::Request {
            owner: claim.owner.to_owned(),
            destination: claim.destination.to_owned(),
            now: rows::millis(claim.now),
            until: rows::millis(claim.until),
            limit: claim.limit,
        };
        match self.ask(Command::Claim(request)).await? {
            Outcome::Claimed(messages) => Ok(messages),
            _ => Err(self.unexpected()),
        }
    }

    async fn begin_exchanges(&self, exchanges: Vec<NewExchange>, at: Timestamp) -> Result<(), StoreError> {
        self.order(Command::Begin(exchanges, at)).await
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
        notifications: Vec<NewMessage>,
    ) -> Result<(), StoreError> {
        self.order(Command::Settle(settlements, notifications)).await
    }

    async fn late(&self, now: Timestamp, limit: usize) -> Result<Late, StoreError> {
        self.readers
            .with(async |connection| notice::late(connection, rows::millis(now), limit).await)
            .await
    }

    async fn next_notice(&self) -> Result<Option<Timestamp>, StoreError> {
        self.readers
            .with(async |connection| notice::next(connection).await)
            .await
    }

    async fn notice(&self, notice: Notice) -> Result<bool, StoreError> {
        match self.ask(Command::Notice(Box::new(notice))).await? {
            Outcome::Stored(stored) => Ok(stored),
            _ => Err(self.unexpected()),
        }
    }

    async fn find_exchange(&self, name: ExchangeName<'_>) -> Result<Option<ClaimedMessage>, StoreError> {
        self.readers
            .with(async |connection| carried::exchange(connection, name).await)
            .await
    }

    async fn recover(&self, owner: &str, now: Timestamp) -> Result<u64, StoreError> {
        match self.ask(Command::Recover(owner.to_owned(), now)).await? {
            Outcome::Count(Some(count)) => Ok(count),
            _ => Err(self.unexpected()),
        }
    }

    async fn resume(&self, now: Timestamp) -> Result<u64, StoreError> {
        match self.ask(Command::Resume(now)).await? {
            Outcome::Count(Some(count)) => Ok(count),
            _ => Err(self.unexpected()),
        }
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn read_body(&self, body: BodyId, offset: u64) -> Result<Bytes, StoreError> {
        self.readers.body(body, offset).await
    }

    async fn message(&self, id: Ulid) -> Result<Option<MessageView>, StoreError> {
        self.readers
            .with(async |connection| view::message(connection, id).await)
            .await
    }

    async fn list(&self, filter: Filter) -> Result<Vec<MessageView>, StoreError> {
        self.readers
            .with(async |connection| view::list(connection, &filter).await)
            .await
    }

    async fn operate(
        &self,
        id: Ulid,
        operation: Operation,
        at: Timestamp,
        by: &str,
    ) -> Result<Option<u64>, StoreError> {
        let by = by.to_owned();
        let order = operate::Order {
            id,
            operation,
            at,
            by,
        };
        match self.ask(Command::Operate(order)).await? {
            Outcome::Count(count) => Ok(count),
            _ => Err(self.unexpected()),
        }
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        self.readers
            .with(async |connection| view::totals(connection).await)
            .await
    }

    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError> {
        // Nothing that is done is opened again, so no look goes over it twice.
        let from = self.done_before.load(Ordering::Relaxed);
        let oldest = self
            .readers
            .with(async |connection| view::oldest(connection, from).await)
            .await?;
        let Some((seq, accepted)) = oldest else {
            return Ok(None);
        };
        self.done_before.fetch_max(seq, Ordering::Relaxed);
        Ok(Some(accepted))
    }

    fn events(&self) -> Vec<(&'static str, u64)> {
        self.events.all()
    }

    async fn purge(&self, done_before: Timestamp, now: Timestamp) -> Result<u64, StoreError> {
        match self.ask(Command::Purge(done_before, now)).await? {
            Outcome::Count(Some(count)) => Ok(count),
            _ => Err(self.unexpected()),
        }
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.order(Command::Check).await
    }

    async fn close(&self) {
        self.readers.close().await;
        // It fails when the writer has ended already, which is what is wanted.
        drop(self.order(Command::Close).await);
    }
}
