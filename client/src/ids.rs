//! Ids of messages and exchanges.

use jiff::Timestamp;
use ulid::Ulid;

/// A new id that sorts by `now`.
pub(crate) fn new(now: Timestamp) -> Ulid {
    let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or_default();
    Ulid::from_parts(milliseconds, rand::random())
}
