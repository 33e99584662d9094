//! Recipients whose sender is to hear that the mail is late.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::Timestamp;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Refused, enqueue,
    rows::{self, millis},
    settle,
    tx::Tx,
};
use crate::{BodyId, Late, LateMessage, LateRecipient, Notice, RecipientId};

/// Rows of [`TOLD`]'s table that are over and that one notice removes at most.
const PURGED: i64 = 64;

/// All late recipients of the messages with those that are late for longest.
pub(super) const LATE: &str = "SELECT r.id, r.message, r.argument, r.destination, r.status, r.reason, r.attempts, r.expires, r.notice, \
    r.exchange, r.remote, r.detail, m.id AS message_id, m.sender, m.size, m.longest_line, m.flags, m.priority, m.accepted, m.body \
    FROM (SELECT message FROM recipient WHERE notice <= ?1 ORDER BY notice LIMIT ?2) AS j \
    CROSS JOIN recipient AS r ON r.message = j.message CROSS JOIN message AS m ON m.seq = r.message WHERE r.notice <= ?1";
pub(super) const NEXT: &str = "SELECT min(notice) FROM recipient WHERE notice IS NOT NULL";
pub(super) const TOLD: &str = "SELECT t.sender, t.destination FROM json_each(?1) AS j CROSS JOIN told AS t \
    ON t.sender = j.value ->> 0 AND t.destination = j.value ->> 1 WHERE t.until > ?2";
const TELL: &str = "INSERT INTO told (sender, destination, until) SELECT j.value ->> 0, j.value ->> 1, j.value ->> 2 \
    FROM json_each(?1) AS j WHERE true \
    ON CONFLICT (sender, destination) DO UPDATE SET until = max(until, excluded.until)";
const PURGE: &str = "DELETE FROM told WHERE (sender, destination) IN \
    (SELECT sender, destination FROM told WHERE until <= ?1 LIMIT ?2)";
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
        .fetch_all(&mut *connection)
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
    mark_quiet(connection, now, &mut messages).await?;
    Ok(Late {
        messages: messages.into_values().collect(),
        unreadable,
    })
}

/// Marks the recipients of whose destination the sender has heard already.
async fn mark_quiet(
    connection: &mut SqliteConnection,
    now: i64,
    messages: &mut BTreeMap<i64, LateMessage>,
) -> Result<(), sqlx::Error> {
    let pairs: BTreeSet<(String, &str)> = messages
        .values()
        .flat_map(|message| {
            let sender = message.sender.path.to_string();
            message
                .recipients
                .iter()
                .map(move |one| (sender.clone(), one.destination.as_str()))
        })
        .collect();
    if pairs.is_empty() {
        return Ok(());
    }
    let found = sqlx::query(TOLD)
        .bind(rows::json(&pairs)?)
        .bind(now)
        .fetch_all(connection)
        .await?;
    let told: HashSet<(String, String)> = found
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, sqlx::Error>>()?;
    for message in messages.values_mut() {
        let sender = message.sender.path.to_string();
        for one in &mut message.recipients {
            one.quiet = told.contains(&(sender.clone(), one.destination.clone()));
        }
    }
    Ok(())
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
        quiet: false,
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
        told(tx, notice).await?;
        tx.flush().await?;
    }
    sqlx::query(STORE)
        .bind(&pairs_json)
        .execute(&mut *tx.connection)
        .await?;
    Ok(Ok(true))
}

/// Stores who was told, and forgets some of those for whom that is long ago.
async fn told(tx: &mut Tx<'_>, notice: &Notice) -> Result<(), sqlx::Error> {
    if notice.quiet.is_empty() {
        return Ok(());
    }
    let quiet: Vec<(&str, &str, i64)> = notice
        .quiet
        .iter()
        .map(|one| (one.sender.as_str(), one.destination.as_str(), millis(one.until)))
        .collect();
    sqlx::query(TELL)
        .bind(rows::json(&quiet)?)
        .execute(&mut *tx.connection)
        .await?;
    sqlx::query(PURGE)
        .bind(millis(tx.now))
        .bind(PURGED)
        .execute(&mut *tx.connection)
        .await?;
    Ok(())
}
