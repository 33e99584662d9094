//! A body that is stored and that no message refers to yet, read in pieces.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body::Frame;
use lightpost_queue::{NewBody, Store, StoreError};

/// A body that no message refers to yet.
#[derive(Clone)]
pub struct StoredBody {
    store: Arc<dyn Store>,
    body: NewBody,
    /// Its octets.
    pub size: u64,
}

impl StoredBody {
    /// A body of `size` octets.
    pub fn new(store: Arc<dyn Store>, body: &NewBody, size: u64) -> Self {
        Self {
            store,
            body: body.clone(),
            size,
        }
    }

    /// What is stored from `offset` on: some octets, none at the end.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(&self, offset: u64) -> Result<Bytes, StoreError> {
        match &self.body {
            NewBody::Inline(octets) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(octets.len());
                Ok(octets.slice(start..))
            }
            NewBody::Spooled(body) => self.store.read_body(*body, offset).await,
        }
    }

    /// The header section with the empty line behind it; no more than its first `most` octets.
    ///
    /// # Errors
    /// The store's.
    pub async fn headers(&self, most: usize) -> Result<Vec<u8>, StoreError> {
        let mut headers = Vec::new();
        loop {
            let piece = self.read(headers.len() as u64).await?;
            // The empty line may lie on both sides of a seam.
            let from = headers.len().saturating_sub(3);
            headers.extend_from_slice(&piece);
            let rest = headers.get(from..).unwrap_or_default();
            let end = memchr::memmem::find(rest, b"\r\n\r\n").map(|position| from + position + 4);
            let end = end.filter(|end| *end <= most);
            if end.is_some() || piece.is_empty() || headers.len() >= most {
                headers.truncate(end.unwrap_or(most));
                return Ok(headers);
            }
        }
    }

    /// The whole body as frames of a request.
    pub fn frames(&self) -> impl Stream<Item = Result<Frame<Bytes>, StoreError>> + Send + use<> {
        stream::try_unfold((self.clone(), 0_u64), |(body, offset)| async move {
            let piece = body.read(offset).await?;
            let next = offset + piece.len() as u64;
            Ok((!piece.is_empty()).then(|| (Frame::data(piece), (body, next))))
        })
    }
}
