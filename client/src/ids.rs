//! Ids of messages and exchanges.

use jiff::Timestamp;
use ulid::Ulid;

/// When an id was made.
pub(crate) fn time(id: Ulid) -> Timestamp {
    let milliseconds = i64::try_from(id.timestamp_ms()).unwrap_or_default();
    Timestamp::from_millisecond(milliseconds).unwrap_or_default()
}

/// A new id that sorts by `now`.
pub(crate) fn new(now: Timestamp) -> Ulid {
    let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or_default();
    Ulid::from_parts(milliseconds, rand::random())
}
