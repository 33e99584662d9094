//! One transaction: what the commands of a batch share.
//!
//! Recipients that a command touches are loaded once and changed in memory; [`Tx::flush`] writes all of them with one
//! statement. History lines and the ledger are written once, at the end.

use std::collections::{BTreeSet, HashMap, hash_map::Entry};

use jiff::Timestamp;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use ulid::Ulid;

use super::{
    insert::{LARGEST, Script, Table, insert},
    rows::{self, is_done, status_number},
};
use crate::{RecipientId, Status};

/// What is known of a body that is being written: chunks and octets so far.
#[derive(Clone, Copy, Default)]
pub(super) struct Spool {
    pub(super) chunks: i64,
    pub(super) size: u64,
}

/// A recipient's changeable columns.
#[derive(Clone)]
pub(super) struct Recipient {
    pub(super) message: i64,
    /// The message's id, where the recipient was loaded by its own.
    pub(super) message_id: Option<Ulid>,
    pub(super) status: Status,
    pub(super) due: Option<i64>,
    pub(super) attempts: i64,
    pub(super) reason: Option<String>,
    pub(super) owner: Option<String>,
    pub(super) exchange: Option<Ulid>,
    pub(super) remote: Option<String>,
    pub(super) detail: Option<String>,
}

/// A line of history to be written.
pub(super) struct Event {
    pub(super) message: i64,
    pub(super) recipient: Option<i64>,
    pub(super) at: Timestamp,
    pub(super) kind: &'static str,
    pub(super) remote: Option<String>,
    pub(super) detail: String,
}

/// The last ids given out.
pub(super) struct Ids {
    pub(super) message: i64,
    pub(super) recipient: i64,
    pub(super) spool: i64,
    event: i64,
}

/// A transaction under way.
pub(super) struct Tx<'a> {
    pub(super) connection: &'a mut SqliteConnection,
    pub(super) now: Timestamp,
    pub(super) ids: Ids,
    /// Bodies being written, as they will be when this is committed; `None` once a message has one.
    pub(super) spools: HashMap<i64, Option<Spool>>,
    /// Bodies left to the sweeper.
    pub(super) abandoned: Vec<i64>,
    /// Whether something may be due earlier than before.
    pub(super) wake: bool,
    /// Change of the number of messages that are not done.
    pub(super) open: i64,
    pub(super) checks: i64,
    counts: [i64; 8],
    recipients: HashMap<i64, Recipient>,
    changed: BTreeSet<i64>,
    finished: HashMap<i64, i64>,
    events: Vec<Event>,
    /// Insertions that nobody reads yet, and of how many rows in each table.
    pending: (Script, usize),
}

const EVENT: Table = Table {
    into: "event (message, id, recipient, at, kind, remote, detail)",
    columns: 7,
    suffix: "",
};

/// The columns of [`Recipient`], and the id.
pub(super) const COLUMNS: &str =
    "r.id, r.message, r.status, r.due, r.attempts, r.reason, r.owner, r.exchange, r.remote, r.detail";

pub(super) const LOAD: &str = "SELECT r.id, r.message, r.status, r.due, r.attempts, r.reason, r.owner, r.exchange, r.remote, \
    r.detail, m.id AS message_id FROM json_each(?1) AS j CROSS JOIN recipient AS r ON r.id = j.value \
    CROSS JOIN message AS m ON m.seq = r.message";

const STORE: &str = "UPDATE recipient SET status = j.value ->> 1, due = j.value ->> 2, attempts = j.value ->> 3, \
    reason = j.value ->> 4, owner = j.value ->> 5, exchange = unhex(j.value ->> 6), remote = j.value ->> 7, \
    detail = j.value ->> 8, notice = iif(j.value ->> 1 < 4, notice, NULL) FROM json_each(?) AS j WHERE recipient.id = j.value ->> 0";

const FINISH: &str = "UPDATE message SET done = j.value ->> 1 FROM json_each(?) AS j \
    WHERE message.seq = j.value ->> 0 AND message.done IS NULL \
    AND NOT EXISTS (SELECT 1 FROM recipient AS r WHERE r.message = message.seq AND r.status < 4)";

