//! New messages and their bodies.

use std::collections::HashMap;

use bytes::Bytes;
use sqlx::Row;

use super::{
    Refused, fresh,
    insert::{Around, LARGEST, Script, Table, insert},
    rows,
    tx::{Event, Spool, Tx},
    usage::Usage,
};
use crate::{
    BodyId, Enqueued, NewBody, NewMessage, NewRecipient, RequestKey, Status, StoredReply, Submission,
};

/// The most octets in one chunk.
pub(super) const CHUNK: usize = 256 * 1024;
/// Chunks per body, as a power of two: the low bits of `chunk.key`.
pub(super) const CHUNK_BITS: u32 = 20;

const MESSAGE: Table = Table {
    into: "message (seq, id, sender, size, longest_line, flags, priority, origin, origin_id, upstream, accepted, body)",
    columns: 12,
    suffix: "",
};
const RECIPIENT: Table = Table {
    into: "recipient (id, message, argument, destination, rank, status, due, expires, notice, attempts, reason, detail)",
    columns: 12,
    suffix: "",
};
const CHUNKS: Table = Table {
    into: "chunk (key, start, data)",
    columns: 3,
    suffix: "",
};
const SPOOL: Table = Table {
    into: "spool (body)",
    columns: 1,
    suffix: "",
};
const REQUEST: Table = Table {
    into: "request (scope, key, digest, status, body, expires)",
    columns: 6,
    suffix: "ON CONFLICT (scope, key) DO UPDATE SET digest = excluded.digest, status = excluded.status, \
        body = excluded.body, expires = excluded.expires",
};
const KNOWN: Around = Around {
    before: "SELECT r.scope, r.key, r.digest, r.status, r.body FROM (",
    columns: 2,
    behind: ") AS asked CROSS JOIN request AS r ON r.scope = asked.column1 AND r.key = asked.column2 WHERE r.expires > ?",
};

struct Chunk {
    key: i64,
    start: u64,
    data: Bytes,
}

impl Chunk {
    fn is_small(&self) -> bool {
        self.data.len() < CHUNK / 8
    }
}

/// Starts `count` bodies.
pub(super) async fn begin_bodies(tx: &mut Tx<'_>, count: usize) -> Result<Vec<BodyId>, sqlx::Error> {
    let bodies: Vec<i64> = (0..count)
        .map(|_| {
            tx.ids.spool += 1;
            tx.ids.spool * 2 + 1
        })
        .collect();
    insert(tx.connection, &SPOOL, &bodies, |values, body| {
        values.add(*body);
    })
    .await?;
    tx.spools
        .extend(bodies.iter().map(|body| (*body, Some(Spool::default()))));
    Ok(bodies.into_iter().map(BodyId).collect())
}

/// Appends to bodies; each answer says whether the body is being written.
pub(super) async fn append(
    tx: &mut Tx<'_>,
    appends: &[(BodyId, &Bytes)],
) -> Result<Vec<Result<(), Refused>>, sqlx::Error> {
    let mut chunks = Vec::new();
    let mut answers = Vec::with_capacity(appends.len());
    for (body, data) in appends {
        answers.push(match tx.spools.get_mut(&body.0) {
            Some(Some(spool)) => cut(body.0, spool, data, &mut chunks),
            _ => Err(Refused(format!("body {} is not being written", body.0))),
        });
    }
    insert_chunks(tx, &chunks).await?;
    Ok(answers)
}

/// Cuts data into chunks behind those that a body has.
fn cut(body: i64, spool: &mut Spool, data: &Bytes, chunks: &mut Vec<Chunk>) -> Result<(), Refused> {
    let more = rows::integer(data.len().div_ceil(CHUNK) as u64);
    if spool.chunks + more > 1 << CHUNK_BITS {
        return Err(Refused(format!("body {body} has too many chunks")));
    }
    let mut rest = data.clone();
    while !rest.is_empty() {
        let part = rest.split_to(rest.len().min(CHUNK));
        let (key, start) = ((body << CHUNK_BITS) + spool.chunks, spool.size);
        spool.chunks += 1;
        spool.size += part.len() as u64;
        chunks.push(Chunk {
            key,
            start,
            data: part,
        });
    }
    Ok(())
}

async fn insert_chunks(tx: &mut Tx<'_>, chunks: &[Chunk]) -> Result<(), sqlx::Error> {
    // 64 chunks of 256 KiB in one statement would be copied at once.
    for group in chunks.chunk_by(|a, b| a.is_small() && b.is_small()) {
        insert(tx.connection, &CHUNKS, group, bind_chunk).await?;
    }
    Ok(())
}

fn bind_chunk(script: &mut Script, chunk: &Chunk) {
    script
        .add(chunk.key)
        .add(rows::integer(chunk.start))
        .add(&*chunk.data);
}

