//! What is asked of the store.

use std::sync::Arc;

use bytes::Bytes;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteRow};

use super::{Part, Shared, StoreError, Stored, open};

const COLUMNS: &str = "id, key, received, expires, octets, verified, file, data";

/// The connection that reads; made anew after a fault.
pub(super) struct Reader {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Option<SqliteConnection>,
}

impl Reader {
    async fn connection(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        let path = self.shared.path();
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open::reading(&path)
                .await
                .map_err(|error| open::fault(&path, &error))?,
        };
        Ok(self.connection.insert(connection))
    }

    pub(super) async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.close().await);
        }
    }

    /// After a fault the next reader connects anew.
    fn checked<T>(&mut self, found: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        found.map_err(|error| {
            self.connection = None;
            open::fault(&self.shared.path(), &error)
        })
    }

    pub(super) async fn waiting(
        &mut self,
        place: &str,
        rank: u8,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Stored>, StoreError> {
        let text = format!(
            "SELECT {COLUMNS} FROM bundle WHERE place = ? AND rank = ? AND id > ? ORDER BY id LIMIT ?"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(place)
            .bind(i64::from(rank))
            .bind(after)
            .bind(limit)
            .fetch_all(self.connection().await?)
            .await
            .and_then(|rows| rows.into_iter().map(stored).collect());
        self.checked(rows)
    }

    pub(super) async fn outgoing(&mut self, key: &str) -> Result<Option<Stored>, StoreError> {
        let text = format!(
            "SELECT {COLUMNS} FROM bundle WHERE key = ? AND (place = '-' OR substr(place, 1, 2) = 'n:')"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(key)
            .fetch_optional(self.connection().await?)
            .await
            .and_then(|row| row.map(stored).transpose());
        self.checked(row)
    }

    pub(super) async fn expired(&mut self, now: i64, limit: u32) -> Result<Vec<Stored>, StoreError> {
        let text = format!(
            "SELECT {COLUMNS} FROM bundle WHERE expires <= ? AND place IS NOT NULL ORDER BY expires LIMIT ?"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(now)
            .bind(limit)
            .fetch_all(self.connection().await?)
            .await
            .and_then(|rows| rows.into_iter().map(stored).collect());
        self.checked(rows)
    }

    pub(super) async fn parts(&mut self, place: &str, limit: u32) -> Result<Vec<Part>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, key, received, expires, octets, verified, file, NULL, part_offset, part_length
             FROM bundle WHERE place = ? ORDER BY part_offset LIMIT ?",
        )
        .bind(place)
        .bind(limit)
        .fetch_all(self.connection().await?)
        .await
        .and_then(|rows| rows.into_iter().map(part).collect());
        self.checked(rows)
    }

    pub(super) async fn fragmented(&mut self) -> Result<Vec<String>, StoreError> {
        let keys = sqlx::query_scalar(
            "SELECT DISTINCT substr(place, 3) FROM bundle WHERE place >= 'f:' AND place < 'f;'",
        )
        .fetch_all(self.connection().await?)
        .await;
        self.checked(keys)
    }

    pub(super) async fn data(&mut self, id: i64) -> Result<Bytes, StoreError> {
        let data = sqlx::query_scalar::<_, Option<Vec<u8>>>("SELECT data FROM bundle WHERE id = ?")
            .bind(id)
            .fetch_optional(self.connection().await?)
            .await;
        let data = self.checked(data)?.flatten();
        data.map(Bytes::from).ok_or_else(|| StoreError::Fault {
            path: self.shared.path().display().to_string(),
            cause: "the bundle is gone".to_owned(),
        })
    }

    pub(super) async fn count(&mut self, place: &str) -> Result<u64, StoreError> {
        let count = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM bundle WHERE place = ?")
            .bind(place)
            .fetch_one(self.connection().await?)
            .await;
        self.checked(count).map(i64::cast_unsigned)
    }

    /// `i64::MAX` when there is nothing.
    pub(super) async fn next_expiry(&mut self) -> Result<i64, StoreError> {
        let first = sqlx::query_scalar::<_, Option<i64>>("SELECT MIN(expires) FROM bundle")
            .fetch_one(self.connection().await?)
            .await;
        Ok(self.checked(first)?.unwrap_or(i64::MAX))
    }
}

fn part(row: SqliteRow) -> Result<Part, sqlx::Error> {
    let (offset, length) = (row.try_get::<i64, _>(8)?, row.try_get::<i64, _>(9)?);
    Ok(Part {
        stored: stored(row)?,
        offset: offset.cast_unsigned(),
        length: length.cast_unsigned(),
    })
}

#[allow(clippy::needless_pass_by_value)] // what maps rows is given rows
fn stored(row: SqliteRow) -> Result<Stored, sqlx::Error> {
    Ok(Stored {
        id: row.try_get(0)?,
        key: row.try_get(1)?,
        received: row.try_get(2)?,
        expires: row.try_get(3)?,
        octets: row.try_get::<i64, _>(4)?.cast_unsigned(),
        verified: row.try_get(5)?,
        file: row.try_get(6)?,
        data: row.try_get::<Option<Vec<u8>>, _>(7)?.map(Bytes::from),
    })
}
