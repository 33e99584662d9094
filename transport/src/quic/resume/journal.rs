//! The file: a line that names it, then entries with their lengths and checksums, appended, and now and then written anew.
//!
//! A crash at any moment leaves it readable: a torn last entry is cut off, and writing anew happens beside and is moved into
//! place. Whatever is wrong with it costs a cold start and a line in the log, never more.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ring::digest::{SHA256, digest};

use super::book::{Book, Entry};

/// What every version begins with.
const FAMILY: &[u8] = b"lightpost sessions ";
const MAGIC: &[u8] = b"lightpost sessions 1\n";
/// A larger file is not ours.
const LARGEST: u64 = 32 << 20;
/// Octets that may be appended before the file is written anew.
const GROWTH: u64 = 1 << 20;
const CHECKSUM: usize = 8;

/// The file and what stands in it.
pub(super) struct Journal {
    path: PathBuf,
    kept: Mutex<Kept>,
    queue: Mutex<Vec<Entry>>,
}

struct Kept {
    book: Book,
    /// Where to append; without it everything is written anew.
    file: Option<File>,
    /// Octets that may still be appended.
    room: u64,
    /// Whether the last attempt to write failed, which was said then.
    failing: bool,
}

/// What was found when the file was opened.
enum Found {
    Nothing,
    Ours(Book),
    /// Readable up to here.
    Damaged(Book),
    OtherVersion,
    Foreign,
}

impl Journal {
    /// Reads `path`. `None`, with a line in the log: nothing can be kept there.
    pub(super) fn open(path: &Path, now: u64) -> Option<Self> {
        let mut book = match read(path) {
            Ok(Found::Nothing) => Book::default(),
            Ok(Found::Ours(book)) => book,
            Ok(Found::Damaged(book)) => {
                tracing::warn!(path = %path.display(), "sessions are damaged; what is readable is used");
                book
            }
            Ok(Found::OtherVersion) => {
                tracing::warn!(path = %path.display(), "sessions of another version; connections start cold");
                Book::default()
            }
            Ok(Found::Foreign) => {
                tracing::warn!(path = %path.display(), "not a file of sessions; it is left alone, and no session outlives this process");
                return None;
            }
            Err(cause) => {
                tracing::warn!(path = %path.display(), %cause, "cannot be read; no session outlives this process");
                return None;
            }
        };
        book.prune(now);
        Some(Self {
            path: path.to_owned(),
            kept: Mutex::new(Kept {
                book,
                file: None,
                room: 0,
                failing: false,
            }),
            queue: Mutex::default(),
        })
    }

    /// Looks into the book.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Book) -> T) -> T {
        look(&mut self.kept().book)
    }

    /// Takes an entry, to be written by the next [`Self::flush`].
    pub(super) fn note(&self, entry: Entry) {
        self.queue().push(entry);
    }

    /// Writes what was noted and waits until it is on disk. Blocks.
    pub(super) fn flush(&self, now: u64) {
        let mut kept = self.kept();
        let kept = &mut *kept;
        let entries = std::mem::take(&mut *self.queue());
        if entries.is_empty() && !kept.failing {
            return;
        }
        let mut octets = Vec::new();
        for entry in entries {
            frame(&entry, &mut octets);
            kept.book.apply(entry);
        }
        let left = kept.room.checked_sub(octets.len() as u64);
        let written = match (&mut kept.file, left) {
            (Some(file), Some(left)) => {
                kept.room = left;
                file.write_all(&octets).and_then(|()| file.sync_data())
            }
            _ => {
                kept.book.prune(now);
                self.rewrite(&kept.book).map(|(file, room)| {
                    kept.file = Some(file);
                    kept.room = room;
                })
            }
        };
        let Err(cause) = written else {
            kept.failing = false;
            return;
        };
        // What is there is stale now: a spent ticket would be used again.
        kept.file = None;
        let _ = std::fs::remove_file(&self.path);
        if !std::mem::replace(&mut kept.failing, true) {
            tracing::warn!(path = %self.path.display(), %cause, "sessions cannot be written; the next start is cold");
        }
    }

    /// Writes `book` beside and moves it into place; what to append to, and how much.
    fn rewrite(&self, book: &Book) -> io::Result<(File, u64)> {
        let mut octets = MAGIC.to_vec();
        book.entries().for_each(|entry| frame(&entry, &mut octets));
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let _ = std::fs::remove_file(&beside);
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(&octets)?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok((file, GROWTH.max(octets.len() as u64)))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> io::Result<Found> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Ok(Found::Foreign);
    }
    let mut octets = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut octets)?;
    crate::tls::warn_if_open(path);
    if MAGIC.starts_with(&octets) {
        return Ok(Found::Nothing);
    }
    let Some(mut rest) = octets.strip_prefix(MAGIC) else {
        return Ok(match octets.starts_with(FAMILY) {
            true => Found::OtherVersion,
            false => Found::Foreign,
        });
    };
    let mut book = Book::default();
    while !rest.is_empty() {
        match next(&mut rest) {
            Next::Entry(entry) => book.apply(*entry),
            Next::Torn => break,
            Next::Damaged => return Ok(Found::Damaged(book)),
        }
    }
    Ok(Found::Ours(book))
}

/// What stands next in the file.
enum Next {
    Entry(Box<Entry>),
    /// The file ends within it, as it does when a crash cut a write short.
    Torn,
    Damaged,
}

fn next(rest: &mut &[u8]) -> Next {
    let Some((length, after)) = rest.split_first_chunk::<4>() else {
        return Next::Torn;
    };
    let Ok(length) = usize::try_from(u32::from_be_bytes(*length)) else {
        return Next::Damaged;
    };
    let Some((sum, after)) = after.split_first_chunk::<CHECKSUM>() else {
        return Next::Torn;
    };
    let Some((payload, after)) = after.split_at_checked(length) else {
        return Next::Torn;
    };
    *rest = after;
    match checksum(payload) == *sum {
        true => Entry::decode(payload).map_or(Next::Damaged, |entry| Next::Entry(Box::new(entry))),
        // Space may have been reserved before the octets came.
        false if after.is_empty() => Next::Torn,
        false => Next::Damaged,
    }
}

fn frame(entry: &Entry, out: &mut Vec<u8>) {
    let payload = entry.encode();
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&checksum(&payload));
    out.extend_from_slice(&payload);
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&digest(&SHA256, payload).as_ref()[..CHECKSUM]);
    sum
}
