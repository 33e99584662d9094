//! Received bundles on disk, from the moment the node gives them away until the relay is done with them.
//!
//! The spool is a folder of numbered segments, each a run of records ([`record`]). The helper appends to the newest ([`Writer`]) and syncs
//! it before the node's own transaction ends; the relay reads ([`Reader`]) and removes a segment when all of its records are done.
//! What is done is noted beside the segment, unsynced: after a power cut a bundle can come again, after a kill it does not.
//! A lock file makes sure that one helper at a time writes.

mod reader;
pub(crate) mod record;
mod writer;

use std::path::{Path, PathBuf};

pub(crate) use self::{
    reader::{Place, Reader},
    writer::Writer,
};

/// The folder's lock.
pub(crate) fn lock_file(folder: &Path) -> PathBuf {
    folder.join("lock")
}

fn segment_file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.segment"))
}

fn done_file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.done"))
}

/// The numbers of the segments in the folder, in order.
fn segments(folder: &Path) -> std::io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = std::fs::read_dir(folder)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".segment")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}
