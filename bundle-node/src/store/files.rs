//! Large bundles, a file each.

use std::{
    collections::HashSet,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use bytes::Bytes;
use ulid::Ulid;

use super::StoreError;

/// What the files' names end in.
const SUFFIX: &str = ".bundle";

pub(super) fn fault(path: &Path, error: &io::Error) -> StoreError {
    let path = path.display().to_string();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path },
        _ => StoreError::Fault {
            path,
            cause: error.to_string(),
        },
    }
}

/// Writes `data` to a new file and syncs it; its name.
pub(super) async fn write(directory: &Path, data: Bytes) -> Result<String, StoreError> {
    let name = format!("{}{SUFFIX}", Ulid::generate());
    let (directory, file) = (directory.to_owned(), directory.join(&name));
    let path = file.clone();
    let written = blocking(move || {
        let write = || {
            let mut out = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&file)?;
            out.write_all(&data)?;
            out.sync_all()?;
            std::fs::File::open(&directory)?.sync_all()
        };
        write().inspect_err(|_| drop(std::fs::remove_file(&file)))
    })
    .await;
    match written {
        Ok(()) => Ok(name),
        Err(error) => Err(fault(&path, &error)),
    }
}

/// A file's octets.
pub(super) async fn read(directory: &Path, name: &str) -> Result<Bytes, StoreError> {
    let path = directory.join(name);
    let of = path.clone();
    blocking(move || std::fs::read(&of))
        .await
        .map(Bytes::from)
        .map_err(|error| fault(&path, &error))
}

/// Removes files whose bundles are gone; one that stays is removed at the next start.
pub(super) async fn remove(directory: &Path, names: Vec<String>) {
    if names.is_empty() {
        return;
    }
    let directory = directory.to_owned();
    let removed = blocking(move || {
        for name in names {
            drop(std::fs::remove_file(directory.join(name)));
        }
        Ok(())
    });
    drop(removed.await);
}

/// Removes the files that no row knows.
pub(super) async fn sweep(directory: &Path, known: HashSet<String>) -> io::Result<()> {
    let directory = directory.to_owned();
    blocking(move || {
        for entry in std::fs::read_dir(&directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(SUFFIX) && !known.contains(&name) {
                std::fs::remove_file(directory.join(name))?;
            }
        }
        Ok(())
    })
    .await
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
