//! What operators see.

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Row, SqliteConnection, sqlite::SqliteRow};
use ulid::Ulid;

use super::{
    rows,
    rows::{STATUSES, status_number},
};
use crate::{Enqueued, EventView, Filter, MessageView, RecipientId, RecipientView, StoredReply, Totals};

/// The most messages in one listing: a page of 1,000 and one to see whether there is more.
const LIMIT: usize = 1001;

const RECIPIENTS: &str = "SELECT r.id, r.message, r.argument, r.destination, r.status, r.reason, r.due, r.expires, \
    r.attempts, r.exchange, r.remote, r.detail \
    FROM json_each(?1) AS j CROSS JOIN recipient AS r ON r.message = j.value ORDER BY r.id";
/// The index's own condition stands beside: only so does SQLite see that the partial index fits.
pub(super) const RARE: &str = " AND m.seq IN (SELECT r.message FROM recipient AS r WHERE r.status = ?2 AND r.status IN (1, 3, 5, 6, 7))";
/// Messages by any name that they have.
pub(super) const KNOWN_AS: &str = " AND m.seq IN (SELECT seq FROM message WHERE id = unhex(?7) UNION ALL SELECT message FROM exchange WHERE id = unhex(?7) \
    UNION ALL SELECT seq FROM message WHERE origin_id = ?6 UNION ALL SELECT seq FROM message WHERE upstream = ?6)";
const HISTORY: &str = "SELECT e.at, e.kind, r.argument, e.remote, e.detail FROM event AS e \
    LEFT JOIN recipient AS r ON r.id = e.recipient WHERE e.message = ?1 ORDER BY e.id";
const REQUEST: &str =
    "SELECT digest, status, body FROM request WHERE scope = ?1 AND key = ?2 AND expires > ?3";
const TOTALS: &str =
    "SELECT queued, held, leased, awaiting, delivered, failed, expired, cancelled, open FROM ledger";

/// The answer to a request that was stored.
pub(super) async fn reply(
    connection: &mut SqliteConnection,
    scope: &str,
    key: &str,
    digest: Option<[u8; 32]>,
    now: i64,
) -> Result<Option<Enqueued>, sqlx::Error> {
    let row = sqlx::query(REQUEST)
        .bind(scope)
        .bind(key)
        .bind(now)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let (stored, reply): ([u8; 32], StoredReply) = super::enqueue::request(&row)?;
    Ok(Some(super::enqueue::repeat(
        digest.unwrap_or(stored),
        stored,
        &reply,
    )))
}

/// One message with its history.
pub(super) async fn message(
    connection: &mut SqliteConnection,
    id: Ulid,
) -> Result<Option<MessageView>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT seq, id, sender, size, priority, origin, origin_id, upstream, accepted FROM message WHERE id = ?1",
    )
    .bind(&id.to_bytes()[..])
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let seq: i64 = row.try_get("seq")?;
    let Some(mut view) = views(connection, &[row]).await?.pop() else {
        return Ok(None);
    };
    let history = sqlx::query(HISTORY).bind(seq).fetch_all(connection).await?;
    view.history = history.iter().map(event).collect::<Result<_, _>>()?;
    Ok(Some(view))
}

/// Messages in order of id.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    filter: &Filter,
) -> Result<Vec<MessageView>, sqlx::Error> {
    let mut text = String::from(
        "SELECT m.seq, m.id, m.sender, m.size, m.priority, m.origin, m.origin_id, m.upstream, m.accepted FROM message AS m WHERE m.id > ?1",
    );
    let rare = matches!(filter.status.map(status_number), Some(1 | 3 | 5 | 6 | 7));
    if rare {
        text += RARE;
    }
    if filter.destination.is_some() || (filter.status.is_some() && !rare) {
        text += " AND EXISTS (SELECT 1 FROM recipient AS r WHERE r.message = m.seq \
            AND (?2 IS NULL OR r.status = ?2) AND (?3 IS NULL OR r.destination = ?3))";
    }
    if filter.sender.is_some() {
        text += " AND m.sender >= ?4 AND substr(m.sender, 1, length(?4)) = ?4";
    }
    if filter.known_as.is_some() {
        text += KNOWN_AS;
    }
    text += " ORDER BY m.id LIMIT ?5";
    let found = sqlx::query(AssertSqlSafe(text))
        .bind(filter.after.map_or([0; 16], |id| id.to_bytes()).as_slice())
        .bind(filter.status.map(status_number))
        .bind(filter.destination.as_deref())
        .bind(filter.sender.as_deref().map(|sender| format!("<{sender}>")))
        .bind(rows::integer(filter.limit.min(LIMIT) as u64))
        .bind(filter.known_as.as_deref())
        .bind(known_id(filter))
        .fetch_all(&mut *connection)
        .await?;
    views(connection, &found).await
}

