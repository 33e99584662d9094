//! Outcomes, and exchanges that leave.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use sqlx::{Row, sqlite::SqliteRow};
use ulid::Ulid;

use super::{
    Refused,
    insert::{LARGEST, Script, Table, insert},
    rows::{self, is_done, millis},
    tx::{COLUMNS, Event, Recipient, Tx},
};
use crate::{Disposition, Exchanged, NewExchange, NewMessage, RecipientId, Settlement, Status, WaitReason};

/// The most recipients that one call resumes.
const RESUMED: i64 = 2048;
/// The index's own condition stands beside: only so does SQLite see that the partial index fits.
pub(super) const RESUME: &str = "SELECT r.id, r.message, r.status, r.due, r.attempts, r.reason, r.owner, r.exchange, r.remote, \
    r.detail FROM recipient AS r LEFT JOIN exchange AS e ON e.id = r.exchange \
    WHERE r.status = 3 AND r.status IN (1, 3, 5, 6, 7) AND e.custody IS NULL LIMIT ?1";

const EXCHANGE: Table = Table {
    into: "exchange (id, message, gateway, digest, name, terms, recipients, begun, until)",
    columns: 9,
    suffix: "ON CONFLICT (id) DO UPDATE SET until = excluded.until, \
        begun = iif(closed IS NULL, begun, excluded.begun), closed = NULL, custody = NULL",
};
const CLOSE: &str = "UPDATE exchange SET closed = ?2, refused = refused OR j.value FROM json_each(?1) AS j WHERE exchange.id = unhex(j.key)";
const HELD: &str = "UPDATE exchange SET until = j.value ->> 1, custody = j.value ->> 2 FROM json_each(?1) AS j \
    WHERE exchange.id = unhex(j.value ->> 0)";
const BY_ID: &str =
    "SELECT j.value AS hex, m.seq FROM json_each(?1) AS j CROSS JOIN message AS m ON m.id = unhex(j.value)";

/// Applies the outcomes of several commands in order. What is done already stays as it is: the first outcome counts. Returns for each
/// command the messages of which none of its outcomes counted.
pub(super) async fn settle(
    tx: &mut Tx<'_>,
    commands: &[&[Settlement]],
) -> Result<Vec<BTreeSet<Ulid>>, sqlx::Error> {
    let mut named = Vec::new();
    for settlements in commands {
        named.extend(settlements.iter().map(|settlement| settlement.recipient));
    }
    tx.load(named.into_iter()).await?;
    let mut exchanges = Exchanges::default();
    let mut moot = Vec::with_capacity(commands.len());
    for settlements in commands {
        let (mut counted, mut vain) = (BTreeSet::new(), BTreeSet::new());
        for settlement in *settlements {
            let known = tx.recipient(settlement.recipient.0);
            let message = known.and_then(|known| known.message_id);
            let of = match settle_one(tx, settlement, &mut exchanges) {
                true => &mut counted,
                false => &mut vain,
            };
            of.extend(message);
        }
        moot.push(&vain - &counted);
    }
    let Exchanges { closed, held } = exchanges;
    if !closed.is_empty() {
        sqlx::query(CLOSE)
            .bind(rows::json(&closed)?)
            .bind(millis(tx.now))
            .execute(&mut *tx.connection)
            .await?;
    }
    if !held.is_empty() {
        sqlx::query(HELD)
            .bind(rows::json(&held)?)
            .execute(&mut *tx.connection)
            .await?;
    }
    Ok(moot)
}

/// What outcomes mean for exchanges.
#[derive(Default)]
struct Exchanges {
    /// Their ids, in hexadecimal digits, and whether an answer closed them.
    closed: BTreeMap<String, bool>,
    /// With the time until which a reply is awaited, and what the carrier calls them.
    held: Vec<(String, i64, String)>,
}

/// Applies an outcome, if it counts; whether it does.
fn settle_one(tx: &mut Tx<'_>, settlement: &Settlement, exchanges: &mut Exchanges) -> bool {
    let id = settlement.recipient.0;
    let Some(before) = tx
        .recipient(id)
        .filter(|before| fits(before.status, &settlement.disposition))
    else {
        return false;
    };
    let (message, exchange) = (before.message, before.exchange.map(rows::hex));
    match (&settlement.disposition, exchange) {
        (
            Disposition::Retry {
                exchange: how @ (Exchanged::Closed | Exchanged::Refused),
                ..
            },
            Some(exchange),
        ) => {
            exchanges.closed.insert(exchange, *how == Exchanged::Refused);
        }
        (Disposition::Awaiting { until, custody }, Some(exchange)) => {
            exchanges
                .held
                .push((exchange, millis(*until), rows::line(custody)));
        }
        _ => {}
    }
    tx.wake |= match &settlement.disposition {
        Disposition::Retry { .. } => true,
        // Whoever sleeps until it was due before has to know.
        Disposition::Awaiting { until, .. } => before.due.is_none_or(|due| millis(*until) < due),
        _ => false,
    };
    tx.change(id, settlement.at, |recipient| apply(recipient, settlement));
    tx.event(Event {
        message,
        recipient: Some(id),
        at: settlement.at,
        kind: settlement.disposition.word(),
        remote: settlement.remote.as_deref().map(rows::line),
        detail: detail(settlement),
    });
    true
}

