//! One program per database: an advisory lock beside it.
//!
//! SQLite lets several processes write, and two programs would both take up what is queued and send it. The lock is flock(2)'s on a file
//! that stays open as long as the program runs. The kernel takes it back when the process ends, however it ends, so there is no stale
//! lock and nothing to clear away. The file stays where it is: who removed it could remove the one that somebody else has just locked.
//! It is not the database itself, because closing a descriptor of that would end SQLite's own locks on it (fcntl(2)).

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use lightpost_clock::Clock;

use super::error;
use crate::StoreError;

/// How long a program that is ending may keep its successor waiting: a supervisor does not always wait for the end of the one that it
/// killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// The right to work on a database, for as long as this lives.
#[derive(Debug)]
#[must_use = "the database is locked while this lives"]
pub struct DatabaseLock {
    _file: File,
}

impl DatabaseLock {
    /// Takes the lock of the database `path`, which need not exist; waits some seconds for a program that is just ending.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another program keeps it, and what keeps files from being written there.
    pub async fn take(path: &Path, clock: &Clock) -> Result<Self, StoreError> {
        let beside = lock_of(path);
        let mut file = {
            let _hold = clock.hold();
            let (database, beside) = (path.to_owned(), beside.clone());
            tokio::task::spawn_blocking(move || open(&database, &beside))
                .await
                .unwrap_or_else(|fault| Err(error::map_file(path, &io::Error::other(fault))))?
        };
        let began = clock.instant();
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(cause)) => {
                    return Err(StoreError::Other {
                        path: beside.display().to_string(),
                        cause: format!("cannot be locked: {cause}; put the database on a disk of this host"),
                    });
                }
                Err(TryLockError::WouldBlock) => {}
            }
            if clock.instant().duration_since(began) >= PATIENCE {
                return Err(StoreError::InUse {
                    path: path.display().to_string(),
                    holder: holder(&beside),
                });
            }
            if !std::mem::replace(&mut told, true) {
                tracing::info!(
                    database = %path.display(),
                    holder = holder(&beside),
                    "another program has the database; waiting for its end"
                );
            }
            clock.sleep(PAUSE).await;
        }
        sign(&mut file);
        Ok(Self { _file: file })
    }
}

/// The lock's file: that of the real database where `path` is a link, so that one database has one lock.
pub(super) fn lock_of(path: &Path) -> PathBuf {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut lock = real.into_os_string();
    lock.push(".lock");
    lock.into()
}

fn open(database: &Path, beside: &Path) -> Result<File, StoreError> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(beside);
    opened.map_err(|error| {
        // A lock that is there and belongs to somebody else is its own trouble; else the folder is, as it is for the database.
        let own = error.kind() == io::ErrorKind::PermissionDenied && beside.exists();
        error::map_file(if own { beside } else { database }, &error)
    })
}

/// Writes down who holds it, for people. No matter when that fails, on a full disk for one: the lock counts.
fn sign(file: &mut File) {
    let text = format!("{}\n", std::process::id());
    // Shortened behind what was written, not before: then a full disk has room for it, too.
    drop(
        file.write_all(text.as_bytes())
            .and_then(|()| file.set_len(text.len() as u64)),
    );
}

/// Who holds it, as far as its file tells.
pub(super) fn holder(lock: &Path) -> String {
    let mut text = String::new();
    let read = File::open(lock).and_then(|file| file.take(32).read_to_string(&mut text));
    match read.ok().and_then(|_| text.trim().parse::<u32>().ok()) {
        Some(id) => format!("process {id}"),
        None => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn clock() -> Clock {
        Clock::runtime(jiff::Timestamp::UNIX_EPOCH)
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_waits_a_little_and_names_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let (path, clock) = (folder.path().join("queue.db"), clock());
        let first = DatabaseLock::take(&path, &clock).await.unwrap();
        let began = clock.instant();
        let refused = DatabaseLock::take(&path, &clock).await.unwrap_err();
        assert!(clock.instant().duration_since(began) >= PATIENCE);
        let said = refused.to_string();
        assert!(said.starts_with(&path.display().to_string()), "{said}");
        assert!(
            said.contains(&format!("process {}", std::process::id())),
            "{said}"
        );
        assert!(!path.exists(), "only the lock is made");

        // One that ends meanwhile is waited for.
        let second = async { DatabaseLock::take(&path, &clock).await };
        let end = async {
            clock.sleep(PATIENCE / 2).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(second, end);
        drop(second.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_leads_to_the_same_lock_and_what_is_left_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("queue.db"), folder.path().join("link.db"));
        std::fs::write(&path, "").unwrap();
        symlink(&path, &link).unwrap();
        std::fs::write(folder.path().join("queue.db.lock"), "4294967295\n").unwrap();
        let lock = DatabaseLock::take(&path, &clock()).await.unwrap();
        let file = lock_of(&link);
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            format!("{}\n", std::process::id())
        );
        let refused = DatabaseLock::take(&link, &clock()).await;
        assert!(matches!(refused, Err(StoreError::InUse { .. })), "{refused:?}");
        drop(lock);
        drop(DatabaseLock::take(&link, &clock()).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_is_not_there_is_told_as_for_the_database() {
        let path = Path::new("/nonexistent/queue.db");
        let refused = DatabaseLock::take(path, &clock()).await.unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("/nonexistent/queue.db cannot be written ("),
            "{refused}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_lock_is_for_the_services_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        let _lock = DatabaseLock::take(&path, &clock()).await.unwrap();
        let mode = std::fs::metadata(lock_of(&path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
