//! Leases.
//!
//! The index (destination, rank, due) is walked by rank: within one rank what is due stands at its front, in the order in
//! which it is claimed. So a claim costs as much as it takes, however much waits.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use sqlx::{Row, sqlite::SqliteRow};
use ulid::Ulid;

use super::{
    enqueue, memory, rows,
    tx::{Event, Tx},
};
use crate::{BodyId, ClaimedMessage, ClaimedRecipient, OpenExchange, RecipientId, Status};

/// What [`crate::Claim`] asks, owned.
pub(super) struct Request {
    pub(super) owner: String,
    pub(super) destination: String,
    pub(super) now: i64,
    pub(super) until: i64,
    pub(super) limit: usize,
}

/// What is due, rank by rank, best first, and within a rank what has been due longest: one array of messages. SQLite does the outer loop in the order in which
/// the ranks are found, the inner one in the order of the index; an ORDER BY would read everything that is due to sort it. A bare
/// parameter as LIMIT is something to plan by, for which the statement would be prepared anew each time.
pub(super) const FRONT: &str = "WITH RECURSIVE ranks (rank) AS (\
    SELECT (SELECT min(rank) FROM recipient WHERE destination = ?1 AND due IS NOT NULL) \
    UNION ALL SELECT (SELECT min(rank) FROM recipient WHERE destination = ?1 AND due IS NOT NULL AND rank > ranks.rank) \
    FROM ranks WHERE ranks.rank IS NOT NULL) \
    SELECT json_group_array(message) FROM (SELECT r.message FROM ranks CROSS JOIN recipient AS r \
    ON r.destination = ?1 AND r.rank = ranks.rank AND r.due <= ?2 LIMIT ?3 + 0)";

/// All due recipients of the chosen messages.
pub(super) const DUE: &str = "SELECT r.id, r.message, r.status, r.due, r.attempts, r.reason, r.owner, r.exchange, r.remote, \
    r.detail, r.argument, r.destination, r.expires \
    FROM json_each(?1) AS j CROSS JOIN recipient AS r ON r.message = j.value WHERE r.due <= ?2 ORDER BY r.id";

/// With the first chunk of a small body (`?2` octets at most), which then is all of it. `<< 20` is [`enqueue::CHUNK_BITS`].
pub(super) const MESSAGES: &str = "SELECT m.seq, m.id, m.sender, m.size, m.longest_line, m.flags, m.priority, m.origin, \
    m.origin_id, m.upstream, m.accepted, m.body, c.data FROM json_each(?1) AS j CROSS JOIN message AS m ON m.seq = j.value \
    LEFT JOIN chunk AS c ON c.key = m.body << 20 AND m.size <= ?2";

const _: () = assert!(enqueue::CHUNK_BITS == 20);

pub(super) const EXCHANGES: &str = "SELECT e.id, e.gateway, e.name, e.terms, e.recipients, e.begun, e.until, e.custody, e.message, \
    e.closed IS NULL AS open FROM json_each(?1) AS j CROSS JOIN exchange AS e ON e.message = j.value \
    WHERE e.closed IS NULL OR NOT e.refused ORDER BY e.id";

/// Leases what is due.
pub(super) async fn claim(tx: &mut Tx<'_>, request: &Request) -> Result<Vec<ClaimedMessage>, sqlx::Error> {
    tx.flush().await?;
    let chosen = choose(tx, request).await?;
    let (mut messages, mut unknown) = (HashMap::new(), Vec::new());
    for seq in &chosen {
        match tx.memory.take(*seq) {
            Some(message) => drop(messages.insert(*seq, lease_known(tx, request, message))),
            None => unknown.push(*seq),
        }
    }
    if !unknown.is_empty() {
        read(tx, request, &unknown, &mut messages).await?;
    }
    let order = chosen.iter().filter_map(|seq| messages.remove(seq));
    Ok(order.filter(|message| !message.recipients.is_empty()).collect())
}

/// Leases those recipients of a known message that are due.
fn lease_known(tx: &mut Tx<'_>, request: &Request, mut message: ClaimedMessage) -> ClaimedMessage {
    message.recipients.retain(|one| {
        let due = tx.recipient(one.id.0).and_then(|recipient| recipient.due);
        due.is_some_and(|due| due <= request.now)
    });
    for one in &message.recipients {
        lease(tx, request, one.id.0);
    }
    message
}

/// Reads messages and leases those of their recipients that are due.
async fn read(
    tx: &mut Tx<'_>,
    request: &Request,
    chosen: &[i64],
    messages: &mut HashMap<i64, ClaimedMessage>,
) -> Result<(), sqlx::Error> {
    let list = rows::json(&chosen)?;
    let due = sqlx::query(DUE)
        .bind(&list)
        .bind(request.now)
        .fetch_all(&mut *tx.connection)
        .await?;
    let exchanges = exchanges(tx, &due).await?;
    let rows = sqlx::query(MESSAGES)
        .bind(&list)
        .bind(rows::integer(memory::SMALL as u64))
        .fetch_all(&mut *tx.connection)
        .await?;
    let mut faults = HashMap::new();
    for row in &rows {
        let seq: i64 = row.try_get("seq")?;
        match claimed(row) {
            Ok(message) => drop(messages.insert(seq, message)),
            Err(fault) => drop(faults.insert(seq, fault.to_string())),
        }
    }
    for (seq, exchange) in exchanges.closed {
        if let Some(message) = messages.get_mut(&seq) {
            message.closed.push(exchange);
        }
    }
    for row in &due {
        let id = tx.remember(row)?;
        let seq: i64 = row.try_get("message")?;
        let recipient = recipient(row, &exchanges.open).map_err(|fault| fault.to_string());
        match (messages.get_mut(&seq), recipient) {
            (Some(message), Ok(recipient)) => {
                tx.name(id, message.id);
                lease(tx, request, id);
                message.recipients.push(recipient);
            }
            (_, Err(fault)) => hold(tx, id, seq, &fault),
            (None, Ok(_)) => {
                if let Some(fault) = faults.get(&seq) {
                    hold(tx, id, seq, fault);
                }
            }
        }
    }
    Ok(())
}