/// Final outcomes are true whoever waits for them; what only postpones needs somebody who has the recipient.
const fn fits(status: Status, disposition: &Disposition) -> bool {
    match disposition {
        Disposition::Delivered | Disposition::Failed(_) | Disposition::Expired => !is_done(status),
        Disposition::Held(_) => matches!(status, Status::Leased | Status::Awaiting | Status::Queued),
        Disposition::Retry { .. } | Disposition::Awaiting { .. } => {
            matches!(status, Status::Leased | Status::Awaiting)
        }
    }
}

fn apply(recipient: &mut Recipient, settlement: &Settlement) {
    recipient.detail = Some(detail(settlement));
    if let Some(remote) = &settlement.remote {
        recipient.remote = Some(rows::line(remote));
    }
    recipient.reason = None;
    recipient.due = None;
    recipient.status = match &settlement.disposition {
        Disposition::Delivered => Status::Delivered,
        Disposition::Failed(_) => Status::Failed,
        Disposition::Expired => Status::Expired,
        Disposition::Held(_) => Status::Held,
        Disposition::Awaiting { until, .. } => {
            recipient.due = Some(millis(*until));
            Status::Awaiting
        }
        Disposition::Retry {
            due, reason, counted, ..
        } => {
            recipient.due = Some(millis(*due));
            recipient.reason = Some(reason.word().to_owned());
            recipient.attempts += i64::from(*counted);
            Status::Queued
        }
    };
}

fn detail(settlement: &Settlement) -> String {
    let said = &settlement.detail;
    rows::line(&match &settlement.disposition {
        Disposition::Failed(code) if !said.contains(&code.to_string()) => format!("{code} {said}"),
        Disposition::Held(reason) if said.is_empty() => reason.clone(),
        Disposition::Held(reason) if reason != said => format!("{reason}: {said}"),
        Disposition::Retry { reason, .. } if said.is_empty() => reason.word().to_owned(),
        Disposition::Retry { reason, .. } => format!("{}: {said}", reason.word()),
        _ => said.clone(),
    })
}

/// The message that a notification is about (its `origin_id`).
pub(super) fn about(notification: &NewMessage) -> Option<Ulid> {
    Ulid::from_string(notification.origin_id.as_deref()?).ok()
}

/// Writes `notified` into the history of the messages that notifications are about.
pub(super) async fn notified(tx: &mut Tx<'_>, notifications: &[&NewMessage]) -> Result<(), sqlx::Error> {
    let about: HashMap<String, &NewMessage> = notifications
        .iter()
        .filter_map(|message| Some((rows::hex(about(message)?), *message)))
        .collect();
    for (hex, seq) in sequences(tx, &about.keys().cloned().collect()).await? {
        if let Some(notification) = about.get(&hex) {
            tx.event(Event {
                message: seq,
                recipient: None,
                at: notification.accepted,
                kind: "notified",
                remote: None,
                detail: format!(
                    "notification {} to <{}>",
                    notification.id,
                    addressee(notification)
                ),
            });
        }
    }
    Ok(())
}

fn addressee(message: &NewMessage) -> &str {
    message
        .recipients
        .first()
        .map_or("", |recipient| recipient.recipient.address.as_str())
}

async fn sequences(tx: &mut Tx<'_>, ids: &BTreeSet<String>) -> Result<HashMap<String, i64>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let found = sqlx::query(BY_ID)
        .bind(rows::json(ids)?)
        .fetch_all(&mut *tx.connection)
        .await?;
    found
        .iter()
        .map(|row| Ok((row.try_get("hex")?, row.try_get("seq")?)))
        .collect()
}