/// Behind [`FINISH`]: the messages that it changed are open no more.
const FINISHED: &str = "UPDATE ledger SET open = open - changes()";

const LEDGER: &str = "UPDATE ledger SET message = ?, recipient = ?, spool = ?, event = ?, checks = checks + ?, \
    open = open + ?, queued = queued + ?, held = held + ?, leased = leased + ?, awaiting = awaiting + ?, \
    delivered = delivered + ?, failed = failed + ?, expired = expired + ?, cancelled = cancelled + ?";

impl<'a> Tx<'a> {
    /// Takes the write lock and reads the ledger.
    pub(super) async fn begin(
        connection: &'a mut SqliteConnection,
        now: Timestamp,
    ) -> Result<Self, sqlx::Error> {
        let row = sqlx::query("BEGIN IMMEDIATE; SELECT message, recipient, spool, event FROM ledger")
            .fetch_one(&mut *connection)
            .await?;
        let ids = Ids {
            message: row.try_get(0)?,
            recipient: row.try_get(1)?,
            spool: row.try_get(2)?,
            event: row.try_get(3)?,
        };
        Ok(Self {
            connection,
            now,
            ids,
            spools: HashMap::new(),
            abandoned: Vec::new(),
            wake: false,
            open: 0,
            checks: 0,
            counts: [0; 8],
            recipients: HashMap::new(),
            changed: BTreeSet::new(),
            finished: HashMap::new(),
            events: Vec::new(),
            pending: (Script::default(), 0),
        })
    }

    /// Writes what was collected and commits: the one sync of the batch.
    pub(super) async fn commit(mut self) -> Result<Committed, sqlx::Error> {
        let events = std::mem::take(&mut self.events);
        let first = self.ids.event;
        self.ids.event += rows::integer(events.len() as u64);
        let numbered: Vec<(i64, Event)> = (first + 1..).zip(events).collect();
        let (last, rest) = numbered.split_at(numbered.len().min(LARGEST));
        // As many lines of history as rows, as where all commands are of one kind: then there are few such texts. Others are run by
        // themselves, so that there are not as many texts as products of the two.
        if self.pending.1 != last.len() || !rest.is_empty() {
            self.write_pending().await?;
        }
        insert(self.connection, &EVENT, rest, bind_event).await?;
        let (mut script, _) = std::mem::take(&mut self.pending);
        self.write_changes(&mut script)?;
        script.rows(&EVENT, last, bind_event);
        self.write_ledger(&mut script);
        script.statement("COMMIT");
        script.run(self.connection).await?;
        Ok(Committed {
            spools: self.spools,
            abandoned: self.abandoned,
            wake: self.wake,
        })
    }

    /// Leaves insertions of `rows` rows in each of some tables to the next [`Tx::flush`] or the commit.
    pub(super) async fn defer(&mut self, script: Script, rows: usize) -> Result<(), sqlx::Error> {
        self.write_pending().await?;
        self.pending = (script, rows);
        Ok(())
    }

    async fn write_pending(&mut self) -> Result<(), sqlx::Error> {
        let (script, _) = std::mem::take(&mut self.pending);
        script.run(self.connection).await
    }

    fn write_ledger(&self, script: &mut Script) {
        script
            .statement(LEDGER)
            .add(self.ids.message)
            .add(self.ids.recipient)
            .add(self.ids.spool)
            .add(self.ids.event)
            .add(self.checks)
            .add(self.open);
        for count in self.counts {
            script.add(count);
        }
    }

    /// Adds a line to the history.
    pub(super) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Counts a recipient in or out.
    pub(super) fn count(&mut self, status: Status, change: i64) {
        if let Some(count) = self.counts.get_mut(status as usize) {
            *count += change;
        }
    }

