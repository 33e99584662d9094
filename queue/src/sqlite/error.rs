//! What SQLite says, in the words of [`StoreError`].

use std::{io, path::Path};

use sqlx::migrate::{MigrateError, Migrator};

use crate::StoreError;

/// Primary result codes (<https://www.sqlite.org/rescode.html>).
const PERM: u32 = 3;
const READONLY: u32 = 8;
const IOERR: u32 = 10;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;
const CONSTRAINT: u32 = 19;
const AUTH: u32 = 23;
const NOTADB: u32 = 26;
/// The extended code of a disk on which the write-ahead log's index found no room.
const IOERR_SHMSIZE: u32 = IOERR | (19 << 8);

fn code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// Whether the fault lies in what one command asked, so that the others of its batch can go on without it.
pub(super) fn is_logical(error: &sqlx::Error) -> bool {
    match code(error) {
        Some(code) => code & 0xff == CONSTRAINT,
        None => matches!(error, sqlx::Error::Encode(_)),
    }
}

/// Whether there was no room.
pub(super) fn is_full(error: &StoreError) -> bool {
    matches!(error, StoreError::Full { .. })
}

/// How short of room the disk is, is asked where it matters: [`super::room::measure`].
const fn full(path: String) -> StoreError {
    StoreError::Full { path, shortage: None }
}

/// The same for what the system says of a file.
pub(super) fn map_file(path: &Path, error: &io::Error) -> StoreError {
    let path = path.display().to_string();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full(path),
        _ => StoreError::ReadOnly {
            path,
            cause: error.to_string(),
        },
    }
}

/// Names the file and, where known, the kind of fault.
pub(super) fn map(path: &Path, error: &sqlx::Error) -> StoreError {
    let path = path.display().to_string();
    let cause = match error.as_database_error() {
        Some(database) => database.message().to_owned(),
        None => error.to_string(),
    };
    match code(error).map(|code| (code, code & 0xff)) {
        Some((_, FULL) | (IOERR_SHMSIZE, _)) => full(path),
        Some((_, READONLY | CANTOPEN | PERM | AUTH)) => StoreError::ReadOnly { path, cause },
        Some((_, CORRUPT | NOTADB)) => StoreError::Damaged { path, cause },
        Some((code, IOERR)) => StoreError::Other {
            path,
            cause: format!("{cause} (SQLite code {code}); check the disk, its quota and the kernel's log"),
        },
        _ if matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => {
            StoreError::Damaged { path, cause }
        }
        _ => StoreError::Other { path, cause },
    }
}

/// The same for migrations.
pub(super) fn map_migration(path: &Path, error: MigrateError, known: &Migrator) -> StoreError {
    let newest = known.iter().map(|migration| migration.version).max().unwrap_or(0);
    match error {
        MigrateError::VersionMissing(found) => StoreError::Newer {
            path: path.display().to_string(),
            found,
            known: newest,
        },
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => map(path, &error),
        other => StoreError::Other {
            path: path.display().to_string(),
            cause: other.to_string(),
        },
    }
}

/// A row that this program cannot have written.
pub(super) fn undecodable(what: &str, cause: impl std::fmt::Display) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what}: {cause}").into())
}