/// Stores exchanges; each command's are stored together or, when one of its recipients is done already, not at all.
pub(super) async fn begin(
    tx: &mut Tx<'_>,
    commands: &[(&[NewExchange], Timestamp)],
) -> Result<Vec<Result<(), Refused>>, sqlx::Error> {
    let all = commands.iter().flat_map(|(exchanges, _)| *exchanges);
    tx.load(all.flat_map(|exchange| exchange.recipients.iter().copied()))
        .await?;
    let (mut answers, mut stored) = (Vec::with_capacity(commands.len()), Vec::new());
    for (exchanges, at) in commands {
        let seqs: Result<Vec<i64>, Refused> = exchanges
            .iter()
            .map(|exchange| message_of(tx, exchange))
            .collect();
        let seqs = match seqs {
            Ok(seqs) => seqs,
            Err(refused) => {
                answers.push(Err(refused));
                continue;
            }
        };
        for (exchange, seq) in exchanges.iter().zip(seqs) {
            leave(tx, seq, exchange, *at);
            stored.push((exchange, seq, *at, rows::json(&exchange.recipients)?));
        }
        answers.push(Ok(()));
    }
    if stored.len() <= LARGEST {
        let mut script = Script::default();
        script.rows(&EXCHANGE, &stored, bind_exchange);
        tx.defer(script, stored.len()).await?;
    } else {
        insert(tx.connection, &EXCHANGE, &stored, bind_exchange).await?;
    }
    Ok(answers)
}

fn bind_exchange(
    script: &mut Script,
    (exchange, seq, at, recipients): &(&NewExchange, i64, Timestamp, String),
) {
    script
        .add(&exchange.id.to_bytes()[..])
        .add(*seq)
        .add(exchange.gateway.as_str())
        .add(&exchange.digest[..])
        .add(exchange.name.as_str())
        .add(exchange.terms)
        .add(recipients.as_str())
        .add(millis(*at))
        .add(millis(exchange.until));
}

/// The message whose recipients an exchange carries, all of them waiting.
fn message_of(tx: &Tx<'_>, exchange: &NewExchange) -> Result<i64, Refused> {
    let mut message = None;
    for RecipientId(id) in &exchange.recipients {
        let found = tx
            .recipient(*id)
            .filter(|found| found.message_id == Some(exchange.message) && !is_done(found.status));
        let Some(found) = found else {
            return Err(Refused(format!(
                "exchange {}: recipient {id} is done or not of message {}",
                exchange.id, exchange.message
            )));
        };
        message = Some(found.message);
    }
    message.ok_or_else(|| Refused(format!("exchange {} has no recipient", exchange.id)))
}

fn leave(tx: &mut Tx<'_>, seq: i64, exchange: &NewExchange, at: Timestamp) {
    let carried = |RecipientId(id): &RecipientId| {
        tx.recipient(*id)
            .is_some_and(|recipient| recipient.exchange == Some(exchange.id))
    };
    let repeated = exchange.recipients.iter().any(carried);
    for RecipientId(id) in &exchange.recipients {
        tx.change(*id, at, |recipient| {
            recipient.status = Status::Awaiting;
            recipient.due = Some(millis(exchange.until));
            recipient.reason = None;
            recipient.exchange = Some(exchange.id);
            recipient.remote = Some(exchange.gateway.clone());
        });
    }
    tx.event(Event {
        message: seq,
        recipient: exchange
            .recipients
            .first()
            .filter(|_| exchange.recipients.len() == 1)
            .map(|id| id.0),
        at,
        kind: if repeated { "resent" } else { "sent" },
        remote: Some(exchange.gateway.clone()),
        detail: format!("exchange {}", exchange.id),
    });
}

/// Queues again at once what `owner` had leased.
pub(super) async fn recover(tx: &mut Tx<'_>, owner: &str, now: Timestamp) -> Result<u64, sqlx::Error> {
    tx.flush().await?;
    let leased = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM recipient AS r WHERE r.owner = ?1"
    )))
    .bind(owner)
    .fetch_all(&mut *tx.connection)
    .await?;
    let detail = format!("{owner} ended before it knew the outcome");
    interrupted(tx, &leased, now, &detail)
}

/// Queues again at once some of what awaits a reply; the exchanges stay open.
pub(super) async fn resume(tx: &mut Tx<'_>, now: Timestamp) -> Result<u64, sqlx::Error> {
    tx.flush().await?;
    let awaiting = sqlx::query(RESUME)
        .bind(RESUMED)
        .fetch_all(&mut *tx.connection)
        .await?;
    interrupted(
        tx,
        &awaiting,
        now,
        "started anew while a reply was awaited; the exchange is repeated",
    )
}

fn interrupted(
    tx: &mut Tx<'_>,
    found: &[SqliteRow],
    now: Timestamp,
    detail: &str,
) -> Result<u64, sqlx::Error> {
    for row in found {
        let id = tx.remember(row)?;
        let message: i64 = row.try_get("message")?;
        tx.change(id, now, |recipient| {
            recipient.status = Status::Queued;
            recipient.due = Some(millis(now));
            recipient.reason = Some(WaitReason::Interrupted.word().to_owned());
        });
        tx.event(Event {
            message,
            recipient: Some(id),
            at: now,
            kind: "interrupted",
            remote: None,
            detail: detail.to_owned(),
        });
    }
    tx.wake |= !found.is_empty();
    Ok(found.len() as u64)
}
