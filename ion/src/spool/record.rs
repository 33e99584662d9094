//! One received bundle in a segment of the spool.
//!
//! | octets | what, integers big-endian |
//! |---|---|
//! | 4 | `LPB1` |
//! | 4 | length of the head |
//! | 8 | length of the payload |
//! | … | the head: JSON |
//! | … | the payload |
//! | 4 | CRC-32 of all before it |

use serde::{Deserialize, Serialize};

const MAGIC: [u8; 4] = *b"LPB1";
/// Octets before the head.
pub(super) const FIXED: usize = 16;
/// Octets behind the payload.
pub(super) const CHECKSUM: usize = 4;
/// The longest head that is believed.
const MOST_HEAD: usize = 1 << 16;

/// What is known of a received bundle besides its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Its source.
    pub(crate) source: String,
    /// Creation time in milliseconds since the year 2000; 0 where the source has no clock.
    pub(crate) time: u64,
    /// Sequence number.
    pub(crate) sequence: u64,
    /// Lifetime in milliseconds.
    pub(crate) lifetime: u64,
    /// Whether the payload is an administrative record (RFC 9171 section 6.1).
    pub(crate) administrative: bool,
}

/// Where the parts of a record are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) head: usize,
    pub(super) payload: u64,
}

impl Lengths {
    /// The whole record's.
    pub(super) fn total(self) -> u64 {
        self.payload
            .saturating_add(self.head as u64)
            .saturating_add((FIXED + CHECKSUM) as u64)
    }

    /// Reads the fixed part; `None` for anything else.
    pub(super) fn read(fixed: &[u8; FIXED]) -> Option<Self> {
        let (magic, lengths) = fixed.split_first_chunk::<4>()?;
        let (head, payload) = lengths.split_first_chunk::<4>()?;
        let head = usize::try_from(u32::from_be_bytes(*head)).ok()?;
        let payload = u64::from_be_bytes(*payload.first_chunk()?);
        (*magic == MAGIC && head <= MOST_HEAD).then_some(Self { head, payload })
    }
}

/// What stands before the payload.
pub(super) fn begin(head: &Head, payload: u64) -> Vec<u8> {
    // A structure of numbers and strings always has a JSON form.
    let text = serde_json::to_vec(head).unwrap_or_default();
    let mut begin = Vec::with_capacity(FIXED + text.len());
    begin.extend_from_slice(&MAGIC);
    begin.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    begin.extend_from_slice(&payload.to_be_bytes());
    begin.extend_from_slice(&text);
    begin
}
