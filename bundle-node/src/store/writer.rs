//! The group-committing writer: one task owns the only connection that writes, takes every command that waits, runs them in one
//! transaction and answers after its one sync.
//!
//! A batch that fails is rolled back. What brings bundles is told so; what lets them go is kept and tried again, for nobody waits who
//! could.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::{Record, Shared, StoreError, Stored, files, open};

/// The most commands in one transaction.
const BATCH: usize = 512;
/// Turns that other tasks get to add their commands before a transaction begins: a fuller batch saves more than the turns cost.
const TURNS: usize = 8;
/// How long a store that cannot write waits before it tries again by itself.
const AGAIN: Duration = Duration::from_secs(1);
/// Rows that are forgotten in one step.
const FORGET: i64 = 2048;
/// Commands that a store that cannot write keeps for later. Beyond that it drops status reports, which nobody was promised.
const KEPT: usize = 4096;

pub(super) enum Command {
    Put {
        record: Box<Record>,
        file: Option<String>,
        also: Vec<Record>,
        instead: Vec<Stored>,
    },
    Add(Vec<Record>),
    Take {
        id: i64,
        octets: u64,
        file: Option<String>,
        remember: bool,
        also: Vec<Record>,
    },
    Forget {
        now: i64,
    },
    Close,
}

pub(super) enum Answer {
    None,
    Channel(oneshot::Sender<Result<bool, StoreError>>),
    Call(Box<dyn FnOnce(bool) + Send + Sync>),
}

pub(super) struct Job {
    pub(super) command: Command,
    pub(super) answer: Answer,
}

/// What a transaction changed beside the rows; counts only once it is committed.
#[derive(Default)]
struct Effects {
    /// Per command: whether it did something.
    done: Vec<bool>,
    freed: u64,
    added: u64,
    remembered: i64,
    files: Vec<String>,
    places: Vec<String>,
    expires: Option<i64>,
    stamp: Option<u64>,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    connection: Option<SqliteConnection>,
    jobs: mpsc::UnboundedReceiver<Job>,
    /// Commands of a batch that failed, to be tried again.
    again: Vec<Job>,
}

impl Writer {
    pub(super) const fn new(
        shared: Arc<Shared>,
        connection: SqliteConnection,
        jobs: mpsc::UnboundedReceiver<Job>,
    ) -> Self {
        Self {
            shared,
            connection: Some(connection),
            jobs,
            again: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        while let Some(batch) = self.gather().await {
            let clock = self.shared.clock.clone();
            let _hold = clock.hold();
            let (closing, batch): (Vec<Job>, Vec<Job>) = batch
                .into_iter()
                .partition(|job| matches!(job.command, Command::Close));
            if !batch.is_empty() {
                self.serve(batch).await;
            }
            if !closing.is_empty() {
                self.close().await;
                closing.into_iter().for_each(|job| job.answer.give(Ok(true)));
                return;
            }
        }
        self.close().await;
    }

    /// Writes what still came, and lets the database go.
    async fn close(&mut self) {
        self.jobs.close();
        let mut rest = std::mem::take(&mut self.again);
        while let Ok(job) = self.jobs.try_recv() {
            rest.push(job);
        }
        if !rest.is_empty() {
            self.serve(rest).await;
        }
        if let Some(connection) = self.connection.take() {
            drop(connection.close().await);
        }
    }

    async fn gather(&mut self) -> Option<Vec<Job>> {
        let mut batch = std::mem::take(&mut self.again);
        if batch.is_empty() {
            batch.push(self.jobs.recv().await?);
        } else {
            let clock = self.shared.clock.clone();
            tokio::select! {
                job = self.jobs.recv() => batch.push(job?),
                () = clock.sleep(AGAIN) => {}
            }
        }
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
            while batch.len() < BATCH {
                let Ok(job) = self.jobs.try_recv() else { break };
                batch.push(job);
            }
        }
        Some(batch)
    }

