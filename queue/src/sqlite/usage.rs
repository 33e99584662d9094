//! Daily allowances: looked at and used up in the transaction that stores the mail, so that no two submissions get the same room.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row;

use super::{rows, tx::Tx};
use crate::{Charge, Over, Subject, Submission};

/// Seconds of a day; allowances begin anew at midnight UTC.
const DAY: i64 = 86_400;
/// Rows of earlier days that one purge removes at most.
const PURGED: i64 = 4096;

pub(super) const USED: &str = "SELECT u.kind, u.name, u.messages, u.octets FROM json_each(?1) AS j CROSS JOIN usage AS u \
    ON u.day = ?2 AND u.kind = j.value ->> 0 AND u.name = j.value ->> 1";
const STORE: &str = "INSERT INTO usage (day, kind, name, messages, octets) \
    SELECT ?2, j.value ->> 0, j.value ->> 1, j.value ->> 2, j.value ->> 3 FROM json_each(?1) AS j WHERE true \
    ON CONFLICT (day, kind, name) DO UPDATE SET messages = excluded.messages, octets = excluded.octets";
const PURGE: &str = "DELETE FROM usage WHERE (day, kind, name) IN \
    (SELECT day, kind, name FROM usage WHERE day < ?1 LIMIT ?2)";

type Key = (i64, String);

/// What is used up, as it will be when the transaction is committed.
#[derive(Default)]
pub(super) struct Usage {
    used: BTreeMap<Key, (u64, u64)>,
    changed: BTreeSet<Key>,
}

impl Usage {
    /// Reads what the subjects of these submissions have used up today; no statement where nothing is charged.
    pub(super) async fn load(tx: &mut Tx<'_>, submissions: &[&Submission]) -> Result<Self, sqlx::Error> {
        let subjects: BTreeSet<(i64, &str)> = submissions
            .iter()
            .flat_map(|submission| &submission.charges)
            .map(|charge| (charge.subject as i64, charge.name.as_str()))
            .collect();
        let mut usage = Self::default();
        if subjects.is_empty() {
            return Ok(usage);
        }
        let found = sqlx::query(USED)
            .bind(rows::json(&subjects.into_iter().collect::<Vec<_>>())?)
            .bind(day(tx))
            .fetch_all(&mut *tx.connection)
            .await?;
        for row in &found {
            let (messages, octets): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
            usage.used.insert(
                (row.try_get(0)?, row.try_get(1)?),
                (messages.unsigned_abs(), octets.unsigned_abs()),
            );
        }
        Ok(usage)
    }

    /// Uses up what a submission needs: all of it or, when one allowance does not suffice, nothing.
    pub(super) fn take(&mut self, charges: &[Charge]) -> Result<(), Over> {
        for charge in charges {
            let (messages, octets) = self.used.get(&key(charge)).copied().unwrap_or_default();
            let over = |used: u64, more: u64, most: Option<u64>| {
                most.is_some_and(|most| used.saturating_add(more) > most)
            };
            if over(messages, charge.messages, charge.most_messages)
                || over(octets, charge.octets, charge.most_octets)
            {
                return Err(Over {
                    subject: charge.subject,
                    name: charge.name.clone(),
                });
            }
        }
        for charge in charges {
            let used = self.used.entry(key(charge)).or_default();
            used.0 = used.0.saturating_add(charge.messages);
            used.1 = used.1.saturating_add(charge.octets);
            self.changed.insert(key(charge));
        }
        Ok(())
    }

    /// Writes what was used up.
    pub(super) async fn store(self, tx: &mut Tx<'_>) -> Result<(), sqlx::Error> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let rows: Vec<(i64, &str, i64, i64)> = self
            .changed
            .iter()
            .filter_map(|key| Some((key, self.used.get(key)?)))
            .map(|((kind, name), (messages, octets))| {
                (
                    *kind,
                    name.as_str(),
                    rows::integer(*messages),
                    rows::integer(*octets),
                )
            })
            .collect();
        sqlx::query(STORE)
            .bind(rows::json(&rows)?)
            .bind(day(tx))
            .execute(&mut *tx.connection)
            .await?;
        Ok(())
    }
}

/// Removes what was used up on earlier days.
pub(super) async fn purge(tx: &mut Tx<'_>) -> Result<(), sqlx::Error> {
    sqlx::query(PURGE)
        .bind(day(tx))
        .bind(PURGED)
        .execute(&mut *tx.connection)
        .await?;
    Ok(())
}

fn day(tx: &Tx<'_>) -> i64 {
    tx.now.as_second().div_euclid(DAY)
}

fn key(charge: &Charge) -> Key {
    (charge.subject as i64, charge.name.clone())
}

const _: () = assert!(Subject::Sender as i64 == 0 && Subject::Destination as i64 == 1);
