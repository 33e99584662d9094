//! What operators do, and what is cleared away.

use std::collections::HashSet;

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Row};
use ulid::Ulid;

use super::{
    rows::{self, STATUSES, is_done, millis},
    tx::{COLUMNS, Event, Tx},
    usage,
};
use crate::{Operation, Status, WaitReason};

/// The most messages that one purge removes.
const PURGED: i64 = 256;
/// Bodies above this are left to the sweeper, which removes them chunk by chunk.
const LARGE: i64 = 1024 * 1024;

pub(super) const DONE: &str =
    "SELECT seq, body, size FROM message WHERE done IS NOT NULL AND done < ?1 ORDER BY done LIMIT ?2";
const TALLY: &str = "SELECT r.status, count(*) FROM json_each(?1) AS j CROSS JOIN recipient AS r ON r.message = j.value \
    GROUP BY r.status";
const EXPIRED: &str = "DELETE FROM request WHERE (scope, key) IN \
    (SELECT scope, key FROM request WHERE expires < ?1 ORDER BY expires LIMIT ?2)";
const CHUNKS: &str = "DELETE FROM chunk WHERE key IN (SELECT c.key FROM json_each(?1) AS j CROSS JOIN chunk AS c \
    ON c.key >= (j.value << 20) AND c.key < ((j.value + 1) << 20))";

/// One operation on one message.
pub(super) struct Order {
    pub(super) id: Ulid,
    pub(super) operation: Operation,
    pub(super) at: Timestamp,
    pub(super) by: String,
}

/// How many recipients it fitted; `None` when there is no such message.
pub(super) async fn operate(tx: &mut Tx<'_>, order: &Order) -> Result<Option<u64>, sqlx::Error> {
    tx.flush().await?;
    let found = sqlx::query(AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM message AS m CROSS JOIN recipient AS r ON r.message = m.seq WHERE m.id = ?1"
    )))
    .bind(&order.id.to_bytes()[..])
    .fetch_all(&mut *tx.connection)
    .await?;
    if found.is_empty() {
        return Ok(None);
    }
    let mut fitted = 0;
    for row in &found {
        let id = tx.remember(row)?;
        let Some((message, status)) = tx
            .recipient(id)
            .map(|recipient| (recipient.message, recipient.status))
        else {
            continue;
        };
        let Some((status, kind)) = outcome(order.operation, status) else {
            continue;
        };
        fitted += 1;
        tx.change(id, order.at, |recipient| {
            let due = status == Status::Queued;
            recipient.status = status;
            recipient.due = due.then(|| millis(order.at));
            recipient.reason = due.then(|| WaitReason::Operator.word().to_owned());
            recipient.detail = Some(format!("{kind} by {}", rows::line(&order.by)));
        });
        tx.wake |= status == Status::Queued;
        tx.event(Event {
            message,
            recipient: Some(id),
            at: order.at,
            kind,
            remote: None,
            detail: format!("by {}", rows::line(&order.by)),
        });
    }
    Ok(Some(fitted))
}

/// The next status and the event's kind, where the operation fits.
const fn outcome(operation: Operation, status: Status) -> Option<(Status, &'static str)> {
    match (operation, status) {
        (Operation::Retry, Status::Queued) => Some((Status::Queued, "retried")),
        (Operation::Hold, Status::Queued) => Some((Status::Held, "held")),
        (Operation::Release, Status::Held) => Some((Status::Queued, "released")),
        (Operation::Cancel, Status::Queued | Status::Held) => Some((Status::Cancelled, "cancelled")),
        _ => None,
    }
}

/// Removes some of what is long done.
pub(super) async fn purge(
    tx: &mut Tx<'_>,
    done_before: Timestamp,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    tx.flush().await?;
    sqlx::query(EXPIRED)
        .bind(millis(now))
        .bind(PURGED * 4)
        .execute(&mut *tx.connection)
        .await?;
    usage::purge(tx).await?;
    let done = sqlx::query(DONE)
        .bind(millis(done_before))
        .bind(PURGED)
        .fetch_all(&mut *tx.connection)
        .await?;
    if done.is_empty() {
        return Ok(0);
    }
    let (mut messages, mut small) = (HashSet::new(), Vec::new());
    for row in &done {
        let (seq, body, size): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        messages.insert(seq);
        if size > LARGE {
            tx.abandoned.push(body);
        } else {
            small.push(body);
        }
    }
    tx.forget(&messages);
    let list = rows::json(&messages)?;
    for row in sqlx::query(TALLY)
        .bind(&list)
        .fetch_all(&mut *tx.connection)
        .await?
    {
        let (number, count): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        if let Some(status) = usize::try_from(number)
            .ok()
            .and_then(|n| STATUSES.get(n))
            .filter(|s| is_done(**s))
        {
            tx.count(*status, -count);
        }
    }
    remove_chunks(tx, &small).await?;
    sqlx::query("INSERT OR IGNORE INTO spool (body) SELECT value FROM json_each(?1)")
        .bind(rows::json(&tx.abandoned)?)
        .execute(&mut *tx.connection)
        .await?;
    sqlx::query("DELETE FROM message WHERE seq IN (SELECT value FROM json_each(?1))")
        .bind(&list)
        .execute(&mut *tx.connection)
        .await?;
    Ok(messages.len() as u64)
}

async fn remove_chunks(tx: &mut Tx<'_>, bodies: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query(CHUNKS)
        .bind(rows::json(&bodies)?)
        .execute(&mut *tx.connection)
        .await?;
    Ok(())
}
