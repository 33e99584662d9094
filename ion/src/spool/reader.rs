//! The relay's side of the spool: what is there and not done yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    done_file,
    record::{CHECKSUM, FIXED, Head, Lengths},
    segment_file, segments,
};

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// The number of its segment.
    pub(crate) segment: u64,
    /// Where it begins there.
    pub(crate) offset: u64,
    /// Its length.
    pub(crate) octets: u64,
}

/// Knows which records are done.
#[derive(Debug)]
pub(crate) struct Reader {
    folder: PathBuf,
    segments: BTreeMap<u64, Segment>,
}

#[derive(Debug, Default)]
struct Segment {
    /// Offsets that are known.
    known: BTreeSet<u64>,
    /// Those of them that are not done.
    open: BTreeSet<u64>,
    /// Something in it cannot be read: kept for the operator under another name when all else is done.
    damaged: bool,
    /// Opened when needed.
    done: Option<File>,
}

impl Reader {
    /// A reader of what [`Reader::scan`] finds.
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            segments: BTreeMap::new(),
        }
    }

    /// The records that are not done and were not known, in order. To be called when no other helper writes any more.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn scan(&mut self) -> io::Result<Vec<Place>> {
        let mut fresh = Vec::new();
        for number in segments(&self.folder)? {
            let done = read_done(&done_file(&self.folder, number))?;
            let (places, whole) = walk(&segment_file(&self.folder, number), number)?;
            let segment = self.segments.entry(number).or_default();
            segment.damaged |= !whole;
            for place in places {
                if segment.known.insert(place.offset) && !done.contains(&place.offset) {
                    segment.open.insert(place.offset);
                    fresh.push(place);
                }
            }
        }
        self.tidy()?;
        Ok(fresh)
    }

    /// A record that the helper told of; whether it was not known.
    pub(crate) fn note(&mut self, place: Place) -> bool {
        let segment = self.segments.entry(place.segment).or_default();
        let fresh = segment.known.insert(place.offset);
        if fresh {
            segment.open.insert(place.offset);
        }
        fresh
    }

    /// Opens a segment for [`Reader::read`].
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn open(folder: &Path, segment: u64) -> io::Result<File> {
        File::open(segment_file(folder, segment))
    }

    /// Reads a record of a segment.
    ///
    /// # Errors
    /// The disk fails, or what stands there is not what was written (`InvalidData`).
    pub(crate) fn read(file: &File, place: Place) -> io::Result<(Head, Bytes)> {
        let length = usize::try_from(place.octets).map_err(|_| damaged("is longer than the memory"))?;
        let mut octets = vec![0; length];
        file.read_exact_at(&mut octets, place.offset)?;
        let lengths = octets.first_chunk::<FIXED>().and_then(Lengths::read);
        let lengths = lengths.filter(|lengths| lengths.total() == place.octets);
        let lengths = lengths.ok_or_else(|| damaged("does not begin as a record"))?;
        let body = length - CHECKSUM;
        if octets[body..] != crc32fast::hash(&octets[..body]).to_be_bytes() {
            return Err(damaged("has another checksum"));
        }
        let head = serde_json::from_slice(&octets[FIXED..FIXED + lengths.head])?;
        let payload = Bytes::from(octets).slice(FIXED + lengths.head..body);
        Ok((head, payload))
    }

    /// Notes that records are done, and removes segments that held nothing else.
    ///
    /// # Errors
    /// The disk fails: the records may come again.
    pub(crate) fn done(&mut self, places: &[Place]) -> io::Result<()> {
        let mut notes = BTreeMap::<u64, Vec<u8>>::new();
        for place in places {
            let open = self.segments.get_mut(&place.segment);
            if open.is_some_and(|segment| segment.open.remove(&place.offset)) {
                notes
                    .entry(place.segment)
                    .or_default()
                    .extend_from_slice(&place.offset.to_be_bytes());
            }
        }
        let mut emptied = false;
        for (number, note) in notes {
            let Some(segment) = self.segments.get_mut(&number) else {
                continue;
            };
            let file = match &mut segment.done {
                Some(file) => file,
                none => none.insert(
                    OpenOptions::new()
                        .append(true)
                        .create(true)
                        .mode(0o600)
                        .open(done_file(&self.folder, number))?,
                ),
            };
            file.write_all(&note)?;
            emptied |= segment.open.is_empty();
        }
        if emptied { self.tidy() } else { Ok(()) }
    }

    /// A record cannot be read: its segment is kept for the operator.
    pub(crate) fn damaged(&mut self, place: Place) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.damaged = true;
        }
    }

    /// Removes segments of which everything is done, the newest apart: the helper may be writing there.
    fn tidy(&mut self) -> io::Result<()> {
        let newest = self.segments.keys().next_back().copied();
        let finished: Vec<u64> = self
            .segments
            .iter()
            .filter(|(number, segment)| Some(**number) != newest && segment.open.is_empty())
            .map(|(number, _)| *number)
            .collect();
        for number in finished {
            let damaged = self
                .segments
                .remove(&number)
                .is_some_and(|segment| segment.damaged);
            let path = segment_file(&self.folder, number);
            if damaged {
                let kept = path.with_extension("damaged");
                tracing::warn!(
                    "{} held octets that are not a bundle; kept as {}",
                    path.display(),
                    kept.display()
                );
                fs::rename(&path, kept)?;
            } else {
                // The records first: a note alone does no harm.
                fs::remove_file(&path)?;
            }
            match fs::remove_file(done_file(&self.folder, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn damaged(how: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("what stands in the spool {how}"),
    )
}

fn read_done(path: &Path) -> io::Result<BTreeSet<u64>> {
    match fs::read(path) {
        // A note that was cut off is none.
        Ok(octets) => Ok(octets
            .as_chunks::<8>()
            .0
            .iter()
            .map(|octets| u64::from_be_bytes(*octets))
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// The records of a segment, and whether they are all that it holds.
fn walk(path: &Path, segment: u64) -> io::Result<(Vec<Place>, bool)> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut file = BufReader::new(file);
    let mut places = Vec::new();
    let mut offset = 0;
    while offset + (FIXED as u64) <= size {
        let mut fixed = [0; FIXED];
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut fixed)?;
        let Some(lengths) = Lengths::read(&fixed) else {
            break;
        };
        let octets = lengths.total();
        // The end is cut off: a helper died while it wrote, and the node still has the bundle.
        if octets > size - offset {
            break;
        }
        places.push(Place {
            segment,
            offset,
            octets,
        });
        offset += octets;
    }
    Ok((places, offset == size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Writer;

    fn head(sequence: u64) -> Head {
        Head {
            source: "ipn:2.25".into(),
            time: 5,
            sequence,
            lifetime: 60_000,
            administrative: false,
        }
    }

    fn read(folder: &tempfile::TempDir, place: Place) -> io::Result<(Head, Bytes)> {
        Reader::read(&Reader::open(folder.path(), place.segment)?, place)
    }

    fn write(writer: &mut Writer, sequence: u64, payload: &[u8]) -> Place {
        writer.make_room().unwrap();
        let place = writer.append(&head(sequence), payload.len() as u64, &mut |out| {
            payload.chunks(7).try_for_each(&mut *out)
        });
        writer.sync().unwrap();
        place.unwrap()
    }

    #[test]
    fn what_is_not_done_comes_again_and_what_is_done_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(folder.path()).unwrap();
        let first = write(&mut writer, 1, b"one");
        let second = write(&mut writer, 2, b"");
        let mut reader = Reader::new(folder.path());
        assert!(reader.note(first) && !reader.note(first));
        assert_eq!(reader.scan().unwrap(), [second]);
        assert_eq!(
            read(&folder, first).unwrap(),
            (head(1), Bytes::from_static(b"one"))
        );
        assert_eq!(read(&folder, second).unwrap(), (head(2), Bytes::new()));
        reader.done(&[first]).unwrap();
        reader.done(&[first]).unwrap();

        let mut again = Reader::new(folder.path());
        assert_eq!(again.scan().unwrap(), [second]);
        again.done(&[second]).unwrap();
        assert!(Reader::new(folder.path()).scan().unwrap().is_empty());
        assert!(
            segment_file(folder.path(), 1).exists(),
            "a helper may be writing there"
        );

        let mut writer = Writer::new(folder.path()).unwrap();
        let third = write(&mut writer, 3, b"three");
        assert_eq!(third.segment, 2);
        assert_eq!(Reader::new(folder.path()).scan().unwrap(), [third]);
        assert!(!segment_file(folder.path(), 1).exists() && !done_file(folder.path(), 1).exists());
    }

    #[test]
    fn an_end_that_is_cut_off_is_no_record_and_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(folder.path()).unwrap();
        let first = write(&mut writer, 1, b"one");
        let second = write(&mut writer, 2, b"two");
        let path = segment_file(folder.path(), 1);
        for length in first.octets + 1..first.octets + second.octets {
            OpenOptions::new()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(length)
                .unwrap();
            let mut reader = Reader::new(folder.path());
            assert_eq!(reader.scan().unwrap(), [first], "{length}");
        }
        let mut writer = Writer::new(folder.path()).unwrap();
        write(&mut writer, 3, b"three");
        let mut reader = Reader::new(folder.path());
        reader.scan().unwrap();
        reader.done(&[first]).unwrap();
        assert!(!path.exists() && path.with_extension("damaged").exists());
    }

    #[test]
    fn other_octets_are_told_from_a_record() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(folder.path()).unwrap();
        let place = write(&mut writer, 1, b"one");
        let path = segment_file(folder.path(), 1);
        let sound = fs::read(&path).unwrap();
        for at in 0..sound.len() {
            let mut bad = sound.clone();
            bad[at] ^= 0x20;
            fs::write(&path, &bad).unwrap();
            let error = read(&folder, place).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "octet {at}");
        }
    }

    #[test]
    fn a_batch_is_undone_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(folder.path()).unwrap();
        let first = write(&mut writer, 1, b"one");
        writer.make_room().unwrap();
        let position = writer.position();
        writer.append(&head(2), 3, &mut |out| out(b"two")).unwrap();
        let cut = writer.append(&head(3), 5, &mut |_| Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::StorageFull);
        writer.back_to(position).unwrap();
        assert_eq!(Reader::new(folder.path()).scan().unwrap(), [first]);
        let fourth = write(&mut writer, 4, b"four");
        assert_eq!(Reader::new(folder.path()).scan().unwrap(), [first, fourth]);
    }
}
