//! Taking a body into the store while it arrives: small ones stay in memory until they are stored with their message, large
//! ones go to the store in chunks, so that memory does not grow with mail.

use std::sync::Arc;

use bytes::Bytes;
use lightpost_queue::{BodyId, NewBody, Store, StoreError};

use crate::Problem;

/// Octets that stay in memory, and the size of a stored chunk.
pub const CHUNK: usize = 256 * 1024;

/// Why a body was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SpoolError {
    /// It is too large.
    #[error("the mail exceeds the limit of {0} octets")]
    TooLarge(u64),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SpoolError> for Problem {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::TooLarge(limit) => Self::too_large("the mail", limit),
            SpoolError::Store(error) => error.into(),
        }
    }
}

/// A body on its way into the store. Dropped before [`Spool::finish`] it removes what it has stored.
pub struct Spool {
    store: Arc<dyn Store>,
    limit: u64,
    inline: usize,
    buffer: Vec<u8>,
    body: Option<BodyId>,
    size: u64,
}

impl Spool {
    /// Starts a body of at most `limit` octets.
    pub fn new(store: Arc<dyn Store>, limit: u64) -> Self {
        Self::with_inline(store, limit, CHUNK)
    }

    /// Starts a body of which at most `inline` octets (and at most [`CHUNK`]) may stay in memory when it is finished.
    pub fn with_inline(store: Arc<dyn Store>, limit: u64, inline: usize) -> Self {
        Self {
            store,
            limit,
            inline: inline.min(CHUNK),
            buffer: Vec::new(),
            body: None,
            size: 0,
        }
    }

    /// Octets so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes canonical octets.
    ///
    /// # Errors
    /// [`SpoolError`]; the body is of no further use then.
    pub async fn push(&mut self, mut octets: &[u8]) -> Result<(), SpoolError> {
        self.size += octets.len() as u64;
        if self.size > self.limit {
            return Err(SpoolError::TooLarge(self.limit));
        }
        while self.buffer.len() + octets.len() > CHUNK {
            let (fits, rest) = octets.split_at(CHUNK - self.buffer.len());
            self.buffer.extend_from_slice(fits);
            octets = rest;
            self.flush().await?;
        }
        self.buffer.extend_from_slice(octets);
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// [`SpoolError::Store`]
    pub async fn finish(mut self) -> Result<NewBody, SpoolError> {
        if self.body.is_none() && self.buffer.len() <= self.inline {
            return Ok(NewBody::Inline(Bytes::from(std::mem::take(&mut self.buffer))));
        }
        if !self.buffer.is_empty() {
            self.flush().await?;
        }
        match self.body.take() {
            Some(body) => Ok(NewBody::Spooled(body)),
            None => Ok(NewBody::Inline(Bytes::new())),
        }
    }

    /// Gives the body up and removes what was stored of it.
    pub async fn abort(mut self) {
        if let Some(body) = self.body.take() {
            discard(&*self.store, body).await;
        }
    }

    async fn flush(&mut self) -> Result<(), SpoolError> {
        let body = match self.body {
            Some(body) => body,
            None => {
                let body = self.store.begin_body().await?;
                *self.body.insert(body)
            }
        };
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        Ok(self.store.append_body(body, chunk.into()).await?)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        discard_later(&self.store, self.body.take());
    }
}

/// Removes a finished body when it is dropped, unless that is kept.
pub struct Guard {
    store: Arc<dyn Store>,
    body: Option<BodyId>,
}

impl Guard {
    /// Guards a body.
    pub fn new(store: Arc<dyn Store>, body: &NewBody) -> Self {
        let body = match body {
            NewBody::Inline(_) => None,
            NewBody::Spooled(body) => Some(*body),
        };
        Self { store, body }
    }

    /// The body stays.
    pub fn keep(mut self) {
        self.body = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        discard_later(&self.store, self.body.take());
    }
}

/// A request whose peer went away is dropped in the middle; its octets should not wait for the next start.
fn discard_later(store: &Arc<dyn Store>, body: Option<BodyId>) {
    let Some(body) = body else { return };
    let store = store.clone();
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move { discard(&*store, body).await });
    }
}

/// Removes a finished body that no message will refer to.
pub async fn discard_new(store: &dyn Store, body: &NewBody) {
    if let NewBody::Spooled(body) = body {
        discard(store, *body).await;
    }
}

async fn discard(store: &dyn Store, body: BodyId) {
    if let Err(error) = store.discard_body(body).await {
        tracing::warn!(%error, "an unused body stays until the next start");
    }
}

#[cfg(test)]
mod tests {
    use lightpost_clock::Clock;
    use lightpost_queue::sqlite::SqliteStore;

    use super::*;

    async fn store() -> (tempfile::TempDir, Arc<dyn Store>) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("q.db"), Clock::system())
            .await
            .unwrap();
        (folder, Arc::new(store))
    }

    #[tokio::test]
    async fn small_bodies_stay_in_memory_and_large_ones_do_not() {
        let (_folder, store) = store().await;
        for (size, inline, stays) in [
            (0, CHUNK, true),
            (1, 0, false),
            (CHUNK, CHUNK, true),
            (CHUNK + 1, CHUNK, false),
            (5 * CHUNK, CHUNK, false),
        ] {
            for piece in [CHUNK, 100_003] {
                let octets = vec![b'x'; size];
                let mut spool = Spool::with_inline(store.clone(), u64::MAX, inline);
                for part in octets.chunks(piece) {
                    spool.push(part).await.unwrap();
                }
                assert_eq!(spool.size(), size as u64);
                match spool.finish().await.unwrap() {
                    NewBody::Inline(kept) => assert!(stays && kept == octets, "{size} {inline}"),
                    NewBody::Spooled(_) => assert!(!stays, "{size} {inline}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_given_up_is_removed() {
        let (_folder, store) = store().await;
        let mut spool = Spool::new(store.clone(), u64::MAX);
        spool.push(&vec![b'x'; 3 * CHUNK]).await.unwrap();
        let body = spool.body.unwrap();
        spool.abort().await;
        // The body is gone: nothing can be appended to it.
        assert!(store.append_body(body, Bytes::from_static(b"x")).await.is_err());

        let mut spool = Spool::new(store.clone(), 2 * CHUNK as u64);
        let error = spool.push(&vec![b'x'; 3 * CHUNK]).await.unwrap_err();
        assert!(matches!(error, SpoolError::TooLarge(_)));
    }
}
