//! The group-committing writer.
//!
//! One task owns the only connection that writes. It takes every command that waits, runs them in one transaction, commits
//! (the one sync for all of them) and answers. While it syncs, the next commands gather, so that the load itself makes the
//! batches larger.
//!
//! A command whose fault is its own never harms the others: most are found before anything is written; when SQLite finds
//! one, the batch is rolled back and its commands run one by one. When the disk is full, what brings new mail is refused
//! and the rest, which needs little room, is tried again. After a fault of disk or file the connection is made anew, so
//! that the writer goes on as soon as the disk does.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use lightpost_clock::Clock;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    Refused, claim, enqueue, error,
    events::Events,
    memory::Memory,
    notice, open, operate, room, settle,
    tx::{Committed, Spool, Tx},
};
use crate::{
    BodyId, ClaimedMessage, Enqueued, NewExchange, NewMessage, Notice, Settlement, StoreError, Submission,
};

/// The most commands in one transaction.
const BATCH: usize = 256;
/// As many as are usual under load.
const SOME: usize = 32;
/// The most octets of bodies in one transaction, about.
const BATCH_OCTETS: usize = 8 * 1024 * 1024;
/// Turns that other tasks get to add their commands before a transaction begins: a fuller batch saves more than the turns cost.
const TURNS: usize = 16;
/// Chunks removed in one step by the sweeper.
const SWEEP: i64 = 64;
/// Octets of bodies written between two looks at the size of the write-ahead log.
const LOOK: usize = 32 * 1024 * 1024;
/// Above this the write-ahead log is emptied even if that has to wait for readers.
const LOG_MAX: u64 = 128 * 1024 * 1024;

/// What callers ask.
pub(super) enum Command {
    BeginBody,
    Append(BodyId, Bytes),
    Discard(BodyId),
    Enqueue(Submission),
    Settle(Vec<Settlement>, Vec<NewMessage>),
    Notice(Box<Notice>),
    Begin(Vec<NewExchange>, Timestamp),
    Recover(String, Timestamp),
    Resume(Timestamp),
    Operate(operate::Order),
    Claim(claim::Request),
    Purge(Timestamp, Timestamp),
    Check,
    Close,
}

/// What they are answered.
pub(super) enum Outcome {
    Done,
    Body(BodyId),
    Enqueued(Enqueued),
    Claimed(Vec<ClaimedMessage>),
    Count(Option<u64>),
    Stored(bool),
}

/// A command and who waits for its answer.
pub(super) struct Job {
    pub(super) command: Command,
    pub(super) answer: oneshot::Sender<Result<Outcome, StoreError>>,
    /// Holds the octets' share of memory until the job is dropped.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl Job {
    fn octets(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Whether it brings octets that were not acknowledged to anybody yet, or asks whether some could be brought.
    const fn brings(&self) -> bool {
        matches!(
            self.command,
            Command::Append(..) | Command::Enqueue(_) | Command::BeginBody | Command::Check
        )
    }
}

type Answers = Vec<Result<Outcome, Refused>>;

/// The task's state.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) clock: Clock,
    pub(super) connection: Option<SqliteConnection>,
    /// What the connection's last transaction left, if it was committed.
    pub(super) memory: Memory,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) changed: Arc<Notify>,
    pub(super) events: Arc<Events>,
    /// Bodies being written by this process.
    pub(super) spools: HashMap<i64, Spool>,
    /// Bodies to be removed when there is time.
    pub(super) orphans: Vec<i64>,
    pub(super) written: usize,
    /// What may be written before the disk is looked at again.
    pub(super) allowance: room::Allowance,
    /// Whether a fault of disk or file was told and new mail could not be stored since: one line per fault, not per mail.
    pub(super) failing: bool,
}

impl Writer {
    /// Serves until every sender is gone or somebody closes.
    pub(super) async fn run(mut self) {
        while let Some(mut batch) = self.gather().await {
            let _hold = self.clock.hold();
            let closing: Vec<Job> = batch
                .extract_if(.., |job| matches!(job.command, Command::Close))
                .collect();
            if !batch.is_empty() {
                self.written += batch.iter().map(Job::octets).sum::<usize>();
                self.serve(batch).await;
                self.trim_log().await;
            }
            if !closing.is_empty() {
                self.jobs.close();
                while let Ok(job) = self.jobs.try_recv() {
                    self.serve(vec![job]).await;
                }
                self.disconnect().await;
                closing
                    .into_iter()
                    .for_each(|job| drop(job.answer.send(Ok(Outcome::Done))));
            }
        }
        self.disconnect().await;
    }