/// Stores submissions that are new; answers each.
pub(super) async fn enqueue(
    tx: &mut Tx<'_>,
    submissions: &[&Submission],
) -> Result<Vec<Result<Enqueued, Refused>>, sqlx::Error> {
    let mut known = known_requests(tx, submissions).await?;
    let mut usage = Usage::load(tx, submissions).await?;
    let (mut answers, mut messages, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for submission in submissions {
        let before = submission.key.as_ref().and_then(|key| {
            known
                .get(&(key.scope.clone(), key.key.clone()))
                .map(|known| (key, known))
        });
        if let Some((key, (digest, reply))) = before {
            answers.push(Ok(repeat(key.digest, *digest, reply)));
            continue;
        }
        if let Err(over) = usage.take(&submission.charges) {
            answers.push(Ok(Enqueued::Over(over)));
            continue;
        }
        if let Err(refused) = prepare(tx, &submission.messages, &mut messages) {
            answers.push(Err(refused));
            continue;
        }
        if let Some(key) = &submission.key {
            let reply = submission.reply.clone();
            known.insert((key.scope.clone(), key.key.clone()), (key.digest, reply));
            requests.push((key, &submission.reply));
        }
        answers.push(Ok(Enqueued::Stored));
    }
    store_with(tx, messages, &requests).await?;
    usage.store(tx).await?;
    Ok(answers)
}

fn bind_request(script: &mut Script, (key, reply): &(&RequestKey, &StoredReply)) {
    script
        .add(key.scope.as_str())
        .add(key.key.as_str())
        .add(&key.digest[..])
        .add(i64::from(reply.status))
        .add(reply.body.as_slice())
        .add(rows::millis(key.expires));
}

/// What a repeat is told.
pub(super) fn repeat(asked: [u8; 32], stored: [u8; 32], reply: &StoredReply) -> Enqueued {
    if asked == stored {
        Enqueued::Repeat(reply.clone())
    } else {
        Enqueued::Conflict
    }
}

type Known = HashMap<(String, String), ([u8; 32], StoredReply)>;

async fn known_requests(tx: &mut Tx<'_>, submissions: &[&Submission]) -> Result<Known, sqlx::Error> {
    let keys: Vec<(&str, &str)> = submissions
        .iter()
        .filter_map(|submission| submission.key.as_ref())
        .map(|RequestKey { scope, key, .. }| (scope.as_str(), key.as_str()))
        .collect();
    let mut known = Known::new();
    for keys in keys.chunks(LARGEST) {
        let mut script = Script::default();
        script
            .values(&KNOWN, keys, |script, (scope, key)| {
                script.add(*scope).add(*key);
            })
            .add(rows::millis(tx.now));
        for row in script.fetch(tx.connection).await? {
            known.insert((row.try_get(0)?, row.try_get(1)?), request(&row)?);
        }
    }
    Ok(known)
}

/// Digest and reply of a row of `request`.
pub(super) fn request(row: &sqlx::sqlite::SqliteRow) -> Result<([u8; 32], StoredReply), sqlx::Error> {
    let digest: &[u8] = row.try_get("digest")?;
    let digest = digest
        .try_into()
        .map_err(|error| super::error::undecodable("digest", error))?;
    let reply = StoredReply {
        status: row.try_get("status")?,
        body: row.try_get("body")?,
    };
    Ok((digest, reply))
}

/// A message that has its numbers.
pub(super) struct Prepared<'a> {
    seq: i64,
    body: i64,
    message: &'a NewMessage,
}

impl<'a> Prepared<'a> {
    pub(super) const fn message(&self) -> &'a NewMessage {
        self.message
    }
}

/// A prepared message is not stored after all: its body is left to the sweeper.
pub(super) fn abandon(tx: &mut Tx<'_>, prepared: &Prepared<'_>) {
    if let NewBody::Spooled(body) = prepared.message.body {
        tx.abandoned.push(body.0);
    }
}

/// Gives numbers to messages and takes the bodies that they name; all or none.
pub(super) fn prepare<'a>(
    tx: &mut Tx<'_>,
    messages: &'a [NewMessage],
    prepared: &mut Vec<Prepared<'a>>,
) -> Result<(), Refused> {
    let mut bodies = Vec::new();
    for message in messages {
        if message.recipients.is_empty() {
            return Err(Refused(format!("message {} has no recipient", message.id)));
        }
        if let NewBody::Spooled(body) = message.body {
            if !matches!(tx.spools.get(&body.0), Some(Some(_))) || bodies.contains(&body.0) {
                return Err(Refused(format!(
                    "message {}: body {} is not here",
                    message.id, body.0
                )));
            }
            bodies.push(body.0);
        }
    }
    for message in messages {
        tx.ids.message += 1;
        let seq = tx.ids.message;
        let body = match message.body {
            NewBody::Inline(_) => seq * 2,
            NewBody::Spooled(body) => body.0,
        };
        prepared.push(Prepared { seq, body, message });
    }
    tx.spools.extend(bodies.into_iter().map(|body| (body, None)));
    Ok(())
}