    async fn serve(&mut self, batch: Vec<Job>) {
        match self.attempt(&batch).await {
            Ok(effects) => {
                self.set_failing(None);
                self.committed(batch, effects).await;
            }
            Err(error) => {
                let error = open::fault(&self.shared.path(), &error);
                self.set_failing(Some(error.to_string()));
                // What the transaction began is rolled back when the connection goes.
                self.connection = None;
                self.failed(batch, &error).await;
                self.make_room().await;
            }
        }
    }

    /// Lets go alone what can go: on a full disk that may succeed where bundles that come do not fit.
    async fn make_room(&mut self) {
        let rest = std::mem::take(&mut self.again);
        if rest.is_empty() {
            return;
        }
        match self.attempt(&rest).await {
            Ok(effects) => self.committed(rest, effects).await,
            Err(_) => {
                self.connection = None;
                self.again = rest;
            }
        }
    }

    async fn attempt(&mut self, batch: &[Job]) -> Result<Effects, sqlx::Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => open::writing(&self.shared.path()).await?,
        };
        let mut effects = Effects::default();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await?;
        for job in batch {
            let done = run(&mut connection, &job.command, &mut effects).await?;
            effects.done.push(done);
        }
        if let Some(stamp) = effects.stamp {
            sqlx::query("UPDATE stamp SET time = MAX(time, ?)")
                .bind(stamp.cast_signed())
                .execute(&mut connection)
                .await?;
        }
        self.forget_surplus(&mut connection, &mut effects).await?;
        sqlx::query("COMMIT").execute(&mut connection).await?;
        self.connection = Some(connection);
        Ok(effects)
    }

    /// Forgets the oldest of what is remembered beyond the bound.
    async fn forget_surplus(
        &self,
        connection: &mut SqliteConnection,
        effects: &mut Effects,
    ) -> Result<(), sqlx::Error> {
        let remembered = self.shared.remembered.load(Ordering::Acquire);
        if remembered.saturating_add_signed(effects.remembered) <= self.shared.most_remembered {
            return Ok(());
        }
        let gone = sqlx::query(
            "DELETE FROM bundle WHERE id IN (SELECT id FROM bundle WHERE place IS NULL ORDER BY expires LIMIT ?)",
        )
        .bind(FORGET)
        .execute(connection)
        .await?
        .rows_affected();
        effects.remembered -= gone.cast_signed();
        Ok(())
    }

    async fn committed(&self, batch: Vec<Job>, effects: Effects) {
        let shared = &self.shared;
        shared.used.fetch_add(effects.added, Ordering::AcqRel);
        shared.release(effects.freed);
        let remembered = shared.remembered.load(Ordering::Acquire);
        shared.remembered.store(
            remembered.saturating_add_signed(effects.remembered),
            Ordering::Release,
        );
        if let Some(expires) = effects.expires
            && shared.next_expiry.fetch_min(expires, Ordering::AcqRel) > expires
        {
            shared.expiry_changed.notify_one();
        }
        for (job, done) in batch.into_iter().zip(effects.done) {
            job.answer.give(Ok(done));
        }
        for place in effects.places {
            shared.wake(&place);
        }
        files::remove(&shared.directory, effects.files).await;
    }

    async fn failed(&mut self, batch: Vec<Job>, error: &StoreError) {
        let mut files = Vec::new();
        for job in batch {
            match job.command {
                Command::Put { record, file, .. } => {
                    self.shared.release(record.octets());
                    files.extend(file);
                    job.answer.give(Err(error.clone()));
                }
                // Somebody waits and can ask again.
                Command::Take { .. } if matches!(job.answer, Answer::Channel(_)) => {
                    job.answer.give(Err(error.clone()));
                }
                Command::Add(_) if self.again.len() >= KEPT => {}
                Command::Forget { .. } => {}
                Command::Take { .. } | Command::Add(_) | Command::Close => self.again.push(job),
            }
        }
        files::remove(&self.shared.directory, files).await;
    }

    fn set_failing(&self, why: Option<String>) {
        let mut failing = self.shared.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*failing, &why) {
            (None, Some(error)) => tracing::error!(error, "the bundle store could not write"),
            (Some(_), None) => tracing::info!("the bundle store writes again"),
            _ => {}
        }
        *failing = why;
    }
}

