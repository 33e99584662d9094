//! Room on the disk that new mail may not take.
//!
//! Handing mail on is what makes room again, and it needs some itself: leases and outcomes grow the write-ahead log, and emptying
//! the log may grow the database by as much as the log holds. So new mail is refused while there is still room for that.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use lightpost_clock::Instant;

use crate::{Shortage, StoreError};

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
    /// Octets that have to be free for `octets` of new mail. They are written twice before the log is emptied: into it, then into the
    /// database.
    const fn wanted(self, octets: u64) -> u64 {
        RESERVE
            .saturating_add(self.log)
            .saturating_add(octets.saturating_mul(2))
    }

    /// Whether `octets` of new mail leave enough.
    pub(super) const fn fits(self, octets: u64) -> bool {
        self.free >= self.wanted(octets)
    }

    /// Octets of new mail that may come before the next look: an eighth of what there is room for, as others write too.
    const fn allowance(self) -> u64 {
        self.free.saturating_sub(RESERVE).saturating_sub(self.log) / 16
    }
}

/// How long a look at a disk with plenty of room is believed.
const BELIEVED: Duration = Duration::from_millis(100);

/// What the last look leaves to be written without another one.
#[derive(Debug, Default)]
pub(super) struct Allowance(Option<(Instant, u64)>);

impl Allowance {
    /// Takes `octets` from it; whether they were there.
    pub(super) fn take(&mut self, octets: u64, now: Instant) -> bool {
        match &mut self.0 {
            Some((looked, left)) if now.duration_since(*looked) < BELIEVED && *left >= octets => {
                *left -= octets;
                true
            }
            _ => false,
        }
    }

    /// Renews it.
    pub(super) fn renew(&mut self, room: Room, now: Instant) {
        self.0 = Some((now, room.allowance()));
    }

    /// Makes the next question a look.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

/// Looks at the disk of the database `path`; `None` when the system does not say.
pub(super) async fn look(path: &Path) -> Option<Room> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || look_now(&path)).await.ok()?
}

fn look_now(path: &Path) -> Option<Room> {
    let disk = rustix::fs::statvfs(folder_of(path)).ok()?;
    let log = std::fs::metadata(log_of(path)).map_or(0, |file| file.len());
    Some(Room {
        free: disk.f_bavail.saturating_mul(disk.f_frsize),
        log,
    })
}

pub(super) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// The folder of the database `path`, or the one above it, on which its file system is mounted.
fn mounted(path: &Path) -> Option<PathBuf> {
    let mut folder = folder_of(path).canonicalize().ok()?;
    let device = |folder: &Path| std::fs::metadata(folder).ok().map(|found| found.dev());
    let own = device(&folder)?;
    while let Some(above) = folder.parent().filter(|above| device(above) == Some(own)) {
        folder = above.to_owned();
    }
    Some(folder)
}

/// Adds to [`StoreError::Full`] how much room there is beside what `octets` of new mail need; other errors stay as they are.
pub(super) async fn measure(error: StoreError, path: &Path, octets: u64) -> StoreError {
    let StoreError::Full { .. } = error else {
        return error;
    };
    let path = path.to_owned();
    let measured = tokio::task::spawn_blocking(move || {
        let room = look_now(&path);
        let shortage = room.zip(mounted(&path)).map(|(room, mounted)| Shortage {
            file_system: mounted.display().to_string(),
            free: room.free,
            wanted: room.wanted(octets),
        });
        StoreError::Full {
            path: path.display().to_string(),
            shortage,
        }
    });
    measured.await.unwrap_or(error)
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

    #[tokio::test(start_paused = true)]
    async fn an_allowance_ends_with_its_octets_and_its_time() {
        let clock = lightpost_clock::Clock::runtime(jiff::Timestamp::UNIX_EPOCH);
        let mut allowance = Allowance::default();
        assert!(!allowance.take(0, clock.instant()));
        let room = Room {
            free: RESERVE + 1600,
            log: 0,
        };
        allowance.renew(room, clock.instant());
        assert!(allowance.take(60, clock.instant()));
        assert!(!allowance.take(60, clock.instant()));
        assert!(allowance.take(40, clock.instant()));
        allowance.renew(room, clock.instant());
        clock.sleep(BELIEVED).await;
        assert!(!allowance.take(1, clock.instant()));
    }

    #[tokio::test]
    async fn a_full_disk_is_told_with_its_figures() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        let full = StoreError::Full {
            path: path.display().to_string(),
            shortage: None,
        };
        let StoreError::Full {
            shortage: Some(told), ..
        } = measure(full, &path, 1000).await
        else {
            panic!("no figures")
        };
        assert_eq!(told.wanted, RESERVE + 2000);
        assert!(told.free > 0);
        assert!(path.canonicalize().unwrap_or(path).starts_with(&told.file_system));
        let other = StoreError::Other {
            path: String::new(),
            cause: "x".into(),
        };
        let same = measure(other, Path::new("/"), 0).await;
        assert!(matches!(same, StoreError::Other { .. }));
        assert_eq!(mounted(Path::new("/proc/self/x")), Some("/proc".into()));
    }

    #[tokio::test]
    async fn a_disk_says_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let room = look(&folder.path().join("queue.db")).await.unwrap();
        assert!(room.free > 0);
        assert_eq!(room.log, 0);
    }
}
