//! Opening the database.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions, SqliteConnection,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{error, room};
use crate::StoreError;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// How long a connection waits for another process's lock.
pub(super) const BUSY: Duration = Duration::from_secs(5);

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY)
        .statement_cache_capacity(512)
        .disable_statement_logging()
        .pragma("temp_store", "MEMORY")
}

/// The writing connection.
pub(super) async fn writing(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("cache_size", "-16384")
        // 32 MiB: rarely enough that pages which change often are written once for many commits.
        .pragma("wal_autocheckpoint", "8192")
        .pragma("journal_size_limit", "67108864")
        .connect()
        .await
}

/// A connection that cannot write.
pub(super) async fn reading(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    options(path)
        .read_only(true)
        .pragma("query_only", "ON")
        .connect()
        .await
}

/// Creates the file where there is none, for the service's user alone; write-ahead log and index take over its mode.
async fn create(path: PathBuf) -> io::Result<()> {
    let create = move || match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    };
    tokio::task::spawn_blocking(create)
        .await
        .map_err(io::Error::other)?
}

/// The writing connection to a database with the newest schema, and the bodies that nobody refers to.
pub(super) async fn open(path: &Path) -> Result<(SqliteConnection, Vec<i64>), StoreError> {
    match set_up(path).await {
        Err(error) => Err(room::measure(error, path, 0).await),
        opened => opened,
    }
}

async fn set_up(path: &Path) -> Result<(SqliteConnection, Vec<i64>), StoreError> {
    create(path.to_owned())
        .await
        .map_err(|error| error::map_file(path, &error))?;
    let fault = |fault| error::map(path, &fault);
    let mut connection = writing(path).await.map_err(fault)?;
    MIGRATIONS
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|fault| error::map_migration(path, fault, &MIGRATIONS))?;
    let orphans = sqlx::query_scalar("SELECT body FROM spool")
        .fetch_all(&mut connection)
        .await
        .map_err(fault)?;
    Ok((connection, orphans))
}
