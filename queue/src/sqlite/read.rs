//! Reading, beside the writer.
//!
//! Every read is one short statement on one of a few read-only connections, so that no reader keeps the write-ahead log
//! from being emptied for long.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use lightpost_clock::Clock;
use sqlx::{Row, SqliteConnection};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{enqueue, error, open, rows};
use crate::{BodyId, DueDestination, StoreError};

/// Connections, each with a thread of its own.
const READERS: usize = 4;
/// Bodies whose place of reading is remembered.
const PLACES: usize = 4096;

/// The pairs of destination and rank in which something waits: one step of the index per pair.
macro_rules! pairs {
    ($then:literal) => {
        concat!(
            "WITH RECURSIVE pair (id, destination, rank) AS (",
            "SELECT * FROM (SELECT id, destination, rank FROM recipient WHERE due IS NOT NULL AND destination > '' ",
            "ORDER BY destination, rank LIMIT 1) ",
            "UNION ALL SELECT r.id, r.destination, r.rank FROM pair CROSS JOIN recipient AS r ON r.id = ",
            // A comparison of both columns at once would walk all of a destination's rows.
            "coalesce((SELECT n.id FROM recipient AS n WHERE n.due IS NOT NULL AND n.destination = pair.destination ",
            "AND n.rank > pair.rank ORDER BY n.rank LIMIT 1), ",
            "(SELECT n.id FROM recipient AS n WHERE n.due IS NOT NULL AND n.destination > pair.destination ",
            "ORDER BY n.destination, n.rank LIMIT 1))) ",
            $then
        )
    };
}

pub(super) const DUE: &str = pairs!(
    "SELECT destination, min(rank) AS rank FROM pair WHERE EXISTS (SELECT 1 FROM recipient AS w \
     WHERE w.destination = pair.destination AND w.rank = pair.rank AND w.due <= ?1) GROUP BY destination"
);
pub(super) const NEXT_DUE: &str = pairs!(
    "SELECT min((SELECT min(w.due) FROM recipient AS w WHERE w.destination = pair.destination \
     AND w.rank = pair.rank AND w.due IS NOT NULL)) FROM pair"
);
pub(super) const NEXT_DUE_AFTER: &str = pairs!(
    "SELECT min((SELECT min(w.due) FROM recipient AS w WHERE w.destination = pair.destination \
     AND w.rank = pair.rank AND w.due > ?1)) FROM pair"
);
pub(super) const CHUNK: &str = "SELECT start, data FROM chunk WHERE key = ?1";
/// From the last chunk back; only the heads of rows are read.
pub(super) const CHUNK_AT: &str = "SELECT key, start, data FROM chunk WHERE key >= ?1 AND key < ?2 AND start <= ?3 ORDER BY key DESC LIMIT 1";

/// The read-only connections.
pub(super) struct Readers {
    path: PathBuf,
    clock: Clock,
    free: Mutex<Vec<SqliteConnection>>,
    permits: Semaphore,
    /// Where the chunk begins that follows the one read last: sequential readers never search.
    places: Mutex<HashMap<i64, (u64, i64)>>,
}