/// A row that cannot be read stands aside for an operator: it may neither block its destination nor be lost.
fn hold(tx: &mut Tx<'_>, id: i64, message: i64, fault: &str) {
    tracing::error!(
        recipient = id,
        fault,
        "a recipient whose row cannot be read is held"
    );
    let detail = rows::line(&format!("its row cannot be read: {fault}"));
    tx.change(id, tx.now, |recipient| {
        recipient.status = Status::Held;
        recipient.due = None;
        recipient.reason = None;
        recipient.detail = Some(detail.clone());
    });
    tx.event(Event {
        message,
        recipient: Some(id),
        at: tx.now,
        kind: "held",
        remote: None,
        detail,
    });
}

async fn choose(tx: &mut Tx<'_>, request: &Request) -> Result<Vec<i64>, sqlx::Error> {
    let front: String = sqlx::query_scalar(FRONT)
        .bind(&request.destination)
        .bind(request.now)
        .bind(rows::integer(request.limit as u64))
        .fetch_one(&mut *tx.connection)
        .await?;
    let front: Vec<i64> = serde_json::from_str(&front)
        .map_err(|error| super::error::undecodable("recipient.message", error))?;
    let mut seen = HashSet::new();
    Ok(front
        .into_iter()
        .filter(|message| seen.insert(*message))
        .collect())
}

fn lease(tx: &mut Tx<'_>, request: &Request, id: i64) {
    tx.change(id, tx.now, |recipient| {
        recipient.status = Status::Leased;
        recipient.due = Some(request.until);
        recipient.owner = Some(request.owner.clone());
    });
}

pub(super) fn recipient(
    row: &SqliteRow,
    exchanges: &HashMap<Ulid, OpenExchange>,
) -> Result<ClaimedRecipient, sqlx::Error> {
    let exchange: Option<&[u8]> = row.try_get("exchange")?;
    let exchange = exchange.map(rows::ulid).transpose()?;
    let argument: &str = row.try_get("argument")?;
    Ok(ClaimedRecipient {
        id: RecipientId(row.try_get("id")?),
        recipient: rows::argument(argument)?,
        destination: row.try_get("destination")?,
        attempts: row.try_get("attempts")?,
        expires: rows::time(row.try_get("expires")?)?,
        exchange: exchange.and_then(|id| exchanges.get(&id).cloned()),
    })
}

/// Exchanges of messages.
#[derive(Default)]
struct Exchanges {
    open: HashMap<Ulid, OpenExchange>,
    /// With their messages.
    closed: Vec<(i64, OpenExchange)>,
}

/// The exchanges of those messages that had any.
async fn exchanges(tx: &mut Tx<'_>, due: &[SqliteRow]) -> Result<Exchanges, sqlx::Error> {
    let mut messages = BTreeSet::new();
    for row in due {
        let carried: Option<&[u8]> = row.try_get("exchange")?;
        if carried.is_some() {
            messages.insert(row.try_get::<i64, _>("message")?);
        }
    }
    let mut exchanges = Exchanges::default();
    if messages.is_empty() {
        return Ok(exchanges);
    }
    let found = sqlx::query(EXCHANGES)
        .bind(rows::json(&messages)?)
        .fetch_all(&mut *tx.connection)
        .await?;
    for row in &found {
        let exchange = open_exchange(row)?;
        if row.try_get("open")? {
            exchanges.open.insert(exchange.id, exchange);
        } else {
            exchanges.closed.push((row.try_get("message")?, exchange));
        }
    }
    Ok(exchanges)
}

/// A row of `exchange`.
pub(super) fn open_exchange(row: &SqliteRow) -> Result<OpenExchange, sqlx::Error> {
    let recipients: &str = row.try_get("recipients")?;
    Ok(OpenExchange {
        id: rows::ulid(row.try_get("id")?)?,
        gateway: row.try_get("gateway")?,
        name: row.try_get("name")?,
        terms: row.try_get("terms")?,
        recipients: serde_json::from_str(recipients)
            .map_err(|error| super::error::undecodable("exchange.recipients", error))?,
        begun: rows::time(row.try_get("begun")?)?,
        until: rows::time(row.try_get("until")?)?,
        custody: row.try_get("custody")?,
    })
}

pub(super) fn claimed(row: &SqliteRow) -> Result<ClaimedMessage, sqlx::Error> {
    let sender: &str = row.try_get("sender")?;
    Ok(ClaimedMessage {
        id: rows::ulid(row.try_get("id")?)?,
        sender: rows::argument(sender)?,
        body: BodyId(row.try_get("body")?),
        facts: rows::facts(row)?,
        priority: row.try_get("priority")?,
        accepted: rows::time(row.try_get("accepted")?)?,
        origin: row.try_get("origin")?,
        origin_id: row.try_get("origin_id")?,
        upstream: row.try_get("upstream")?,
        content: content(row)?,
        recipients: Vec::new(),
        closed: Vec::new(),
    })
}

/// The body, where the row has all of it.
fn content(row: &SqliteRow) -> Result<Option<Bytes>, sqlx::Error> {
    let (data, size): (Option<&[u8]>, i64) = (row.try_get("data")?, row.try_get("size")?);
    let whole = data.filter(|data| rows::integer(data.len() as u64) == size);
    Ok(whole.map(Bytes::copy_from_slice))
}
