//! Taking a Batch SMTP object apart while it arrives: a list of transactions whose bodies are spooled.
//!
//! Transactions that were complete before an error still count (RFC 2442 wants each message processed once, and a processor
//! to resume behind the last complete one), so an error does not replace the list: it stands beside it.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::StatusCode;
use lightpost_mail::{
    EnhancedCode, Envelope,
    bsmtp::decode::{DecodeError, Decoder, Event, Limits, LineEnds},
    envelope::ArgumentError,
    lines::{BareLineEnds, BodyFacts, Canonicaliser},
    trace::{Hops, hops},
};
use lightpost_queue::{NewBody, Store};

use crate::{
    BodyReader, Problem, ReadDigest, ReadError, Spool, SpoolError,
    spool::{CHUNK, discard_new},
};

/// Octets of a header section that are searched for hops.
const HEADERS: usize = 64 * 1024;
/// Octets of finished bodies that one object may keep in memory; further ones go to the store even if small.
const INLINE: usize = 4 * CHUNK;
/// Recipients of one object at most, as a multiple of those of one transaction: each of them costs memory and a row, and
/// a compressed object names many of them in few octets.
const CROWD: usize = 10;
/// Hops after which a mail runs in circles. Peers refuse at 30 to 100.
const MOST_HOPS: usize = 50;

/// Whether a mail with these hops runs in circles: our own name counts double.
pub fn is_loop(hops: &Hops) -> bool {
    hops.received + hops.own.len() > MOST_HOPS
}

/// A recipient that could not be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecipient {
    /// Line of the object, from 1.
    pub line: u64,
    /// The argument of RCPT.
    pub argument: String,
    /// Why it is refused.
    pub error: ArgumentError,
}

/// A complete transaction.
#[derive(Debug)]
pub struct Transaction {
    /// Its place in the object, from 1.
    pub number: usize,
    /// Its envelope; recipients may be missing when all were bad.
    pub envelope: Envelope,
    /// Recipients that could not be parsed.
    pub bad: Vec<BadRecipient>,
    /// Its canonical body with the prefix before it; `None` when the caller did not want it.
    pub body: Option<NewBody>,
    /// What is known about the body, prefix included.
    pub facts: BodyFacts,
    /// The hops in its header section, prefix not included.
    pub hops: Hops,
}

/// Why an object was not read to its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BatchError {
    /// It is not Batch SMTP.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// All of its transactions together have too many recipients.
    #[error("the object has more than {0} recipients; send the rest as another one")]
    Recipients(usize),
    /// It did not arrive whole.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It could not be stored.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl From<BatchError> for Problem {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Decode(error) => error.into(),
            BatchError::Recipients(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
                .with_code(EnhancedCode::new(5, 5, 3)),
            BatchError::Read(error) => error.into(),
            BatchError::Spool(error) => error.into(),
        }
    }
}

/// What an object held.
#[derive(Debug)]
pub struct Batch {
    /// The transactions that were complete, in order.
    pub transactions: Vec<Transaction>,
    /// Why there may be more that were not. After [`BatchError::Decode`] and [`BatchError::Recipients`] the rest of the object
    /// was read for its digest.
    pub error: Option<BatchError>,
    /// The digest of the whole object; `None` when it did not arrive whole.
    pub digest: Option<ReadDigest>,
}

impl Batch {
    /// Removes every spooled body: nothing of the object is wanted.
    pub async fn discard(&self, store: &dyn Store) {
        for body in self.transactions.iter().filter_map(|one| one.body.as_ref()) {
            discard_new(store, body).await;
        }
    }
}

/// How an object is taken apart.
#[derive(Clone, Copy, Debug)]
pub struct BatchSettings<'a> {
    /// Which line ends it may use.
    pub line_ends: LineEnds,
    /// Bounds on commands, recipients, transactions, bodies.
    pub limits: Limits,
    /// Our name, for counting our own hops.
    pub name: &'a str,
}

/// Reads an object to its end. `prefix` is asked for each envelope: what to put before the body (our Received field, with its
/// CRLF), or `None` when the transaction is refused anyway and its body not wanted.
pub async fn receive(
    reader: &mut BodyReader,
    store: &Arc<dyn Store>,
    settings: BatchSettings<'_>,
    prefix: impl Fn(&Envelope) -> Option<String> + Send,
) -> Batch {
    let mut work = Work {
        store,
        settings,
        prefix,
        done: Vec::new(),
        current: None,
        recipients: 0,
        inline: INLINE,
    };
    let error = work.run(reader).await.err();
    if let Some(current) = work.current.take()
        && let Some(spool) = current.spool
    {
        spool.abort().await;
    }
    if matches!(error, Some(BatchError::Decode(_) | BatchError::Recipients(_))) {
        // The digest identifies the request; a body that does not even arrive has none.
        if let Err(later) = reader.drain().await {
            tracing::debug!(%later, "the rest of a faulty object did not arrive");
        }
    }
    Batch {
        transactions: work.done,
        error,
        digest: reader.digest(),
    }
}

