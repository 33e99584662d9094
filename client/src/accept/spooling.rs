//! A body on its way into the store: made canonical, our trace field in front, its hops counted.

use lightpost_intake::{Spool, SpoolError};
use lightpost_mail::{
    lines::{BareLineEnd, Canonicaliser},
    trace::hops,
};
use lightpost_queue::StoreError;

use super::{Acceptance, Draft, Source, Spooled};

/// Octets of a header section that are searched for hops.
const HEADERS: usize = 64 * 1024;
/// Octets that are made canonical at once.
const PIECE: usize = 64 * 1024;

/// Why a body is not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// A bare CR or LF where they are refused; its place is that in the body without our trace field.
    #[error(transparent)]
    Bare(BareLineEnd),
    /// It is larger than the limit.
    #[error("the mail exceeds the limit of {0} octets")]
    TooLarge(u64),
    /// It cannot be stored.
    #[error(transparent)]
    Store(StoreError),
}

/// Takes a body piece by piece. Dropped before [`Spooling::finish`] it leaves nothing behind.
pub(crate) struct Spooling {
    spool: Spool,
    canonical: Canonicaliser,
    /// The beginning of the canonical body, without our trace field.
    headers: Vec<u8>,
    scratch: Vec<u8>,
    /// Octets and lines of our trace field.
    prefix: (u64, u64),
    limit: u64,
    name: String,
}

impl Spooling {
    /// Starts with our trace field.
    ///
    /// # Errors
    /// [`BodyError`]
    pub(crate) async fn start(
        acceptance: &Acceptance,
        draft: &Draft,
        source: &Source,
    ) -> Result<Self, BodyError> {
        let settings = &acceptance.config.ingest;
        let prefix = draft.received(source, &acceptance.config.name);
        let (octets, lines) = (prefix.len(), prefix.matches('\n').count());
        let limit = settings.max_message;
        let mut spooling = Self {
            spool: Spool::new(acceptance.store.clone(), limit.saturating_add(octets as u64)),
            canonical: Canonicaliser::new(settings.bare_line_ends),
            headers: Vec::new(),
            scratch: Vec::new(),
            prefix: (octets as u64, lines as u64),
            limit,
            name: acceptance.config.name.clone(),
        };
        spooling.take(prefix.as_bytes()).await?;
        // Our own field is no hop that the mail has come.
        spooling.headers.clear();
        Ok(spooling)
    }

    /// Octets of the body as they came.
    ///
    /// # Errors
    /// [`BodyError`]; the body is of no further use then.
    pub(crate) async fn push(&mut self, octets: &[u8]) -> Result<(), BodyError> {
        for piece in octets.chunks(PIECE) {
            self.take(piece).await?;
        }
        Ok(())
    }

    async fn take(&mut self, piece: &[u8]) -> Result<(), BodyError> {
        self.scratch.clear();
        let pushed = self.canonical.push(piece, &mut self.scratch);
        pushed.map_err(|error| placed(self.prefix, error))?;
        let room = HEADERS - self.headers.len();
        let head = self.scratch.get(..self.scratch.len().min(room));
        self.headers.extend_from_slice(head.unwrap_or_default());
        let pushed = self.spool.push(&self.scratch).await;
        pushed.map_err(|error| limited(self.limit, error))
    }

    /// Ends the body.
    ///
    /// # Errors
    /// [`BodyError`]
    pub(crate) async fn finish(mut self) -> Result<Spooled, BodyError> {
        self.scratch.clear();
        let facts = self.canonical.finish(&mut self.scratch);
        let facts = facts.map_err(|error| placed(self.prefix, error))?;
        // What is missing of a header section that ends with the body is its last line end.
        let hops = hops(&self.headers, &self.name);
        let pushed = self.spool.push(&self.scratch).await;
        pushed.map_err(|error| limited(self.limit, error))?;
        let body = self.spool.finish().await;
        let body = body.map_err(|error| limited(self.limit, error))?;
        Ok(Spooled::new(body, facts, hops))
    }
}

fn limited(limit: u64, error: SpoolError) -> BodyError {
    match error {
        SpoolError::TooLarge(_) => BodyError::TooLarge(limit),
        SpoolError::Store(error) => BodyError::Store(error),
    }
}

/// The error's place in what the caller sent: our trace field is not his.
fn placed((octets, lines): (u64, u64), error: BareLineEnd) -> BodyError {
    BodyError::Bare(BareLineEnd {
        line: error.line.saturating_sub(lines),
        offset: error.offset.saturating_sub(octets),
        ..error
    })
}
