//! Recipients whose sender is to hear that the mail is late.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Refused, enqueue,
    rows::{self, millis},
    settle,
    tx::Tx,
};
use crate::{BodyId, Late, LateMessage, LateRecipient, Notice, RecipientId};

/// All late recipients of the messages with those that are late for longest.
pub(super) const LATE: &str = "SELECT r.id, r.message, r.argument, r.destination, r.status, r.reason, r.attempts, r.expires, r.notice, \
    r.exchange, r.remote, r.detail, m.id AS message_id, m.sender, m.size, m.longest_line, m.flags, m.priority, m.accepted, m.body \
    FROM (SELECT message FROM recipient WHERE notice <= ?1 ORDER BY notice LIMIT ?2) AS j \
    CROSS JOIN recipient AS r ON r.message = j.message CROSS JOIN message AS m ON m.seq = r.message WHERE r.notice <= ?1";
pub(super) const NEXT: &str = "SELECT min(notice) FROM recipient WHERE notice IS NOT NULL";
const WAITING: &str = "SELECT count(*) FROM json_each(?1) AS j CROSS JOIN recipient AS r ON r.id = j.value ->> 0 \
    WHERE r.notice IS NOT NULL";
const STORE: &str = "UPDATE recipient SET notice = j.value ->> 1 FROM json_each(?1) AS j \
    WHERE recipient.id = j.value ->> 0 AND recipient.notice IS NOT NULL";

/// What is late at `now`, of about `limit` messages.
pub(super) async fn late(
    connection: &mut SqliteConnection,
    now: i64,
    limit: usize,
) -> Result<Late, sqlx::Error> {
    let found = sqlx::query(LATE)
        .bind(now)
        .bind(rows::integer(limit as u64))
        .fetch_all(connection)
        .await?;
    let (mut messages, mut unreadable) = (BTreeMap::<i64, LateMessage>::new(), Vec::new());
    for row in &found {
        let (id, seq) = (RecipientId(row.try_get("id")?), row.try_get("message")?);
        let read = message(row).and_then(|message| Ok((message, recipient(row)?)));
        match read {
            Ok((message, recipient)) => {
                let known = messages.entry(seq).or_insert(message);
                // One of several late recipients brings its message as often.
                if known.recipients.iter().all(|known| known.id != recipient.id) {
                    known.recipients.push(recipient);
                }
            }
            Err(fault) => {
                tracing::error!(recipient = id.0, %fault, "a late recipient's row cannot be read");
                unreadable.push(id);
            }
        }
    }
    Ok(Late {
        messages: messages.into_values().collect(),
        unreadable,
    })
}

fn message(row: &SqliteRow) -> Result<LateMessage, sqlx::Error> {
    let sender: &str = row.try_get("sender")?;
    Ok(LateMessage {
        id: rows::ulid(row.try_get("message_id")?)?,
        sender: rows::argument(sender)?,
        body: BodyId(row.try_get("body")?),
        facts: rows::facts(row)?,
        priority: row.try_get("priority")?,
        accepted: rows::time(row.try_get("accepted")?)?,
        recipients: Vec::new(),
    })
}

fn recipient(row: &SqliteRow) -> Result<LateRecipient, sqlx::Error> {
    let argument: &str = row.try_get("argument")?;
    let exchange: Option<&[u8]> = row.try_get("exchange")?;
    Ok(LateRecipient {
        id: RecipientId(row.try_get("id")?),
        recipient: rows::argument(argument)?,
        destination: row.try_get("destination")?,
        status: rows::status(row, "status")?,
        reason: rows::reason(row.try_get("reason")?),
        attempts: row.try_get("attempts")?,
        expires: rows::time(row.try_get("expires")?)?,
        notice: rows::time(row.try_get("notice")?)?,
        sent: exchange.is_some(),
        remote: row.try_get("remote")?,
        detail: row.try_get("detail")?,
    })
}

/// When the next one is late.
pub(super) async fn next(connection: &mut SqliteConnection) -> Result<Option<Timestamp>, sqlx::Error> {
    let next: Option<i64> = sqlx::query_scalar(NEXT).fetch_one(connection).await?;
    next.map(rows::time).transpose()
}

/// Stores a notice and when the next ones are due; false, and nothing stored, when one of its recipients is done by now.
pub(super) async fn store(tx: &mut Tx<'_>, notice: &Notice) -> Result<Result<bool, Refused>, sqlx::Error> {
    tx.flush().await?;
    let pairs: Vec<(RecipientId, Option<i64>)> = notice
        .recipients
        .iter()
        .map(|(id, next)| (*id, next.map(millis)))
        .collect();
    let pairs_json = rows::json(&pairs)?;
    if let Some(message) = &notice.message {
        let waiting: i64 = sqlx::query_scalar(WAITING)
            .bind(&pairs_json)
            .fetch_one(&mut *tx.connection)
            .await?;
        if waiting != rows::integer(pairs.len() as u64) {
            return Ok(Ok(false));
        }
        let mut prepared = Vec::new();
        if let Err(refused) = enqueue::prepare(tx, std::slice::from_ref(message), &mut prepared) {
            return Ok(Err(refused));
        }
        enqueue::store(tx, prepared).await?;
        settle::notified(tx, &[message]).await?;
        tx.flush().await?;
    }
    sqlx::query(STORE)
        .bind(&pairs_json)
        .execute(&mut *tx.connection)
        .await?;
    Ok(Ok(true))
}