    /// Waits for a command and takes all that are there; sweeps meanwhile.
    async fn gather(&mut self) -> Option<Vec<Job>> {
        let first = loop {
            match self.jobs.try_recv() {
                Ok(job) => break job,
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) if self.orphans.is_empty() => {
                    break self.jobs.recv().await?;
                }
                Err(mpsc::error::TryRecvError::Empty) => self.sweep().await,
            }
        };
        let mut octets = first.octets();
        let mut batch = Vec::with_capacity(SOME);
        batch.push(first);
        // Callers that were answered just now are about to ask again: let them.
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
            while batch.len() < BATCH && octets < BATCH_OCTETS {
                let Ok(job) = self.jobs.try_recv() else { break };
                octets += job.octets();
                batch.push(job);
            }
        }
        Some(batch)
    }

    /// Runs a batch and answers it.
    async fn serve(&mut self, batch: Vec<Job>) {
        let mut batch = self.refuse_without_room(batch).await;
        if batch.is_empty() {
            return;
        }
        let fault = match self.attempt(&batch).await {
            Ok(answers) => return self.answer(batch, answers),
            Err(fault) => fault,
        };
        let wanted = brought(&batch);
        let store = room::measure(error::map(&self.path, &fault), &self.path, wanted).await;
        let again: Vec<Job> = if error::is_logical(&fault) && batch.len() > 1 {
            std::mem::take(&mut batch)
        } else if error::is_full(&store) {
            batch.extract_if(.., |job| !job.brings()).collect()
        } else {
            Vec::new()
        };
        if !error::is_logical(&fault) {
            self.allowance.clear();
            if !std::mem::replace(&mut self.failing, true) {
                tracing::error!(error = %store, "the queue could not write");
            }
            self.disconnect().await;
        }
        for job in batch {
            drop(job.answer.send(Err(store.clone())));
        }
        for job in again {
            let result = self.attempt(std::slice::from_ref(&job)).await;
            match result {
                Ok(answers) => self.answer(vec![job], answers),
                Err(fault) => {
                    if !error::is_logical(&fault) {
                        self.disconnect().await;
                    }
                    drop(job.answer.send(Err(error::map(&self.path, &fault))));
                }
            }
        }
    }

    /// Answers commands that bring mail which the disk has no room for; the others remain.
    async fn refuse_without_room(&mut self, mut batch: Vec<Job>) -> Vec<Job> {
        let octets = brought(&batch);
        if !batch.iter().any(Job::brings) || self.has_room(octets).await {
            return batch;
        }
        let full = StoreError::Full {
            path: self.path.display().to_string(),
            shortage: None,
        };
        let full = room::measure(full, &self.path, octets).await;
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(error = %full, "the queue takes no new mail");
        }
        for job in batch.extract_if(.., |job| job.brings()) {
            drop(job.answer.send(Err(full.clone())));
        }
        batch
    }

    /// Whether the disk has room for new mail; a long write-ahead log is emptied before the answer is no.
    async fn has_room(&mut self, octets: u64) -> bool {
        if self.allowance.take(octets, self.clock.instant()) {
            return true;
        }
        let Some(room) = room::look(&self.path).await else {
            return true;
        };
        if room.fits(octets) {
            self.allowance.renew(room, self.clock.instant());
            return true;
        }
        if room.log > 0 && room.free > room.log {
            self.empty_log().await;
        }
        room::look(&self.path).await.is_none_or(|room| room.fits(octets))
    }

    fn answer(&self, batch: Vec<Job>, answers: Answers) {
        for (job, answer) in batch.into_iter().zip(answers) {
            let answer = answer.map_err(|Refused(cause)| StoreError::Other {
                path: self.path.display().to_string(),
                cause,
            });
            // Nobody may wait any more; what was done stays done.
            drop(job.answer.send(answer));
        }
    }

    /// One transaction; rolled back when it fails.
    async fn attempt(&mut self, batch: &[Job]) -> Result<Answers, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open::writing(&self.path).await?,
        };
        let connection = self.connection.insert(connection);
        let memory = std::mem::take(&mut self.memory);
        let result = async {
            let mut tx = Tx::begin(connection, self.clock.now(), memory).await?;
            share_spools(&mut tx, batch, &self.spools);
            let answers = run(&mut tx, batch).await?;
            Ok((answers, tx.commit().await?))
        }
        .await;
        match result {
            Ok((answers, committed)) => {
                self.take_over(committed);
                if self.failing && batch.iter().any(Job::brings) {
                    self.failing = false;
                    tracing::info!(path = %self.path.display(), "the queue takes new mail again");
                }
                Ok(answers)
            }
            Err(fault) => {
                if sqlx::query("ROLLBACK").execute(connection).await.is_err() && error::is_logical(&fault) {
                    self.disconnect().await;
                }
                Err(fault)
            }
        }
    }

    fn take_over(&mut self, committed: Committed) {
        self.memory = committed.memory;
        self.events.add(&committed.events);
        for (body, spool) in committed.spools {
            match spool {
                Some(spool) => drop(self.spools.insert(body, spool)),
                None => drop(self.spools.remove(&body)),
            }
        }
        for body in committed.abandoned {
            self.spools.remove(&body);
            self.orphans.push(body);
        }
        if committed.wake {
            // Those who wait now, and whoever asks next.
            self.changed.notify_waiters();
            self.changed.notify_one();
        }
    }

    async fn disconnect(&mut self) {
        self.memory = Memory::default();
        if let Some(connection) = self.connection.take() {
            // What matters was committed; the next open recovers from any state.
            drop(connection.close().await);
        }
    }

    /// Removes some chunks of an orphan; a fault leaves it for the next start.
    async fn sweep(&mut self) {
        let _hold = self.clock.hold();
        let (Some(body), Some(connection)) = (self.orphans.last().copied(), self.connection.as_mut()) else {
            self.orphans.clear();
            return;
        };
        match sweep_step(connection, body).await {
            Ok(true) => {}
            Ok(false) => drop(self.orphans.pop()),
            Err(fault) => {
                tracing::warn!(error = %error::map(&self.path, &fault), "removing a body that nobody needs failed");
                self.orphans.pop();
            }
        }
        // As large as the chunks that it removed: their pages may all be in the log.
        self.written += LOOK / 2;
        self.trim_log().await;
    }

    /// Empties a write-ahead log that automatic checkpoints, which never wait for readers, could not.
    async fn trim_log(&mut self) {
        if self.written < LOOK {
            return;
        }
        self.written = 0;
        let long = tokio::fs::metadata(room::log_of(&self.path))
            .await
            .is_ok_and(|file| file.len() > LOG_MAX);
        if long {
            self.empty_log().await;
        }
    }

    async fn empty_log(&mut self) {
        let Some(connection) = self.connection.as_mut() else {
            return;
        };
        if let Err(fault) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(connection)
            .await
        {
            tracing::warn!(error = %error::map(&self.path, &fault), "the write-ahead log could not be emptied");
        }
    }
}

