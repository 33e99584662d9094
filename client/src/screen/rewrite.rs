//! A mail with other header fields, written into the store once more.

use std::sync::Arc;

use lightpost_intake::{Spool, SpoolError, StoredBody, spool};
use lightpost_mail::lines::{BareLineEnds, Canonicaliser};
use lightpost_queue::{Store, StoreError};

use crate::accept::{Refusal, Spooled};

/// The mail with other octets (whole fields, each with its CRLF) instead of its first `replaced`; the body that it had is removed.
///
/// # Errors
/// It cannot be stored; the body that it had is still there.
pub(super) async fn with_front(
    store: &Arc<dyn Store>,
    body: &StoredBody,
    front: &[u8],
    replaced: usize,
    spooled: Spooled,
) -> Result<Spooled, Refusal> {
    let mut writer = Writer::new(store);
    writer.push(front).await?;
    let mut offset = replaced as u64;
    loop {
        let piece = body.read(offset).await?;
        if piece.is_empty() {
            break;
        }
        offset += piece.len() as u64;
        writer.push(&piece).await?;
    }
    let written = writer.finish(&spooled).await?;
    spool::discard_new(&**store, &spooled.body).await;
    Ok(written)
}

/// Writes a canonical mail and learns the facts about it anew.
struct Writer {
    spool: Spool,
    canonical: Canonicaliser,
    scratch: Vec<u8>,
}

impl Writer {
    fn new(store: &Arc<dyn Store>) -> Self {
        Self {
            // What was read was within the limit; what is added is ours.
            spool: Spool::new(store.clone(), u64::MAX),
            canonical: Canonicaliser::new(BareLineEnds::Normalise),
            scratch: Vec::new(),
        }
    }

    async fn push(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        self.scratch.clear();
        // Never an error: bare line ends are normalised, and there are none.
        let _ = self.canonical.push(octets, &mut self.scratch);
        self.spool.push(&self.scratch).await.map_err(refused)
    }

    async fn finish(mut self, spooled: &Spooled) -> Result<Spooled, Refusal> {
        self.scratch.clear();
        let facts = self.canonical.finish(&mut self.scratch);
        self.spool.push(&self.scratch).await.map_err(refused)?;
        Ok(Spooled {
            body: self.spool.finish().await.map_err(refused)?,
            facts: facts.unwrap_or(spooled.facts),
            ..spooled.clone()
        })
    }
}

fn refused(error: SpoolError) -> Refusal {
    match error {
        SpoolError::Store(error) => error.into(),
        SpoolError::TooLarge(_) => StoreError::Other {
            path: String::new(),
            cause: error.to_string(),
        }
        .into(),
    }
}
