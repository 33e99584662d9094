//! One transaction: what the commands of a batch share.
//!
//! Recipients that a command touches are loaded once, unless they are in the [`Memory`], and changed there; [`Tx::flush`] writes all of
//! them with one statement. History lines and the ledger are written once, at the end.

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use ulid::Ulid;

use super::{
    events,
    insert::{Around, LARGEST, STATEMENTS, Script, Table, insert},
    memory::Memory,
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
    /// Recipients and messages that are known.
    pub(super) memory: Memory,
    counts: [i64; 8],
    changed: BTreeSet<i64>,
    /// Recipients that are done, and their messages.
    done: Vec<i64>,
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

/// The columns in the order in which they are bound. As values, not as JSON: that would be parsed again for each column.
const STORE: Around = Around {
    before: "UPDATE recipient SET status = new.column2, due = new.column3, attempts = new.column4, reason = new.column5, \
        owner = new.column6, exchange = new.column7, remote = new.column8, detail = new.column9 FROM (",
    columns: 9,
    behind: ") AS new WHERE recipient.id = new.column1",
};

/// Of what is done nothing more is told. By itself, as every statement that names an indexed column writes to its index.
const UNTOLD: &str =
    "UPDATE recipient SET notice = NULL WHERE id IN (SELECT value FROM json_each(?)) AND notice IS NOT NULL";

const FINISH: &str = "UPDATE message SET done = j.value FROM json_each(?) AS j \
    WHERE message.seq = CAST(j.key AS INTEGER) AND message.done IS NULL \
    AND NOT EXISTS (SELECT 1 FROM recipient AS r WHERE r.message = message.seq AND r.status < 4)";

/// Behind [`FINISH`]: the messages that it changed are open no more.
const FINISHED: &str = "UPDATE ledger SET open = open - changes()";

const BEGIN: &str =
    "BEGIN IMMEDIATE; SELECT message, recipient, spool, event, data_version FROM ledger, pragma_data_version";

const LEDGER: &str = "UPDATE ledger SET message = ?, recipient = ?, spool = ?, event = ?, checks = checks + ?, \
    open = open + ?, queued = queued + ?, held = held + ?, leased = leased + ?, awaiting = awaiting + ?, \
    delivered = delivered + ?, failed = failed + ?, expired = expired + ?, cancelled = cancelled + ?";

impl<'a> Tx<'a> {
    /// Takes the write lock and reads the ledger. `memory` is what this connection's last transaction left.
    pub(super) async fn begin(
        connection: &'a mut SqliteConnection,
        now: Timestamp,
        memory: Memory,
    ) -> Result<Self, sqlx::Error> {
        let row = sqlx::query(BEGIN).fetch_one(&mut *connection).await?;
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
            memory: memory.at(row.try_get(4)?),
            counts: [0; 8],
            changed: BTreeSet::new(),
            done: Vec::new(),
            finished: HashMap::new(),
            events: Vec::new(),
            pending: (Script::default(), 0),
        })
    }

    /// Writes what was collected and commits: the one sync of the batch.
    pub(super) async fn commit(mut self) -> Result<Committed, sqlx::Error> {
        let events = std::mem::take(&mut self.events);
        let counted = events::count(&events);
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
        self.write_changes().await?;
        let (mut script, _) = std::mem::take(&mut self.pending);
        script.rows(&EVENT, last, bind_event);
        self.write_ledger(&mut script);
        script.statement("COMMIT");
        script.run(self.connection).await?;
        Ok(Committed {
            spools: self.spools,
            abandoned: self.abandoned,
            wake: self.wake,
            memory: self.memory.settled(&self.done),
            events: counted,
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
                self.memory
                    .recipient(*id)
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
            self.name(id, rows::ulid(row.try_get("message_id")?)?);
        }
        Ok(())
    }

    /// Notes the id of a loaded recipient's message.
    pub(super) fn name(&mut self, id: i64, message: Ulid) {
        if let Some(recipient) = self.memory.recipient_mut(id) {
            recipient.message_id = Some(message);
        }
    }

    /// Takes a row with [`COLUMNS`] in, unless it is known already; gives its id.
    pub(super) fn remember(&mut self, row: &SqliteRow) -> Result<i64, sqlx::Error> {
        let id = row.try_get("id")?;
        if self.memory.recipient(id).is_none() {
            let exchange: Option<&[u8]> = row.try_get("exchange")?;
            let recipient = Recipient {
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
            };
            self.memory.learn(id, recipient);
        }
        Ok(id)
    }

    /// A loaded recipient.
    pub(super) fn recipient(&self, id: i64) -> Option<&Recipient> {
        self.memory.recipient(id)
    }

    /// Changes a loaded recipient; keeps the counts, and looks at its message once it is done.
    pub(super) fn change(&mut self, id: i64, at: Timestamp, change: impl FnOnce(&mut Recipient)) {
        let Some(recipient) = self.memory.recipient_mut(id) else {
            return;
        };
        let before = recipient.status;
        change(recipient);
        let (after, message) = (recipient.status, recipient.message);
        if is_done(after) {
            recipient.due = None;
            self.finished.insert(message, rows::millis(at));
            self.done.push(id);
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
        self.write_changes().await
    }

    async fn write_changes(&mut self) -> Result<(), sqlx::Error> {
        let changed: Vec<i64> = std::mem::take(&mut self.changed).into_iter().collect();
        let finished = std::mem::take(&mut self.finished);
        let known = changed
            .iter()
            .filter_map(|id| Some((*id, self.memory.recipient(*id)?)));
        let rows: Vec<(i64, &Recipient)> = known.collect();
        let done = rows.iter().filter(|(_, recipient)| is_done(recipient.status));
        let done: Vec<i64> = done.map(|(id, _)| *id).collect();
        // What fills whole statements goes by itself, many of them in a step, so that the texts of what is left stay few.
        let (full, rest) = rows.split_at(rows.len() - rows.len() % LARGEST);
        for statements in full.chunks(LARGEST * STATEMENTS) {
            let mut script = Script::default();
            for group in statements.chunks(LARGEST) {
                script.values(&STORE, group, bind_recipient);
            }
            script.run(self.connection).await?;
        }
        let mut script = Script::default();
        script.values(&STORE, rest, bind_recipient);
        if !done.is_empty() {
            script.statement(UNTOLD).add(rows::json(&done)?);
        }
        if !finished.is_empty() {
            // Behind the last of them: it looks at what they wrote.
            script
                .statement(FINISH)
                .add(rows::json(&finished)?)
                .statement(FINISHED);
        }
        script.run(self.connection).await
    }

    /// Forgets messages that were removed.
    pub(super) fn forget(&mut self, messages: &HashSet<i64>) {
        self.memory.forget(messages);
    }
}

/// What a committed transaction changes in memory.
pub(super) struct Committed {
    pub(super) spools: HashMap<i64, Option<Spool>>,
    pub(super) abandoned: Vec<i64>,
    pub(super) wake: bool,
    pub(super) memory: Memory,
    pub(super) events: events::Counts,
}

fn bind_recipient(script: &mut Script, (id, recipient): &(i64, &Recipient)) {
    let exchange = recipient.exchange.map(|exchange| exchange.to_bytes());
    script
        .add(*id)
        .add(status_number(recipient.status))
        .add(recipient.due)
        .add(recipient.attempts)
        .add(recipient.reason.as_deref())
        .add(recipient.owner.as_deref())
        .add(exchange.as_ref().map(|exchange| &exchange[..]))
        .add(recipient.remote.as_deref())
        .add(recipient.detail.as_deref());
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
