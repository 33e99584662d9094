//! The helper's side of the spool: appends.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use super::{
    Place, record,
    record::{CHECKSUM, Head},
    segment_file, segments,
};

/// A new segment begins behind so many octets.
const SEGMENT: u64 = 8 << 20;
/// Room that is taken from the file system beforehand, so that a full disk shows before the node gives a bundle away.
const RESERVE: u64 = 1 << 20;
/// So much of what is appended goes to the file at a time.
const PIECE: usize = 1 << 18;

/// Hands a payload over, piece after piece.
pub(crate) type Pieces<'a> = &'a mut dyn FnMut(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>;

/// Appends records to the newest segment.
#[derive(Debug)]
pub(crate) struct Writer {
    folder: PathBuf,
    number: u64,
    file: Option<File>,
    /// The end of what is whole.
    end: u64,
    /// What was appended and is not in the file yet.
    pending: Vec<u8>,
    /// The end of what is in the file.
    written: u64,
    /// How far room is reserved.
    reserved: u64,
}

impl Writer {
    /// Begins behind the newest segment.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            number: segments(folder)?.last().copied().unwrap_or(0),
            file: None,
            end: 0,
            pending: Vec::new(),
            written: 0,
            reserved: 0,
        })
    }

    /// Makes sure that there is a segment with room in it: before the first of the records that one [`Writer::sync`] makes durable.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub(crate) fn make_room(&mut self) -> io::Result<()> {
        if self.file.is_none() || self.end >= SEGMENT {
            self.file = None;
            let number = self.number + 1;
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(segment_file(&self.folder, number))?;
            self.number = number;
            self.end = 0;
            self.pending.clear();
            self.written = 0;
            self.reserved = 0;
            File::open(&self.folder)?.sync_all()?;
            self.file = Some(file);
        }
        if let Some(file) = &self.file
            && self.reserved < self.end + RESERVE
        {
            match fallocate(file, FallocateFlags::KEEP_SIZE, self.end, 2 * RESERVE) {
                // A file system without it tells of a full disk later.
                Ok(()) | Err(Errno::OPNOTSUPP) => self.reserved = self.end + 2 * RESERVE,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Appends a record whose payload `pieces` hands over one after the other. It is there for good after [`Writer::sync`].
    ///
    /// # Errors
    /// The disk is full or fails, or `pieces` does; [`Writer::back_to`] undoes what was written.
    pub(crate) fn append(&mut self, head: &Head, payload: u64, pieces: Pieces<'_>) -> io::Result<Place> {
        if self.file.is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let begin = record::begin(head, payload);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&begin);
        let mut length = begin.len() as u64;
        self.push(&begin)?;
        pieces(&mut |piece| {
            checksum.update(piece);
            length += piece.len() as u64;
            self.push(piece)
        })?;
        if length != begin.len() as u64 + payload {
            return Err(io::Error::other("the payload has another length than was said"));
        }
        self.push(&checksum.finalize().to_be_bytes())?;
        let place = Place {
            segment: self.number,
            offset: self.end,
            octets: length + CHECKSUM as u64,
        };
        self.end += place.octets;
        Ok(place)
    }

    /// Appends octets, which reach the file in pieces that are worth a call.
    fn push(&mut self, octets: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(octets);
        if self.pending.len() < PIECE {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.write_all_at(&self.pending, self.written)?;
            self.written += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(())
    }

    /// Where the next record goes, for [`Writer::back_to`].
    pub(crate) fn position(&self) -> u64 {
        self.end
    }

    /// Forgets what was appended behind a position since [`Writer::make_room`].
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn back_to(&mut self, end: u64) -> io::Result<()> {
        self.pending.clear();
        if let Some(file) = &self.file {
            file.set_len(end)?;
            self.end = end;
            self.written = end;
            self.reserved = end;
        }
        Ok(())
    }

    /// Makes all that was appended durable.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        match &self.file {
            Some(file) => file.sync_data(),
            None => Ok(()),
        }
    }
}
