//! Where mail comes in: `POST /v1/messages` here, SMTP and LMTP in [`smtp`].
//!
//! A 202 says "on disk here": it is sent after the synced commit that stores the messages together with this very answer, so that
//! a caller whose connection broke learns the same by repeating the request with its `Idempotency-Key`.

mod accept;
mod batch;
mod rfc822;
pub(crate) mod smtp;

#[cfg(test)]
mod tests;

use std::{ops::Deref, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use lightpost_clock::add;
use lightpost_intake::{
    BodyReader, Encoding, Problem, ReadLimits, Tokens, fields, operator,
    operator::{Caller, Operator, metrics::Measured},
    problem,
};
use lightpost_mail::bsmtp;
use lightpost_queue::{Enqueued, NewMessage, RequestKey, StoredReply, Submission};
use tokio::sync::Semaphore;

use crate::accept::Acceptance;

/// When a caller may come back after it met too many others.
const CROWDED: Duration = Duration::from_secs(2);
/// When a caller may come back after every recipient was refused, not all of them for good.
const REFUSED_FOR_NOW: Duration = Duration::from_secs(60);

/// What ingestion needs.
pub(crate) struct Ingestion {
    acceptance: Arc<Acceptance>,
    uploads: Semaphore,
}

impl Deref for Ingestion {
    type Target = Acceptance;
    fn deref(&self) -> &Acceptance {
        &self.acceptance
    }
}

/// The routes of ingestion together with those for the operator.
pub(crate) fn router(acceptance: Arc<Acceptance>, measured: Arc<dyn Measured>) -> Router {
    let settings = &acceptance.config.ingest;
    let tokens: Option<Arc<Tokens>> = settings.tokens.clone().map(Arc::new);
    let operator = Operator {
        store: acceptance.store.clone(),
        clock: acceptance.clock.clone(),
        tokens: tokens.clone(),
        measured: Some(measured),
    };
    let ingestion = Arc::new(Ingestion {
        uploads: Semaphore::new(settings.concurrency),
        acceptance,
    });
    let submit = Router::new()
        .route("/v1/messages", post(submit))
        .with_state(ingestion);
    operator::guard(submit, tokens)
        .merge(operator::routes(operator))
        .fallback(operator::not_found)
        .method_not_allowed_fallback(operator::method_not_allowed)
}

async fn submit(
    State(ingestion): State<Arc<Ingestion>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let Ok(_place) = ingestion.uploads.try_acquire() else {
        return Err(Problem::too_many("too many uploads at once", CROWDED));
    };
    let (parts, body) = request.into_parts();
    let (upload, reader) = Upload::open(&ingestion, &parts.headers, parts.uri, &caller, body).await?;
    let content_type = fields::content_type(&parts.headers)?;
    let media_type = fields::media_type(content_type);
    let outcome = if media_type == "message/rfc822" || media_type == "message/global" {
        rfc822::receive(&upload, reader).await?
    } else if media_type.eq_ignore_ascii_case(bsmtp::MEDIA_TYPE) {
        bsmtp::decode::check_content_type(content_type, EXTENSIONS)?;
        batch::receive(&upload, reader).await?
    } else {
        return Err(Problem::unsupported(format!(
            "the media type {} is not taken; send message/rfc822 or application/batch-SMTP",
            media_type.escape_debug()
        )));
    };
    Ok(answer(&outcome))
}

/// What a Batch SMTP object from a local MTA may require.
const EXTENSIONS: &[&str] = &[
    "8BITMIME",
    "SIZE",
    "DSN",
    "SMTPUTF8",
    "MT-PRIORITY",
    "DELIVERBY",
    "ENHANCEDSTATUSCODES",
];

/// A stored answer as a response, given for the first time or again.
fn answer(reply: &StoredReply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = if status.is_success() {
        HeaderValue::from_static("application/json")
    } else {
        problem::MEDIA_TYPE
    };
    let mut response = (status, reply.body.clone()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A request, but for its body.
struct Upload<'a> {
    ingestion: &'a Ingestion,
    uri: Uri,
    claimed: fields::Digests,
    key: Option<String>,
    scope: String,
    /// Whether the key was used before: only the digest of the body is wanted then.
    repeated: bool,
}

impl<'a> Upload<'a> {
    async fn open(
        ingestion: &'a Ingestion,
        headers: &HeaderMap,
        uri: Uri,
        caller: &Caller,
        body: Body,
    ) -> Result<(Self, BodyReader), Problem> {
        let limit = ingestion.config.ingest.max_message;
        let key = fields::idempotency_key(headers)?;
        let encoding = fields::encoding(headers)?;
        let claimed = fields::digests(headers, encoding)?;
        let length = fields::content_length(headers);
        if encoding == Encoding::Identity && length.is_some_and(|length| length > wire_limit(limit)) {
            return Err(Problem::too_large("the body", wire_limit(limit)));
        }
        let limits = ReadLimits {
            octets: wire_limit(limit),
            idle: ingestion.config.ingest.idle,
        };
        let mut reader = BodyReader::new(body, encoding, limits, ingestion.clock.clone())?;
        if key.is_none() && claimed == fields::Digests::default() {
            reader = reader.without_digest();
        }
        let scope = format!("ingest:{}", caller.0);
        let repeated = match &key {
            Some(key) => ingestion.store.find_reply(&scope, key, None).await?.is_some(),
            None => false,
        };
        let upload = Self {
            ingestion,
            uri,
            claimed,
            key,
            scope,
            repeated,
        };
        Ok((upload, reader))
    }

    /// The answer to a request whose key was used before, once its body is read.
    async fn repeat(&self, digest: Option<[u8; 32]>) -> Result<Option<StoredReply>, Problem> {
        let (Some(key), Some(digest)) = (&self.key, digest) else {
            return Ok(None);
        };
        match self
            .ingestion
            .store
            .find_reply(&self.scope, key, Some(digest))
            .await?
        {
            Some(Enqueued::Repeat(reply)) => Ok(Some(reply)),
            Some(Enqueued::Conflict) => Err(Problem::key_conflict(key)),
            Some(Enqueued::Stored | Enqueued::Over(_)) | None => Ok(None),
        }
    }

    /// Stores messages and answer; the answer of the first request when this is a repeat.
    async fn enqueue(
        &self,
        digest: Option<[u8; 32]>,
        messages: Vec<NewMessage>,
        reply: StoredReply,
    ) -> Result<StoredReply, Problem> {
        let now = self.ingestion.clock.now();
        let key = self.key.clone().zip(digest).map(|(key, digest)| RequestKey {
            scope: self.scope.clone(),
            key,
            digest,
            expires: add(now, self.ingestion.config.ingest.remember),
        });
        let charges = self.ingestion.charges(&messages);
        let submission = Submission {
            charges,
            key,
            reply: reply.clone(),
            messages,
        };
        match self.ingestion.enqueue(submission).await? {
            Enqueued::Stored => Ok(reply),
            Enqueued::Repeat(first) => Ok(first),
            Enqueued::Over(over) => Err(self.ingestion.over(&over).into()),
            Enqueued::Conflict => Err(Problem::key_conflict(self.key.as_deref().unwrap_or_default())),
        }
    }

    /// The digest of a body that was read to its end, held against what the request claims; `None` when neither a key nor a claim
    /// asks for it.
    fn digest(&self, reader: &BodyReader) -> Result<Option<[u8; 32]>, Problem> {
        if !reader.is_whole() {
            return Err(Problem::bad_request("the body did not arrive whole"));
        }
        let digest = reader.digest();
        if let Some(digest) = &digest {
            digest.check(&self.claimed)?;
        }
        Ok(digest.map(|digest| digest.sha256))
    }
}

/// Octets that a request may have for a mail of `limit` octets: commands and dot-stuffing come on top.
fn wire_limit(limit: u64) -> u64 {
    limit.saturating_add(limit / 64).saturating_add(1_000_000)
}
