//! Room on the disk that new mail may not take.
//!
//! Handing mail on is what makes room again, and it needs some itself: leases and outcomes grow the write-ahead log, and emptying
//! the log may grow the database by as much as the log holds. So new mail is refused while there is still room for that.

use std::path::{Path, PathBuf};

/// What leases, outcomes and notifications may need at once, beside the log.
const RESERVE: u64 = 8 * 1024 * 1024;

/// What a disk has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Octets that this process may still write.
    pub(super) free: u64,
    /// Octets of the write-ahead log.
    pub(super) log: u64,
}

impl Room {
    /// Whether `octets` of new mail leave enough. They are written twice before the log is emptied: into it, then into the database.
    pub(super) const fn fits(self, octets: u64) -> bool {
        let needed = RESERVE
            .saturating_add(self.log)
            .saturating_add(octets.saturating_mul(2));
        self.free >= needed
    }
}

/// Looks at the disk of the database `path`; `None` when the system does not say.
pub(super) async fn look(path: &Path) -> Option<Room> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let disk = rustix::fs::statvfs(folder.unwrap_or(Path::new("."))).ok()?;
        let log = std::fs::metadata(log_of(&path)).map_or(0, |file| file.len());
        Some(Room {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            log,
        })
    })
    .await
    .ok()?
}

/// The write-ahead log of the database `path`.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.to_owned().into_os_string();
    log.push("-wal");
    log.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_grows_with_the_log() {
        for (free, log, octets, fits) in [
            (RESERVE, 0, 0, true),
            (RESERVE - 1, 0, 0, false),
            (RESERVE + 100, 100, 0, true),
            (RESERVE + 100, 101, 0, false),
            (RESERVE + 100, 0, 50, true),
            (RESERVE + 100, 0, 51, false),
            (u64::MAX, 0, u64::MAX, true),
        ] {
            assert_eq!(Room { free, log }.fits(octets), fits, "{free} {log} {octets}");
        }
    }

    #[tokio::test]
    async fn a_disk_says_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let room = look(&folder.path().join("queue.db")).await.unwrap();
        assert!(room.free > 0);
        assert_eq!(room.log, 0);
    }
}