/// Stores prepared messages.
pub(super) async fn store(tx: &mut Tx<'_>, messages: Vec<Prepared<'_>>) -> Result<(), sqlx::Error> {
    store_with(tx, messages, &[]).await
}

type Requests<'a> = [(&'a RequestKey, &'a StoredReply)];

/// Stores prepared messages and the requests that brought them.
async fn store_with(
    tx: &mut Tx<'_>,
    messages: Vec<Prepared<'_>>,
    requests: &Requests<'_>,
) -> Result<(), sqlx::Error> {
    // Mail comes one by one, from requests of the same kind: the texts for that are few, and each is one step.
    let alike = requests.is_empty() || requests.len() == messages.len();
    if !alike || requests.len() > LARGEST {
        insert(tx.connection, &REQUEST, requests, bind_request).await?;
    }
    let together = if alike && requests.len() <= LARGEST {
        requests
    } else {
        &[]
    };
    if messages.is_empty() {
        return Ok(());
    }
    tx.wake = true;
    tx.open += rows::integer(messages.len() as u64);
    let (mut chunks, mut spooled, mut recipients) = (Vec::new(), Vec::new(), Vec::new());
    for Prepared { seq, body, message } in &messages {
        match &message.body {
            // It cannot have too many chunks: it is in memory.
            NewBody::Inline(data) => drop(cut(*body, &mut Spool::default(), data, &mut chunks)),
            NewBody::Spooled(body) => spooled.push(body.0),
        }
        let first = recipients.len();
        for recipient in &message.recipients {
            tx.ids.recipient += 1;
            recipients.push((tx.ids.recipient, *seq, *message, recipient));
            let status = if message.hold.is_some() {
                Status::Held
            } else {
                Status::Queued
            };
            tx.count(status, 1);
        }
        fresh::keep(
            tx,
            *seq,
            *body,
            message,
            recipients.iter().skip(first).map(|(id, ..)| *id),
        );
        record(tx, *seq, message);
    }
    let count = messages.len();
    let alike = recipients.len() == count && chunks.len() == count;
    if alike && count <= LARGEST && chunks.iter().all(Chunk::is_small) {
        let mut script = Script::default();
        script
            .rows(&REQUEST, together, bind_request)
            .rows(&MESSAGE, &messages, bind_message)
            .rows(&RECIPIENT, &recipients, bind_recipient)
            .rows(&CHUNKS, &chunks, bind_chunk);
        tx.defer(script, count).await?;
    } else {
        insert(tx.connection, &REQUEST, together, bind_request).await?;
        insert(tx.connection, &MESSAGE, &messages, bind_message).await?;
        insert(tx.connection, &RECIPIENT, &recipients, bind_recipient).await?;
        insert_chunks(tx, &chunks).await?;
    }
    if !spooled.is_empty() {
        sqlx::query("DELETE FROM spool WHERE body IN (SELECT value FROM json_each(?1))")
            .bind(rows::json(&spooled)?)
            .execute(&mut *tx.connection)
            .await?;
    }
    Ok(())
}

fn record(tx: &mut Tx<'_>, seq: i64, message: &NewMessage) {
    let mut detail = format!("from {}", message.origin);
    if let Some(id) = &message.origin_id {
        detail += &format!(" as {id}");
    }
    if let Some(id) = &message.upstream {
        detail += &format!(", where it was {id}");
    }
    let mut event = |kind, detail: &str| {
        tx.event(Event {
            message: seq,
            recipient: None,
            at: message.accepted,
            kind,
            remote: None,
            detail: rows::line(detail),
        });
    };
    event("accepted", &detail);
    for note in &message.notes {
        event("screened", note);
    }
    if let Some(reason) = &message.hold {
        event("held", reason);
    }
}

fn bind_message(script: &mut Script, Prepared { seq, body, message }: &Prepared<'_>) {
    script
        .add(*seq)
        .add(&message.id.to_bytes()[..])
        .add(message.sender.to_string())
        .add(rows::integer(message.facts.size))
        .add(rows::integer(message.facts.longest_line))
        .add(rows::flags(&message.facts))
        .add(i64::from(message.priority))
        .add(message.origin.as_str())
        .add(message.origin_id.as_deref())
        .add(message.upstream.as_deref())
        .add(rows::millis(message.accepted))
        .add(*body);
}

fn bind_recipient(
    script: &mut Script,
    (id, seq, message, recipient): &(i64, i64, &NewMessage, &NewRecipient),
) {
    let held = message.hold.is_some();
    let status = if held { Status::Held } else { Status::Queued };
    script
        .add(*id)
        .add(*seq)
        .add(recipient.recipient.to_string())
        .add(recipient.destination.as_str())
        .add(-i64::from(message.priority))
        .add(rows::status_number(status))
        .add((!held).then(|| rows::millis(recipient.due)))
        .add(rows::millis(recipient.expires))
        .add(recipient.notice.map(rows::millis))
        .add(0_i64)
        .add((!held).then_some(fresh::NEW))
        .add(message.hold.as_deref().map(rows::line));
}
