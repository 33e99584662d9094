//! What an open exchange carried: for answers that come when nobody waits for them any more.

use std::collections::HashMap;

use sqlx::{Row, SqliteConnection};

use super::claim;
use crate::{ClaimedMessage, ExchangeName};

pub(super) const BY_ID: &str = "SELECT e.id, e.message, e.gateway, e.name, e.terms, e.recipients, e.begun, e.until, e.custody \
    FROM exchange AS e WHERE e.id = ?1 AND e.closed IS NULL";
pub(super) const BY_CUSTODY: &str = "SELECT e.id, e.message, e.gateway, e.name, e.terms, e.recipients, e.begun, e.until, e.custody \
    FROM exchange AS e WHERE e.custody = ?1 AND e.closed IS NULL";
/// The body is not looked at.
pub(super) const MESSAGE: &str = "SELECT m.id, m.sender, m.size, m.longest_line, m.flags, m.priority, m.origin, m.origin_id, \
    m.upstream, m.accepted, m.body, NULL AS data FROM message AS m WHERE m.seq = ?1";
pub(super) const RECIPIENTS: &str = "SELECT r.id, r.argument, r.destination, r.attempts, r.expires, ?2 AS exchange \
    FROM json_each(?1) AS j CROSS JOIN recipient AS r ON r.id = j.value WHERE r.status < 4 ORDER BY r.id";

/// The message of an exchange to which an answer still matters, with the recipients to whom it does.
pub(super) async fn exchange(
    connection: &mut SqliteConnection,
    name: ExchangeName<'_>,
) -> Result<Option<ClaimedMessage>, sqlx::Error> {
    let found = match name {
        ExchangeName::Id(id) => {
            let id = id.to_bytes();
            let query = sqlx::query(BY_ID).bind(&id[..]);
            query.fetch_optional(&mut *connection).await?
        }
        ExchangeName::Custody(name) => {
            let query = sqlx::query(BY_CUSTODY).bind(name);
            query.fetch_optional(&mut *connection).await?
        }
    };
    let Some(found) = found else { return Ok(None) };
    let open = claim::open_exchange(&found)?;
    let (message, carried): (i64, String) = (found.try_get("message")?, found.try_get("recipients")?);
    let id = open.id.to_bytes();
    let waiting = sqlx::query(RECIPIENTS)
        .bind(carried)
        .bind(&id[..])
        .fetch_all(&mut *connection)
        .await?;
    if waiting.is_empty() {
        return Ok(None);
    }
    let row = sqlx::query(MESSAGE)
        .bind(message)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut message = claim::claimed(&row)?;
    let exchanges = HashMap::from([(open.id, open)]);
    let recipients = waiting.iter().map(|row| claim::recipient(row, &exchanges));
    message.recipients = recipients.collect::<Result<_, _>>()?;
    debug_assert!(message.recipients.iter().all(|one| one.exchange.is_some()));
    Ok(Some(message))
}