/// The id that is asked for, where it is a message's or an exchange's, as hexadecimal digits.
fn known_id(filter: &Filter) -> Option<String> {
    let id = Ulid::from_string(filter.known_as.as_deref()?).ok()?;
    Some(rows::hex(id))
}

/// The counts of the ledger.
pub(super) async fn totals(connection: &mut SqliteConnection) -> Result<Totals, sqlx::Error> {
    let row = sqlx::query(TOTALS).fetch_one(connection).await?;
    let mut totals = Totals {
        messages: rows::count(row.try_get("open")?),
        ..Totals::default()
    };
    for (index, status) in STATUSES.iter().enumerate() {
        if let Ok(serde_json::Value::String(word)) = serde_json::to_value(status) {
            totals.recipients.insert(word, rows::count(row.try_get(index)?));
        }
    }
    Ok(totals)
}

/// The first message from `from` on that is not done, and when it was accepted.
pub(super) async fn oldest(
    connection: &mut SqliteConnection,
    from: i64,
) -> Result<Option<(i64, Timestamp)>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT seq, accepted FROM message WHERE seq >= ?1 AND done IS NULL ORDER BY seq LIMIT 1",
    )
    .bind(from)
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok((row.try_get(0)?, rows::time(row.try_get(1)?)?)))
        .transpose()
}

async fn views(
    connection: &mut SqliteConnection,
    messages: &[SqliteRow],
) -> Result<Vec<MessageView>, sqlx::Error> {
    let mut numbers = Vec::with_capacity(messages.len());
    for row in messages {
        numbers.push(row.try_get::<i64, _>("seq")?);
    }
    let found = sqlx::query(RECIPIENTS)
        .bind(rows::json(&numbers)?)
        .fetch_all(connection)
        .await?;
    let mut recipients: std::collections::HashMap<i64, Vec<RecipientView>> = std::collections::HashMap::new();
    for row in &found {
        recipients
            .entry(row.try_get("message")?)
            .or_default()
            .push(recipient(row)?);
    }
    messages
        .iter()
        .zip(numbers)
        .map(|(row, seq)| view(row, recipients.remove(&seq).unwrap_or_default()))
        .collect()
}

fn view(row: &SqliteRow, recipients: Vec<RecipientView>) -> Result<MessageView, sqlx::Error> {
    let sender: &str = row.try_get("sender")?;
    Ok(MessageView {
        id: rows::ulid(row.try_get("id")?)?,
        sender: sender
            .parse::<lightpost_mail::Sender>()
            .map_or_else(|_| sender.to_owned(), |sender| sender.path.to_string()),
        size: rows::count(row.try_get("size")?),
        priority: row.try_get("priority")?,
        origin: row.try_get("origin")?,
        origin_id: row.try_get("origin_id")?,
        upstream: row.try_get("upstream")?,
        accepted: rows::time(row.try_get("accepted")?)?,
        recipients,
        history: Vec::new(),
    })
}

/// The address, or the stored text as it is: an operator has to see the row that cannot be read.
fn address(argument: &str) -> String {
    argument
        .parse::<lightpost_mail::Recipient>()
        .map_or_else(|_| argument.to_owned(), |recipient| recipient.address.to_string())
}

fn recipient(row: &SqliteRow) -> Result<RecipientView, sqlx::Error> {
    let due: Option<i64> = row.try_get("due")?;
    let exchange: Option<&[u8]> = row.try_get("exchange")?;
    Ok(RecipientView {
        id: RecipientId(row.try_get("id")?),
        address: address(row.try_get("argument")?),
        destination: row.try_get("destination")?,
        status: rows::status(row, "status")?,
        reason: rows::reason(row.try_get("reason")?),
        due: due.map(rows::time).transpose()?,
        expires: rows::time(row.try_get("expires")?)?,
        attempts: row.try_get("attempts")?,
        exchange: exchange.map(rows::ulid).transpose()?,
        remote: row.try_get("remote")?,
        detail: row.try_get("detail")?,
    })
}

fn event(row: &SqliteRow) -> Result<EventView, sqlx::Error> {
    let argument: Option<&str> = row.try_get("argument")?;
    Ok(EventView {
        at: rows::time(row.try_get("at")?)?,
        kind: row.try_get("kind")?,
        recipient: argument.map(address),
        remote: row.try_get("remote")?,
        detail: row.try_get("detail")?,
    })
}