/// A connection on loan.
pub(super) struct Reader<'a> {
    readers: &'a Readers,
    connection: Option<SqliteConnection>,
    _permit: SemaphorePermit<'a>,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            lock(&self.readers.free).push(connection);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Readers {
    pub(super) fn new(path: &Path, clock: Clock) -> Self {
        Self {
            path: path.to_owned(),
            clock,
            free: Mutex::new(Vec::new()),
            permits: Semaphore::new(READERS),
            places: Mutex::new(HashMap::new()),
        }
    }

    /// Runs `read` on a connection; one on which something failed is not used again.
    pub(super) async fn with<T>(
        &self,
        read: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        let _hold = self.clock.hold();
        let permit = self.permits.acquire().await.map_err(|_| self.closed())?;
        let free = lock(&self.free).pop();
        let connection = match free {
            Some(connection) => connection,
            None => open::reading(&self.path)
                .await
                .map_err(|fault| self.fault(&fault))?,
        };
        let mut reader = Reader {
            readers: self,
            connection: Some(connection),
            _permit: permit,
        };
        let Some(connection) = reader.connection.as_mut() else {
            return Err(self.closed());
        };
        read(connection).await.map_err(|fault| {
            reader.connection = None;
            self.fault(&fault)
        })
    }

    fn fault(&self, fault: &sqlx::Error) -> StoreError {
        error::map(&self.path, fault)
    }

    fn closed(&self) -> StoreError {
        StoreError::Other {
            path: self.path.display().to_string(),
            cause: "the store is closed".to_owned(),
        }
    }

    /// No reads from here on; waits for those under way.
    pub(super) async fn close(&self) {
        let _hold = self.clock.hold();
        if let Ok(all) = self.permits.acquire_many(READERS as u32).await {
            self.permits.close();
            drop(all);
        }
        let free = std::mem::take(&mut *lock(&self.free));
        for connection in free {
            drop(sqlx::Connection::close(connection).await);
        }
    }

    pub(super) async fn due(&self, now: i64) -> Result<Vec<DueDestination>, StoreError> {
        self.with(async |connection| {
            let found = sqlx::query(DUE).bind(now).fetch_all(connection).await?;
            found
                .iter()
                .map(|row| {
                    Ok(DueDestination {
                        destination: row.try_get("destination")?,
                        priority: rows::priority(row.try_get("rank")?),
                    })
                })
                .collect()
        })
        .await
    }

    pub(super) async fn next_due(&self) -> Result<Option<jiff::Timestamp>, StoreError> {
        self.with(async |connection| {
            let next: Option<i64> = sqlx::query_scalar(NEXT_DUE).fetch_one(connection).await?;
            next.map(rows::time).transpose()
        })
        .await
    }

    pub(super) async fn next_due_after(&self, after: i64) -> Result<Option<jiff::Timestamp>, StoreError> {
        self.with(async |connection| {
            let next: Option<i64> = sqlx::query_scalar(NEXT_DUE_AFTER)
                .bind(after)
                .fetch_one(connection)
                .await?;
            next.map(rows::time).transpose()
        })
        .await
    }

    /// The octets from `offset` to the end of the chunk that holds it.
    pub(super) async fn body(&self, body: BodyId, offset: u64) -> Result<Bytes, StoreError> {
        let first = body.0 << enqueue::CHUNK_BITS;
        let place = lock(&self.places).get(&body.0).copied();
        let guess = match place {
            _ if offset == 0 => Some(first),
            Some((start, key)) if start == offset => Some(key),
            _ => None,
        };
        let found = self
            .with(async |connection| {
                let row = match guess {
                    Some(key) => sqlx::query(CHUNK).bind(key).fetch_optional(connection).await?,
                    None => {
                        sqlx::query(CHUNK_AT)
                            .bind(first)
                            .bind((body.0 + 1) << enqueue::CHUNK_BITS)
                            .bind(rows::integer(offset))
                            .fetch_optional(connection)
                            .await?
                    }
                };
                row.map(|row| {
                    let key = guess.map_or_else(|| row.try_get("key"), Ok)?;
                    Ok((
                        key,
                        rows::count(row.try_get("start")?),
                        Bytes::from(row.try_get::<Vec<u8>, _>("data")?),
                    ))
                })
                .transpose()
            })
            .await?;
        let Some((key, start, data)) = found else {
            return Ok(Bytes::new());
        };
        self.remember(body, start + data.len() as u64, key + 1);
        let skip = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
        Ok(data.slice(skip.min(data.len())..))
    }

    fn remember(&self, body: BodyId, next: u64, key: i64) {
        let mut places = lock(&self.places);
        if places.len() >= PLACES {
            places.clear();
        }
        places.insert(body.0, (next, key));
    }
}
