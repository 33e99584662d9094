//! Looking at a database without touching it, also while a program works on it.
//!
//! Nothing is made, changed or removed: no file beside it, no index of its write-ahead log, and no lock is kept. Where a log and its index
//! are there, a program works on the database or was killed, and the log is read with it. Otherwise the file stands for itself, and SQLite
//! is told that nobody changes it: else it would make the two files for the sake of reading.

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{error, lock, open, room};
use crate::StoreError;

/// The tables by which a database of ours is known.
const OURS: [&str; 3] = ["ledger", "message", "recipient"];

/// What is where the database is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The schema of a database that is there.
    pub schema: Schema,
    /// Which process works on it.
    pub holder: Option<String>,
}

/// The schema of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schema {
    /// There is no database, or nothing in it: the first start makes it.
    None,
    /// One of ours.
    Version {
        /// Its version.
        found: i64,
        /// The newest that this program knows, which the next start brings it to.
        known: i64,
    },
    /// It could not be looked at without changing something, for this reason.
    Unseen(String),
}

/// Why a program cannot work on a database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// The folder.
    #[error("the folder {0} does not exist")]
    NoFolder(String),
    /// A file, or the folder.
    #[error("{path} cannot be written by this user ({cause})")]
    Unwritable {
        /// Which.
        path: String,
        /// What the system says.
        cause: String,
    },
    /// Something else than a queue.
    #[error("{path} is no queue of Lightpost: {found}")]
    Foreign {
        /// The file.
        path: String,
        /// What it is.
        found: String,
    },
    /// Of a later version.
    #[error("{path} was written by a newer version (schema {found}, this one knows {known})")]
    Newer {
        /// The database.
        path: String,
        /// Its schema.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// Not sound.
    #[error("{path} is damaged ({cause})")]
    Damaged {
        /// The database.
        path: String,
        /// What SQLite says.
        cause: String,
    },
}

impl Unfit {
    /// What to do about it.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::NoFolder(_) => "create it, owned by the user that the service runs as",
            Self::Unwritable { .. } => {
                "give it to the user that the service runs as, and check as that user: the program makes files beside the database"
            }
            Self::Foreign { .. } => "name a file of its own, which need not exist yet",
            Self::Newer { .. } => "install that version or a newer one",
            Self::Damaged { .. } => {
                "stop the service, keep a copy of the file and recover it with sqlite3's command .recover"
            }
        }
    }
}

/// Looks at the database `path`.
///
/// # Errors
/// Why no program could work on it.
pub async fn inspect(path: &Path) -> Result<Inspection, Unfit> {
    writable(path)?;
    let schema = match std::fs::metadata(path) {
        Err(_) => Schema::None,
        Ok(file) if file.len() == 0 => Schema::None,
        Ok(_) => schema(path).await?,
    };
    Ok(Inspection {
        schema,
        holder: held(path),
    })
}

/// Whether this user may write the folder, and the files that are there.
fn writable(path: &Path) -> Result<(), Unfit> {
    let folder = room::folder_of(path);
    if !folder.is_dir() {
        return Err(Unfit::NoFolder(folder.display().to_string()));
    }
    let may = |path: &Path, what: Access| match access(path, what) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(cause) => Err(Unfit::Unwritable {
            path: path.display().to_string(),
            cause: io::Error::from(cause).to_string(),
        }),
    };
    may(folder, Access::WRITE_OK | Access::EXEC_OK)?;
    for file in [
        path.to_owned(),
        room::log_of(path),
        index_of(path),
        lock::lock_of(path),
    ] {
        may(&file, Access::READ_OK | Access::WRITE_OK)?;
    }
    Ok(())
}

/// The index of the write-ahead log.
fn index_of(path: &Path) -> PathBuf {
    let mut index = path.to_owned().into_os_string();
    index.push("-shm");
    index.into()
}

/// Who has the lock.
fn held(path: &Path) -> Option<String> {
    let lock = lock::lock_of(path);
    // Shared, and given back at once: who starts at this moment tries again.
    match File::open(&lock).ok()?.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(lock::holder(&lock)),
        _ => None,
    }
}

async fn schema(path: &Path) -> Result<Schema, Unfit> {
    let log = std::fs::metadata(room::log_of(path)).is_ok_and(|log| log.len() > 0);
    let index = index_of(path).exists();
    if log && !index {
        let why = "its write-ahead log has no index, which a look would make";
        return Ok(Schema::Unseen(why.into()));
    }
    let seen = async {
        let mut connection = looking(path, index).await?;
        let seen = Seen::read(&mut connection).await;
        drop(connection.close().await);
        seen
    };
    match seen.await {
        Ok(seen) => seen.judge(path),
        Err(fault) => match error::map(path, &fault) {
            StoreError::Damaged { path, cause } if cause.contains("not a database") => Err(Unfit::Foreign {
                path,
                found: "no SQLite database".into(),
            }),
            StoreError::Damaged { path, cause } => Err(Unfit::Damaged { path, cause }),
            other => Ok(Schema::Unseen(other.to_string())),
        },
    }
}

/// A connection that changes nothing.
async fn looking(path: &Path, index: bool) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .read_only(true)
        .busy_timeout(open::BUSY)
        .disable_statement_logging();
    if !index {
        return options.filename(path).immutable(true).connect().await;
    }
    // Of SQLite's own parameters, this one can be given by a URI only.
    let real = path.canonicalize().map_err(sqlx::Error::Io)?;
    let name = real.to_string_lossy();
    let name = name.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    options
        .filename(format!("file:{name}?readonly_shm=1"))
        .connect()
        .await
}

/// What stands in a database.
struct Seen {
    tables: Vec<String>,
    /// The steps of its schema, with the digests of their texts.
    steps: Vec<(i64, Vec<u8>)>,
}

impl Seen {
    async fn read(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let tables: Vec<String> =
            sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
                .fetch_all(&mut *connection)
                .await?;
        let mut steps = Vec::new();
        if is_ours(&tables) {
            let rows = sqlx::query("SELECT version, checksum FROM _sqlx_migrations ORDER BY version")
                .fetch_all(connection)
                .await?;
            for row in &rows {
                steps.push((row.try_get(0)?, row.try_get(1)?));
            }
        }
        Ok(Self { tables, steps })
    }

    fn judge(&self, path: &Path) -> Result<Schema, Unfit> {
        let path = path.display().to_string();
        if self.tables.is_empty() {
            return Ok(Schema::None);
        }
        if !is_ours(&self.tables) {
            let found = format!("a database with the table {}", self.tables.join(", "));
            return Err(Unfit::Foreign { path, found });
        }
        let steps: HashMap<i64, &[u8]> = open::MIGRATIONS
            .iter()
            .map(|step| (step.version, &*step.checksum))
            .collect();
        let known = steps.keys().copied().max().unwrap_or(0);
        let found = self.steps.iter().map(|(version, _)| *version).max().unwrap_or(0);
        if found > known {
            return Err(Unfit::Newer { path, found, known });
        }
        let other = self
            .steps
            .iter()
            .find(|(version, digest)| steps.get(version) != Some(&digest.as_slice()));
        match other {
            Some((version, _)) => Err(Unfit::Foreign {
                path,
                found: format!("step {version} of its schema is not this program's"),
            }),
            None => Ok(Schema::Version { found, known }),
        }
    }
}

fn is_ours(tables: &[String]) -> bool {
    let has = |name: &str| tables.iter().any(|table| table == name);
    has("_sqlx_migrations") && OURS.iter().all(|name| has(name))
}