    /// Makes sure that [`Tx::recipient`] knows these, as far as they exist.
    pub(super) async fn load(&mut self, ids: impl Iterator<Item = RecipientId>) -> Result<(), sqlx::Error> {
        let missing: Vec<i64> = ids
            .map(|id| id.0)
            .filter(|id| {
                self.recipients
                    .get(id)
                    .is_none_or(|known| known.message_id.is_none())
            })
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let found = sqlx::query(LOAD)
            .bind(rows::json(&missing)?)
            .fetch_all(&mut *self.connection)
            .await?;
        for row in &found {
            let id = self.remember(row)?;
            let message = rows::ulid(row.try_get("message_id")?)?;
            if let Some(recipient) = self.recipients.get_mut(&id) {
                recipient.message_id = Some(message);
            }
        }
        Ok(())
    }

    /// Takes a row with [`COLUMNS`] in, unless it is known already; gives its id.
    pub(super) fn remember(&mut self, row: &SqliteRow) -> Result<i64, sqlx::Error> {
        let id = row.try_get("id")?;
        if let Entry::Vacant(vacant) = self.recipients.entry(id) {
            let exchange: Option<&[u8]> = row.try_get("exchange")?;
            vacant.insert(Recipient {
                message: row.try_get("message")?,
                message_id: None,
                status: rows::status(row, "status")?,
                due: row.try_get("due")?,
                attempts: row.try_get("attempts")?,
                reason: row.try_get("reason")?,
                owner: row.try_get("owner")?,
                exchange: exchange.map(rows::ulid).transpose()?,
                remote: row.try_get("remote")?,
                detail: row.try_get("detail")?,
            });
        }
        Ok(id)
    }

    /// A loaded recipient.
    pub(super) fn recipient(&self, id: i64) -> Option<&Recipient> {
        self.recipients.get(&id)
    }

    /// Changes a loaded recipient; keeps the counts, and looks at its message once it is done.
    pub(super) fn change(&mut self, id: i64, at: Timestamp, change: impl FnOnce(&mut Recipient)) {
        let Some(recipient) = self.recipients.get_mut(&id) else {
            return;
        };
        let before = recipient.status;
        change(recipient);
        let (after, message) = (recipient.status, recipient.message);
        if is_done(after) {
            recipient.due = None;
            self.finished.insert(message, rows::millis(at));
        }
        if after != Status::Leased {
            recipient.owner = None;
        }
        self.count(before, -1);
        self.count(after, 1);
        self.changed.insert(id);
    }

    /// Writes changed recipients, so that queries see them.
    pub(super) async fn flush(&mut self) -> Result<(), sqlx::Error> {
        self.write_pending().await?;
        let mut script = Script::default();
        self.write_changes(&mut script)?;
        script.run(self.connection).await
    }

    fn write_changes(&mut self, script: &mut Script) -> Result<(), sqlx::Error> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let mut all = Vec::with_capacity(self.changed.len());
        for id in std::mem::take(&mut self.changed) {
            if let Some(r) = self.recipients.get(&id) {
                let exchange = r.exchange.map(rows::hex);
                all.push((
                    id,
                    status_number(r.status),
                    r.due,
                    r.attempts,
                    r.reason.as_deref(),
                    r.owner.as_deref(),
                    exchange,
                    r.remote.as_deref(),
                    r.detail.as_deref(),
                ));
            }
        }
        script.statement(STORE).add(rows::json(&all)?);
        if !self.finished.is_empty() {
            let finished: Vec<(i64, i64)> = std::mem::take(&mut self.finished).into_iter().collect();
            script
                .statement(FINISH)
                .add(rows::json(&finished)?)
                .statement(FINISHED);
        }
        Ok(())
    }

    /// Forgets recipients that were removed.
    pub(super) fn forget(&mut self, message: i64) {
        self.recipients
            .retain(|_, recipient| recipient.message != message);
    }
}

/// What a committed transaction changes in memory.
pub(super) struct Committed {
    pub(super) spools: HashMap<i64, Option<Spool>>,
    pub(super) abandoned: Vec<i64>,
    pub(super) wake: bool,
}

fn bind_event(script: &mut Script, (id, event): &(i64, Event)) {
    script
        .add(event.message)
        .add(*id)
        .add(event.recipient)
        .add(rows::millis(event.at))
        .add(event.kind)
        .add(event.remote.as_deref())
        .add(event.detail.as_str());
}