/// Octets of new mail in a batch.
fn brought(batch: &[Job]) -> u64 {
    let bringing = batch.iter().filter(|job| job.brings());
    bringing.map(Job::octets).sum::<usize>() as u64
}

/// Gives a transaction what it has to know of bodies under way.
fn share_spools(tx: &mut Tx<'_>, batch: &[Job], spools: &HashMap<i64, Spool>) {
    let mut share = |body: BodyId| {
        if let Some(spool) = spools.get(&body.0) {
            tx.spools.insert(body.0, Some(*spool));
        }
    };
    for job in batch {
        match &job.command {
            Command::Append(body, _) | Command::Discard(body) => share(*body),
            Command::Enqueue(submission) => bodies(&submission.messages).for_each(&mut share),
            Command::Settle(_, notifications) => bodies(notifications).for_each(&mut share),
            _ => {}
        }
    }
}

fn bodies(messages: &[NewMessage]) -> impl Iterator<Item = BodyId> {
    messages.iter().filter_map(|message| match message.body {
        crate::NewBody::Spooled(body) => Some(body),
        crate::NewBody::Inline(_) => None,
    })
}

/// Deletes up to [`SWEEP`] chunks, then the note of the body; whether there may be more.
async fn sweep_step(connection: &mut SqliteConnection, body: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM chunk WHERE key IN (SELECT key FROM chunk WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3)",
    )
    .bind(body << enqueue::CHUNK_BITS)
    .bind((body + 1) << enqueue::CHUNK_BITS)
    .bind(SWEEP)
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() > 0 {
        return Ok(true);
    }
    sqlx::query("DELETE FROM spool WHERE body = ?1")
        .bind(body)
        .execute(connection)
        .await?;
    Ok(false)
}

/// Answers by position, filled kind by kind.
struct Slots(Vec<Option<Result<Outcome, Refused>>>);

impl Slots {
    fn fill(&mut self, at: &[usize], answers: impl IntoIterator<Item = Result<Outcome, Refused>>) {
        for (at, answer) in at.iter().zip(answers) {
            if let Some(slot) = self.0.get_mut(*at) {
                *slot = Some(answer);
            }
        }
    }
}

/// Runs the commands, those of one kind together.
async fn run(tx: &mut Tx<'_>, batch: &[Job]) -> Result<Answers, sqlx::Error> {
    let mut slots = Slots(Vec::new());
    slots.0.resize_with(batch.len(), || None);
    run_bodies(tx, batch, &mut slots).await?;
    run_outcomes(tx, batch, &mut slots).await?;
    run_single(tx, batch, &mut slots).await?;
    Ok(slots
        .0
        .into_iter()
        .map(|slot| slot.unwrap_or_else(|| Err(Refused("the store is closing".to_owned()))))
        .collect())
}

