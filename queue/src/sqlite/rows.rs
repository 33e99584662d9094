//! How values are written into columns and read back.

use std::str::FromStr;

use jiff::Timestamp;
use lightpost_mail::lines::BodyFacts;
use sqlx::{Row, sqlite::SqliteRow};
use ulid::Ulid;

use super::error::undecodable;
use crate::{Status, WaitReason};

/// Statuses in the order of their numbers.
pub(super) const STATUSES: [Status; 8] = [
    Status::Queued,
    Status::Held,
    Status::Leased,
    Status::Awaiting,
    Status::Delivered,
    Status::Failed,
    Status::Expired,
    Status::Cancelled,
];

/// The column's number for a status.
pub(super) const fn status_number(status: Status) -> i64 {
    status as i64
}

/// Whether nothing can happen to it any more.
pub(super) const fn is_done(status: Status) -> bool {
    status_number(status) >= status_number(Status::Delivered)
}

pub(super) fn status(row: &SqliteRow, column: &str) -> Result<Status, sqlx::Error> {
    let number: i64 = row.try_get(column)?;
    usize::try_from(number)
        .ok()
        .and_then(|number| STATUSES.get(number).copied())
        .ok_or_else(|| undecodable("status", number))
}

/// Milliseconds since 1970.
pub(super) fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

pub(super) fn time(millis: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_millisecond(millis).map_err(|error| undecodable("time", error))
}

pub(super) fn ulid(octets: &[u8]) -> Result<Ulid, sqlx::Error> {
    <[u8; 16]>::try_from(octets)
        .map(Ulid::from_bytes)
        .map_err(|error| undecodable("id", error))
}

/// The whole argument of MAIL FROM or RCPT TO.
pub(super) fn argument<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, sqlx::Error> {
    text.parse().map_err(|error| undecodable(text, error))
}

pub(super) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn priority(rank: i64) -> i8 {
    i8::try_from(rank.saturating_neg()).unwrap_or(0)
}

pub(super) fn flags(facts: &BodyFacts) -> i64 {
    i64::from(facts.eight_bit) | i64::from(facts.eight_bit_headers) << 1 | i64::from(facts.nul) << 2
}

pub(super) fn facts(row: &SqliteRow) -> Result<BodyFacts, sqlx::Error> {
    let flags: i64 = row.try_get("flags")?;
    Ok(BodyFacts {
        size: count(row.try_get("size")?),
        longest_line: count(row.try_get("longest_line")?),
        eight_bit: flags & 1 != 0,
        eight_bit_headers: flags & 2 != 0,
        nul: flags & 4 != 0,
    })
}

pub(super) fn reason(word: Option<String>) -> Option<WaitReason> {
    serde_json::from_value(serde_json::Value::String(word?)).ok()
}

/// What a statement with `json_each(?)` takes.
pub(super) fn json(value: &impl serde::Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

/// One line of what somebody else said: no line ends, at most 1,000 characters.
pub(super) fn line(text: &str) -> String {
    text.chars()
        .take(1000)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// A ULID's octets as `unhex` takes them.
pub(super) fn hex(id: Ulid) -> String {
    format!("{:032x}", u128::from_be_bytes(id.to_bytes()))
}
