//! Payloads that go to the node as files.
//!
//! The node removes a file when its bundle is gone. What it cannot remove, because it was wiped or its bundle was never made, is removed
//! here a day after the bundle's lifetime, which the file's name tells.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use jiff::Timestamp;

/// How long a file outlives its bundle: clocks of the node and of this host need not agree.
const GRACE: Duration = Duration::from_secs(86_400);
const SUFFIX: &str = ".payload";

/// The folder.
#[derive(Debug)]
pub(crate) struct Outgoing {
    folder: PathBuf,
    count: AtomicU64,
}

impl Outgoing {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            count: AtomicU64::new(0),
        }
    }

    /// Writes a payload, synced: it has to be there when the node, restarted after a power cut, sends it.
    ///
    /// # Errors
    /// The disk is full or fails; nothing is left behind.
    pub(crate) fn write(&self, payload: &[u8], lifetime: Duration, now: Timestamp) -> io::Result<PathBuf> {
        let until = lightpost_clock::add(lightpost_clock::add(now, lifetime), GRACE);
        loop {
            let count = self.count.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{}-{count}{SUFFIX}", until.as_second(), std::process::id());
            let path = self.folder.join(name);
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o640)
                .open(&path)
            {
                Ok(mut file) => {
                    let written = file.write_all(payload).and_then(|()| file.sync_all());
                    let written = written.and_then(|()| File::open(&self.folder)?.sync_all());
                    if written.is_err() {
                        let _ = fs::remove_file(&path);
                    }
                    return written.map(|()| path);
                }
                // An earlier process of this id.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes a file whose bundle was not made; it may be gone already.
    pub(crate) fn remove(path: &Path) {
        if let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("{} cannot be removed: {error}", path.display());
        }
    }

    /// Removes what no bundle can need any more.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn sweep(&self, now: Timestamp) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let until = name
                .strip_suffix(SUFFIX)
                .and_then(|name| name.split('-').next()?.parse::<i64>().ok());
            if until.is_some_and(|until| until < now.as_second()) {
                Self::remove(&path);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_a_day_after_their_bundles_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let outgoing = Outgoing::new(folder.path());
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let later = |seconds| lightpost_clock::add(now, Duration::from_secs(seconds));
        let path = outgoing.write(b"payload", Duration::from_secs(100), now).unwrap();
        let longer = outgoing.write(b"payload", Duration::from_secs(200), now).unwrap();
        let foreign = folder.path().join("notes.txt");
        fs::write(&foreign, "").unwrap();
        outgoing.sweep(later(86_500)).unwrap();
        assert!(path.exists() && longer.exists());
        outgoing.sweep(later(86_501)).unwrap();
        assert!(!path.exists() && longer.exists() && foreign.exists());
        assert_eq!(fs::read(&longer).unwrap(), b"payload");
    }
}