/// The commands that `pick` knows, with their places.
fn pick<'a, T>(batch: &'a [Job], pick: impl Fn(&'a Command) -> Option<T>) -> (Vec<usize>, Vec<T>) {
    batch
        .iter()
        .enumerate()
        .filter_map(|(at, job)| Some((at, pick(&job.command)?)))
        .unzip()
}

async fn run_bodies(tx: &mut Tx<'_>, batch: &[Job], slots: &mut Slots) -> Result<(), sqlx::Error> {
    let (at, begins) = pick(batch, |command| {
        matches!(command, Command::BeginBody).then_some(())
    });
    let bodies = enqueue::begin_bodies(tx, begins.len()).await?;
    slots.fill(&at, bodies.into_iter().map(|body| Ok(Outcome::Body(body))));

    let (at, appends) = pick(batch, |command| match command {
        Command::Append(body, data) => Some((*body, data)),
        _ => None,
    });
    let appended = enqueue::append(tx, &appends).await?;
    slots.fill(
        &at,
        appended.into_iter().map(|answer| answer.map(|()| Outcome::Done)),
    );

    let (at, submissions) = pick(batch, |command| match command {
        Command::Enqueue(submission) => Some(submission),
        _ => None,
    });
    let enqueued = enqueue::enqueue(tx, &submissions).await?;
    slots.fill(
        &at,
        enqueued.into_iter().map(|answer| answer.map(Outcome::Enqueued)),
    );

    let (at, discards) = pick(batch, |command| match command {
        Command::Discard(body) => Some(body.0),
        _ => None,
    });
    for body in &discards {
        // One that a message has meanwhile stays.
        if matches!(tx.spools.get(body), Some(Some(_))) {
            tx.spools.insert(*body, None);
            tx.abandoned.push(*body);
        }
    }
    slots.fill(&at, discards.iter().map(|_| Ok(Outcome::Done)));
    Ok(())
}

async fn run_outcomes(tx: &mut Tx<'_>, batch: &[Job], slots: &mut Slots) -> Result<(), sqlx::Error> {
    let (at, settles) = pick(batch, |command| match command {
        Command::Settle(settlements, notifications) => Some((settlements, notifications)),
        _ => None,
    });
    let (mut settlements, mut caused, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for (settled, notifications) in settles {
        let mut prepared = Vec::new();
        let answer = enqueue::prepare(tx, notifications, &mut prepared);
        if answer.is_ok() {
            settlements.push(settled.as_slice());
            caused.push(prepared);
        }
        answers.push(answer.map(|()| Outcome::Done));
    }
    let moot = settle::settle(tx, &settlements).await?;
    let (mut prepared, mut stored) = (Vec::new(), Vec::new());
    for (caused, moot) in caused.into_iter().zip(moot) {
        for one in caused {
            // What did not become of a message is not told either.
            if settle::about(one.message()).is_some_and(|message| moot.contains(&message)) {
                enqueue::abandon(tx, &one);
                continue;
            }
            stored.push(one.message());
            prepared.push(one);
        }
    }
    enqueue::store(tx, prepared).await?;
    settle::notified(tx, &stored).await?;
    slots.fill(&at, answers);

    let (at, begins) = pick(batch, |command| match command {
        Command::Begin(exchanges, at) => Some((exchanges.as_slice(), *at)),
        _ => None,
    });
    if !begins.is_empty() {
        let begun = settle::begin(tx, &begins).await?;
        slots.fill(
            &at,
            begun.into_iter().map(|answer| answer.map(|()| Outcome::Done)),
        );
    }
    Ok(())
}

async fn run_single(tx: &mut Tx<'_>, batch: &[Job], slots: &mut Slots) -> Result<(), sqlx::Error> {
    for (at, job) in batch.iter().enumerate() {
        let outcome = match &job.command {
            Command::Recover(owner, now) => Outcome::Count(Some(settle::recover(tx, owner, *now).await?)),
            Command::Resume(now) => Outcome::Count(Some(settle::resume(tx, *now).await?)),
            Command::Operate(order) => Outcome::Count(operate::operate(tx, order).await?),
            Command::Claim(request) => Outcome::Claimed(claim::claim(tx, request).await?),
            Command::Purge(before, now) => Outcome::Count(Some(operate::purge(tx, *before, *now).await?)),
            Command::Notice(notice) => {
                let answer = notice::store(tx, notice).await?;
                slots.fill(&[at], [answer.map(Outcome::Stored)]);
                continue;
            }
            Command::Check => {
                tx.checks += 1;
                Outcome::Done
            }
            _ => continue,
        };
        slots.fill(&[at], [Ok(outcome)]);
    }
    Ok(())
}