impl Answer {
    fn give(self, result: Result<bool, StoreError>) {
        match self {
            Self::None => {}
            Self::Channel(channel) => drop(channel.send(result)),
            Self::Call(then) => then(result.unwrap_or(false)),
        }
    }
}

/// Runs one command; whether it did something.
async fn run(
    connection: &mut SqliteConnection,
    command: &Command,
    effects: &mut Effects,
) -> Result<bool, sqlx::Error> {
    match command {
        Command::Put {
            record,
            file,
            also,
            instead,
        } => {
            for part in instead {
                take(
                    connection,
                    part.id,
                    (part.octets, part.file.as_ref()),
                    true,
                    effects,
                )
                .await?;
            }
            let new = insert(connection, record, file.as_deref(), effects).await?;
            if new {
                add(connection, also, effects).await?;
            } else {
                effects.freed += record.octets();
                effects.files.extend(file.clone());
            }
            Ok(new)
        }
        Command::Add(records) => {
            add(connection, records, effects).await?;
            Ok(true)
        }
        Command::Take {
            id,
            octets,
            file,
            remember,
            also,
        } => {
            let there = take(connection, *id, (*octets, file.as_ref()), *remember, effects).await?;
            if there {
                add(connection, also, effects).await?;
            }
            Ok(there)
        }
        Command::Forget { now } => {
            let gone = sqlx::query(
                "DELETE FROM bundle WHERE id IN (SELECT id FROM bundle WHERE expires <= ? AND place IS NULL LIMIT ?)",
            )
            .bind(now)
            .bind(FORGET)
            .execute(connection)
            .await?
            .rows_affected();
            effects.remembered -= gone.cast_signed();
            Ok(gone > 0)
        }
        Command::Close => Ok(true),
    }
}

/// Lets a bundle go, which has so many octets and this file; whether it was there.
async fn take(
    connection: &mut SqliteConnection,
    id: i64,
    (octets, file): (u64, Option<&String>),
    remember: bool,
    effects: &mut Effects,
) -> Result<bool, sqlx::Error> {
    let text = if remember {
        "UPDATE bundle SET place = NULL, data = NULL, file = NULL WHERE id = ? AND place IS NOT NULL"
    } else {
        "DELETE FROM bundle WHERE id = ? AND place IS NOT NULL"
    };
    let there = sqlx::query(text)
        .bind(id)
        .execute(connection)
        .await?
        .rows_affected()
        > 0;
    if there {
        effects.freed += octets;
        effects.remembered += i64::from(remember);
        effects.files.extend(file.cloned());
    }
    Ok(there)
}

async fn add(
    connection: &mut SqliteConnection,
    records: &[Record],
    effects: &mut Effects,
) -> Result<(), sqlx::Error> {
    for record in records {
        if insert(connection, record, None, effects).await? {
            effects.added += record.octets();
        }
    }
    Ok(())
}

/// Whether it is new.
async fn insert(
    connection: &mut SqliteConnection,
    record: &Record,
    file: Option<&str>,
    effects: &mut Effects,
) -> Result<bool, sqlx::Error> {
    let place = record.place.text();
    let new = sqlx::query(
        "INSERT INTO bundle (key, place, rank, destination, received, expires, octets, verified, file, data, part_offset, part_length)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
    )
    .bind(&record.key)
    .bind(&place)
    .bind(i64::from(record.rank))
    .bind(&record.destination)
    .bind(record.received)
    .bind(record.expires)
    .bind(record.octets().cast_signed())
    .bind(record.verified.as_deref())
    .bind(file)
    .bind(file.is_none().then_some(&*record.data))
    .bind(record.part.map(|it| it.0.cast_signed()))
    .bind(record.part.map(|it| it.1.cast_signed()))
    .execute(connection)
    .await?
    .rows_affected()
        > 0;
    if new {
        if !effects.places.contains(&place) {
            effects.places.push(place);
        }
        effects.expires = Some(
            effects
                .expires
                .map_or(record.expires, |it| it.min(record.expires)),
        );
        effects.stamp = effects.stamp.max(record.stamp);
    }
    Ok(new)
}