struct Work<'a, P> {
    store: &'a Arc<dyn Store>,
    settings: BatchSettings<'a>,
    prefix: P,
    done: Vec<Transaction>,
    current: Option<Current>,
    /// Recipients so far, refused ones included.
    recipients: usize,
    /// Octets that finished bodies may still keep in memory.
    inline: usize,
}

/// A transaction that is being read.
struct Current {
    envelope: Envelope,
    bad: Vec<BadRecipient>,
    headers: Vec<u8>,
    canonical: Canonicaliser,
    spool: Option<Spool>,
    out: Vec<u8>,
}

impl<P: Fn(&Envelope) -> Option<String> + Send> Work<'_, P> {
    async fn run(&mut self, reader: &mut BodyReader) -> Result<(), BatchError> {
        let mut decoder = Decoder::new(self.settings.line_ends, self.settings.limits);
        let mut events = Vec::new();
        while let Some(chunk) = reader.next().await? {
            let result = decoder.push(&chunk, &mut events);
            self.take(&mut events).await?;
            result?;
        }
        let result = decoder.finish(&mut events);
        self.take(&mut events).await?;
        Ok(result?)
    }

    async fn take(&mut self, events: &mut Vec<Event>) -> Result<(), BatchError> {
        for event in events.drain(..) {
            match event {
                Event::Envelope(envelope) => self.begin(envelope).await?,
                Event::BadRecipient {
                    line,
                    argument,
                    error,
                } => {
                    self.count(1)?;
                    if let Some(current) = &mut self.current {
                        current.bad.push(BadRecipient {
                            line,
                            argument,
                            error,
                        });
                    }
                }
                Event::Body(octets) => {
                    if let Some(current) = &mut self.current {
                        current.body(&octets).await?;
                    }
                }
                Event::End => self.end().await?,
                Event::Quit => {}
            }
        }
        Ok(())
    }

    fn count(&mut self, recipients: usize) -> Result<(), BatchError> {
        let most = self.settings.limits.recipients.saturating_mul(CROWD);
        self.recipients += recipients;
        if self.recipients > most {
            return Err(BatchError::Recipients(most));
        }
        Ok(())
    }

    async fn begin(&mut self, envelope: Envelope) -> Result<(), BatchError> {
        self.count(envelope.recipients.len())?;
        let prefix = (self.prefix)(&envelope);
        let mut current = Current {
            envelope,
            bad: Vec::new(),
            headers: Vec::new(),
            canonical: Canonicaliser::new(BareLineEnds::Normalise),
            spool: None,
            out: Vec::new(),
        };
        if let Some(prefix) = prefix {
            // The limit is the decoder's, over the mail as it was sent; what we add may exceed it.
            let limit = self.settings.limits.body.saturating_add(prefix.len() as u64);
            let mut spool = Spool::with_inline(self.store.clone(), limit, self.inline);
            // A normalising machine refuses nothing.
            let _ = current.canonical.push(prefix.as_bytes(), &mut current.out);
            spool.push(&current.out).await?;
            current.out.clear();
            current.spool = Some(spool);
        }
        self.current = Some(current);
        Ok(())
    }

    async fn end(&mut self) -> Result<(), BatchError> {
        let Some(mut current) = self.current.take() else {
            return Ok(());
        };
        current.out.clear();
        let facts = current.canonical.finish(&mut current.out).unwrap_or_default();
        let body = match current.spool {
            None => None,
            Some(mut spool) => {
                spool.push(&current.out).await?;
                Some(spool.finish().await?)
            }
        };
        if let Some(NewBody::Inline(octets)) = &body {
            self.inline = self.inline.saturating_sub(octets.len());
        }
        self.done.push(Transaction {
            number: self.done.len() + 1,
            hops: hops(&current.headers, self.settings.name),
            envelope: current.envelope,
            bad: current.bad,
            body,
            facts,
        });
        Ok(())
    }
}

impl Current {
    async fn body(&mut self, octets: &[u8]) -> Result<(), BatchError> {
        let room = HEADERS - self.headers.len();
        self.headers
            .extend_from_slice(octets.get(..octets.len().min(room)).unwrap_or_default());
        let Some(spool) = &mut self.spool else {
            return Ok(());
        };
        self.out.clear();
        let _ = self.canonical.push(octets, &mut self.out);
        spool.push(&self.out).await?;
        Ok(())
    }
}

/// A summary of refused recipients for a reply: address (or argument), enhanced code, text.
pub fn bad_recipient_json(bad: &BadRecipient) -> serde_json::Value {
    serde_json::json!({
        "recipient": bad.argument,
        "line": bad.line,
        "code": bad.error.code().to_string(),
        "detail": bad.error.to_string(),
    })
}
