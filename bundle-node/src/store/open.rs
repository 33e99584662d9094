//! Opening the store.

use std::{
    collections::{HashMap, HashSet},
    fs::{DirBuilder, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicI64},
    time::Duration,
};

use hardy_bpv7::eid::Eid;
use lightpost_clock::Clock;
use sqlx::{
    ConnectOptions, SqliteConnection,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::{Notify, mpsc};

use super::{OpenStoreError, Place, Shared, Store, StoreError, files, read::Reader, writer::Writer};
use crate::config::NodeConfig;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/bundle-node");

/// How long a connection waits for another's lock.
const BUSY: Duration = Duration::from_secs(5);

/// Primary result codes (<https://www.sqlite.org/rescode.html>).
const IOERR: u32 = 10;
const FULL: u32 = 13;
/// The extended code of a disk on which the write-ahead log's index found no room.
const IOERR_SHMSIZE: u32 = IOERR | (19 << 8);

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY)
        .disable_statement_logging()
        .pragma("temp_store", "MEMORY")
}

pub(super) async fn writing(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", "-16384")
        // 32 MiB: a bundle that leaves soon after it came is written to the database once at most.
        .pragma("wal_autocheckpoint", "8192")
        .pragma("journal_size_limit", "67108864")
        .connect()
        .await
}

pub(super) async fn reading(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    options(path)
        .read_only(true)
        .pragma("query_only", "ON")
        .connect()
        .await
}

/// What SQLite says, in the store's words.
pub(super) fn fault(path: &Path, error: &sqlx::Error) -> StoreError {
    let path = path.display().to_string();
    let database = error.as_database_error();
    let code = database.and_then(|it| it.code()?.parse::<u32>().ok());
    match code {
        Some(code) if code & 0xff == FULL || code == IOERR_SHMSIZE => StoreError::Full { path },
        _ => StoreError::Fault {
            path,
            cause: database.map_or_else(|| error.to_string(), |it| it.message().to_owned()),
        },
    }
}

/// Makes the folder and keeps others out of it.
fn prepare(directory: &Path) -> Result<std::fs::File, OpenStoreError> {
    let failed = |path: &Path, error: &dyn std::fmt::Display, remedy| OpenStoreError {
        path: path.display().to_string(),
        cause: error.to_string(),
        remedy,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| {
            failed(
                directory,
                &error,
                "make it a folder in which this program may write",
            )
        })?;
    let path = directory.join("lock");
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| failed(&path, &error, "this program has to be able to write there"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(failed(
                directory,
                &"another bundle node uses this folder",
                "stop it, or give this one a folder of its own",
            ));
        }
        Err(TryLockError::Error(error)) => return Err(failed(&path, &error, "check the file system")),
    }
    let database = directory.join("bundles.db");
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&database)
    {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(
            &database,
            &error,
            "this program has to be able to write there",
        )),
        _ => Ok(lock),
    }
}

/// Opens the store of a node, and the last creation time that it used. `place` tells where a destination's bundles wait: routes may have changed.
pub(crate) async fn open(
    config: &NodeConfig,
    clock: Clock,
    place: impl Fn(&Eid) -> Place,
) -> Result<(Store, u64), OpenStoreError> {
    let directory = config.directory.clone();
    let lock = {
        let directory = directory.clone();
        tokio::task::spawn_blocking(move || prepare(&directory))
            .await
            .map_err(|error| OpenStoreError {
                path: config.directory.display().to_string(),
                cause: error.to_string(),
                remedy: "start it again",
            })??
    };
    let path = directory.join("bundles.db");
    let failed = |cause: String| OpenStoreError {
        path: path.display().to_string(),
        cause,
        remedy: "check the disk and the file's owner; a file that is damaged or of a newer version can be moved away, with the bundles in it",
    };
    let database = |error: sqlx::Error| failed(fault(&path, &error).to_string());
    let mut connection = writing(&path).await.map_err(database)?;
    MIGRATIONS
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|error| failed(error.to_string()))?;
    reroute(&mut connection, place).await.map_err(database)?;
    let (used, stamp, remembered) = totals(&mut connection).await.map_err(database)?;
    let known: Vec<String> = sqlx::query_scalar("SELECT file FROM bundle WHERE file IS NOT NULL")
        .fetch_all(&mut connection)
        .await
        .map_err(database)?;
    files::sweep(&directory, known.into_iter().collect::<HashSet<_>>())
        .await
        .map_err(|error| failed(error.to_string()))?;
    let shared = Arc::new(Shared {
        directory,
        clock,
        used: used.into(),
        most: config.limits.store,
        remembered: remembered.into(),
        most_remembered: config.limits.remembered,
        next_expiry: AtomicI64::new(i64::MIN),
        expiry_changed: Notify::new(),
        waiting: Mutex::new(HashMap::new()),
        failing: Mutex::new(None),
    });
    let (jobs, receiver) = mpsc::unbounded_channel();
    tokio::spawn(Writer::new(Arc::clone(&shared), connection, receiver).run());
    let reader = Reader {
        shared: Arc::clone(&shared),
        connection: None,
    };
    let store = Store {
        shared,
        jobs,
        reader: tokio::sync::Mutex::new(reader),
        lock: Mutex::new(Some(lock)),
    };
    Ok((store, stamp))
}

/// Puts what waits for a neighbour where today's routes want it.
async fn reroute(
    connection: &mut SqliteConnection,
    place: impl Fn(&Eid) -> Place,
) -> Result<(), sqlx::Error> {
    let destinations: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT destination FROM bundle WHERE place = '-' OR substr(place, 1, 2) = 'n:'",
    )
    .fetch_all(&mut *connection)
    .await?;
    for destination in destinations {
        let now = destination.parse().map_or(Place::Nowhere, |eid| place(&eid));
        sqlx::query(
            "UPDATE bundle SET place = ?1
             WHERE destination = ?2 AND place <> ?1 AND (place = '-' OR substr(place, 1, 2) = 'n:')",
        )
        .bind(now.text())
        .bind(destination)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Octets of what is there, the last creation time, and how many bundles are remembered.
async fn totals(connection: &mut SqliteConnection) -> Result<(u64, u64, u64), sqlx::Error> {
    let (used, remembered): (i64, i64) = sqlx::query_as(
        "SELECT COALESCE(SUM(CASE WHEN place IS NULL THEN 0 ELSE octets END), 0),
                COALESCE(SUM(place IS NULL), 0) FROM bundle",
    )
    .fetch_one(&mut *connection)
    .await?;
    let stamp: i64 = sqlx::query_scalar("SELECT time FROM stamp")
        .fetch_one(connection)
        .await?;
    Ok((
        used.cast_unsigned(),
        stamp.cast_unsigned(),
        remembered.cast_unsigned(),
    ))
}
