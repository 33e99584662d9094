//! Where frames begin and end on an HTTP/3 stream (RFC 9114 section 7.1: type and length as variable-length integers, payload).
//!
//! h3 0.0.8 keeps every frame but DATA in memory until it is whole, whatever length its head announces, and reads a whole chunk
//! for each DATA frame however short. So a stream is cut here into heads and payloads before h3 sees it: it then holds one
//! frame at a time, and a head that announces too much ends the stream before its payload is read.

use bytes::{Buf, Bytes};

/// Octets that a frame other than DATA may have: as many as all header fields of a request together.
pub(crate) const FRAME_LIMIT: u64 = 64 << 10;
/// DATA, which h3 hands on as it comes.
const DATA: u64 = 0;
/// A WebTransport stream, which has no length; we never offer it.
const WEBTRANSPORT: u64 = 0x41;
/// Octets of the longest head: two variable-length integers.
const LONGEST_HEAD: usize = 16;

/// A peer announced a frame that is not worth its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of type {kind:#x} with {length} octets is too large")]
pub(crate) struct Excess {
    kind: u64,
    length: u64,
}

/// A variable-length integer (RFC 9000 section 16) at the start of `octets`, and its length; `None` when it is not whole.
pub(crate) fn integer(octets: &[u8]) -> Option<(u64, usize)> {
    let length = 1usize << (octets.first()? >> 6);
    let octets = octets.get(..length)?;
    let first = u64::from(octets[0] & 0x3f);
    let value = octets[1..]
        .iter()
        .fold(first, |value, octet| value << 8 | u64::from(*octet));
    Some((value, length))
}

/// Follows the frames of a stream.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    head: [u8; LONGEST_HEAD],
    head_length: usize,
    payload: u64,
    excess: Option<Excess>,
}

impl Frames {
    /// Whether the stream may end here.
    pub(crate) fn between(&self) -> bool {
        self.head_length == 0 && self.payload == 0
    }

    /// Takes the next piece from the front of `data`: a whole head, or what there is of a payload. `None` when more has to be read.
    ///
    /// Heads of empty DATA frames are left out: h3 takes them for the end of the body.
    ///
    /// # Errors
    /// [`Excess`] from the first head on that announces too much.
    pub(crate) fn next(&mut self, data: &mut Bytes) -> Result<Option<Bytes>, Excess> {
        if let Some(excess) = self.excess {
            return Err(excess);
        }
        if self.payload > 0 && !data.is_empty() {
            let taken = self.payload.min(data.len() as u64);
            self.payload -= taken;
            return Ok(Some(data.split_to(taken as usize)));
        }
        while let Some(octet) = data.first() {
            self.head[self.head_length] = *octet;
            self.head_length += 1;
            data.advance(1);
            let Some((kind, length)) = self.whole_head() else {
                continue;
            };
            let endless = kind == WEBTRANSPORT;
            if endless || (kind != DATA && length > FRAME_LIMIT) {
                let excess = Excess { kind, length };
                self.excess = Some(excess);
                return Err(excess);
            }
            let head = Bytes::copy_from_slice(&self.head[..self.head_length]);
            (self.payload, self.head_length) = (length, 0);
            if kind != DATA || length > 0 {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    fn whole_head(&self) -> Option<(u64, u64)> {
        let head = &self.head[..self.head_length];
        let (kind, taken) = integer(head)?;
        let (length, _) = integer(&head[taken..])?;
        Some((kind, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HEADERS of 3 octets, DATA of 300 (two-octet length), an unknown frame with a four-octet type and no payload.
    fn stream() -> Vec<u8> {
        let mut stream = vec![1, 3, b'a', b'b', b'c', 0, 0x41, 0x2c];
        stream.extend([7; 300]);
        stream.extend([0x80, 0, 0x12, 0x34, 0]);
        stream
    }

    #[test]
    fn the_end_counts_only_between_frames() {
        let ends = [5, 308, 313];
        for chunk in [1, 2, 3, 7, 64, 313] {
            let (mut frames, mut at) = (Frames::default(), 0);
            for part in stream().chunks(chunk) {
                at += part.len();
                let mut part = Bytes::copy_from_slice(part);
                while frames.next(&mut part).unwrap().is_some() {}
                assert!(part.is_empty());
                assert_eq!(frames.between(), ends.contains(&at), "chunk {chunk}, at {at}");
            }
        }
    }

    #[test]
    fn heads_and_payloads_are_pieces_of_their_own() {
        for chunk in [1, 2, 3, 7, 64, 313] {
            let (mut frames, mut heads, mut payloads) = (Frames::default(), Vec::new(), 0);
            for part in stream().chunks(chunk) {
                let mut part = Bytes::copy_from_slice(part);
                let mut payload = frames.payload;
                while let Some(piece) = frames.next(&mut part).unwrap() {
                    match payload {
                        0 => heads.push(piece.to_vec()),
                        _ => payloads += piece.len(),
                    }
                    payload = frames.payload;
                }
            }
            let expected = [&[1, 3][..], &[0, 0x41, 0x2c], &[0x80, 0, 0x12, 0x34, 0]];
            assert_eq!(heads, expected, "chunk {chunk}");
            assert_eq!(payloads, 303);
        }
    }

    #[test]
    fn empty_data_frames_are_left_out() {
        let mut data = Bytes::from_static(&[0, 0, 0, 0x40, 0, 0, 1, 7, 0, 0]);
        let mut frames = Frames::default();
        assert_eq!(frames.next(&mut data), Ok(Some(Bytes::from_static(&[0, 1]))));
        assert_eq!(frames.next(&mut data), Ok(Some(Bytes::from_static(&[7]))));
        assert_eq!(frames.next(&mut data), Ok(None));
        assert!(data.is_empty() && frames.between());
    }

    #[test]
    fn only_data_may_be_large() {
        let length = |value: u64| (value | 0xc0 << 56).to_be_bytes();
        for (kind, size, right) in [
            (&[0u8][..], 1 << 40, true),
            (&[1], FRAME_LIMIT, true),
            (&[1], FRAME_LIMIT + 1, false),
            (&[4], 1 << 40, false),
            // A reserved type (RFC 9114 section 7.2.8), and one of two octets; WebTransport, which has no length.
            (&[0x21], 1 << 20, false),
            (&[0x40, 0x40], 1 << 20, false),
            (&[0x40, 0x41], 4, false),
        ] {
            let head = [kind, &length(size)].concat();
            for chunk in [1, head.len()] {
                let mut frames = Frames::default();
                let taken: Result<Vec<_>, _> = head
                    .chunks(chunk)
                    .map(|part| frames.next(&mut Bytes::copy_from_slice(part)))
                    .collect();
                assert_eq!(taken.is_ok(), right, "{head:?}");
                assert!(right || frames.next(&mut Bytes::new()).is_err(), "{head:?}");
            }
        }
    }
}
