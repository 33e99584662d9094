//! What an operator asks of a queue and does to it, over HTTP. The same routes serve outbox and inbox.

pub mod metrics;
#[cfg(test)]
mod tests;
mod unchanged;

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{
        Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, header};
use lightpost_clock::Clock;
use lightpost_queue::{Filter, MessageView, Operation, Status, Store, StoreError, Totals};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use self::metrics::Measured;
pub use self::unchanged::Unchanged;
use crate::{Problem, Tokens, drained};

/// Messages in one page of a listing, unless fewer are asked for; asking for more is refused.
pub const PAGE: usize = 1000;
const DEFAULT_PAGE: usize = 100;
/// Messages that are named where an id stands for several.
const SEVERAL: usize = 100;

/// What the routes need.
#[derive(Clone)]
pub struct Operator {
    /// The queue.
    pub store: Arc<dyn Store>,
    /// For the times of operations.
    pub clock: Clock,
    /// Who may ask; everybody when `None` (loopback, Unix socket).
    pub tokens: Option<Arc<Tokens>>,
    /// What has figures beside the queue's.
    pub measured: Option<Arc<dyn Measured>>,
}

/// Who asks: the token's name, or `operator`. Put into the request's extensions by [`guard`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(pub Arc<str>);

/// One page of a listing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page {
    /// In order of id.
    pub messages: Vec<MessageView>,
    /// What to pass as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Ulid>,
}

/// What an operation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Recipients that it fitted.
    pub changed: u64,
    /// Recipients that it did not fit, and why; those that are done only when it fitted none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchanged: Vec<Unchanged>,
}

/// `GET /v1/messages`, `GET /v1/messages/{id}`, `POST /v1/messages/{id}/{operation}`, `GET /v1/totals`, `GET /v1/health`, `GET /metrics`,
/// all behind [`guard`]. Has no fallback; can be merged with further routes of the same paths.
pub fn routes(operator: Operator) -> Router {
    let tokens = operator.tokens.clone();
    let router = Router::new()
        .route("/v1/messages", get(list))
        .route("/v1/messages/{id}", get(show))
        .route("/v1/messages/{id}/{operation}", post(operate))
        .route("/v1/totals", get(totals))
        .route("/v1/health", get(health))
        .route("/metrics", get(metrics::metrics))
        .with_state(operator);
    guard(router, tokens)
}

/// Lets only callers with one of `tokens` pass (everybody when `None`) and tells the handlers who it is by [`Caller`]. Who is
/// refused can read why, see [`drained`].
pub fn guard(router: Router, tokens: Option<Arc<Tokens>>) -> Router {
    let guarded = router.layer(from_fn_with_state(tokens, authenticate));
    drained(guarded, Clock::system())
}

async fn authenticate(
    State(tokens): State<Option<Arc<Tokens>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match &tokens {
        None => "operator",
        Some(tokens) => match tokens.caller(request.headers()) {
            Some(name) => name,
            None => {
                return Problem::unauthorized("send a known bearer token in Authorization").into_response();
            }
        },
    };
    let caller = Caller(caller.into());
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// A fallback that answers 404 with a problem document.
pub async fn not_found(request: Request) -> Problem {
    Problem::not_found(format!(
        "there is nothing at {}",
        request.uri().path().escape_debug()
    ))
}

/// A fallback that answers 405 with a problem document.
pub async fn method_not_allowed(request: Request) -> Problem {
    let detail = format!(
        "{} is not possible at {}",
        request.method(),
        request.uri().path().escape_debug()
    );
    Problem::new(http::StatusCode::METHOD_NOT_ALLOWED, detail)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    status: Option<Status>,
    destination: Option<String>,
    sender: Option<String>,
    known_as: Option<String>,
    after: Option<Ulid>,
    limit: Option<usize>,
}

async fn list(
    State(operator): State<Operator>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(query) = query.map_err(|error| {
        let text = error.body_text();
        Problem::bad_request(text.trim_start_matches("Failed to deserialize query string: "))
    })?;
    let limit = query.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=PAGE).contains(&limit) {
        return Err(Problem::bad_request(format!(
            "limit is a number from 1 to {PAGE}"
        )));
    }
    // One more than asked for tells whether there is a next page.
    let filter = Filter {
        status: query.status,
        destination: query.destination.map(|domain| domain.to_ascii_lowercase()),
        sender: query.sender,
        known_as: query.known_as,
        after: query.after,
        limit: limit + 1,
    };
    let mut messages = operator.store.list(filter).await?;
    let more = messages.len() > limit;
    messages.truncate(limit);
    let next = messages.last().filter(|_| more).map(|message| message.id);
    Ok(Json(Page { messages, next }))
}

async fn show(
    State(operator): State<Operator>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<MessageView>, Problem> {
    let Path(text) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    if let Ok(id) = Ulid::from_string(&text)
        && let Some(message) = operator.store.message(id).await?
    {
        return Ok(Json(message));
    }
    let message = operator.store.message(known(&operator, &text).await?).await?;
    message.map(Json).ok_or_else(|| unknown(&text))
}

/// The one message that is known by `text`, which is not its own id.
async fn known(operator: &Operator, text: &str) -> Result<Ulid, Problem> {
    let filter = Filter {
        known_as: Some(text.to_owned()),
        limit: SEVERAL,
        ..Filter::default()
    };
    match operator.store.list(filter).await?.as_slice() {
        [only] => Ok(only.id),
        [] => Err(unknown(text)),
        more => Err(several(text, more)),
    }
}

async fn operate(
    State(operator): State<Operator>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Changed>, Problem> {
    let Path((text, operation)) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let operation = match operation.as_str() {
        "retry" => Operation::Retry,
        "hold" => Operation::Hold,
        "release" => Operation::Release,
        "cancel" => Operation::Cancel,
        other => {
            return Err(Problem::not_found(format!(
                "there is no operation {}; use retry, hold, release or cancel",
                other.escape_debug()
            )));
        }
    };
    let apply = async |id| -> Result<Option<Changed>, StoreError> {
        let now = operator.clock.now();
        let Some(changed) = operator.store.operate(id, operation, now, &caller.0).await? else {
            return Ok(None);
        };
        let message = operator.store.message(id).await?;
        let unchanged = message.map(|message| unchanged::unchanged(&message, operation, changed));
        Ok(Some(Changed {
            changed,
            unchanged: unchanged.unwrap_or_default(),
        }))
    };
    if let Ok(id) = Ulid::from_string(&text)
        && let Some(changed) = apply(id).await?
    {
        return Ok(Json(changed));
    }
    let changed = apply(known(&operator, &text).await?).await?;
    changed.map(Json).ok_or_else(|| unknown(&text))
}

async fn totals(State(operator): State<Operator>) -> Result<Json<Totals>, Problem> {
    Ok(Json(operator.store.totals().await?))
}

async fn health(State(operator): State<Operator>) -> Result<Response, Problem> {
    // Who may ask this may know where the queue is, and needs to.
    operator.store.check().await.map_err(|error| {
        let detail = error.to_string();
        Problem {
            detail,
            ..error.into()
        }
    })?;
    let mut response = Json(serde_json::json!({ "status": "ok" })).into_response();
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn several(name: &str, known: &[MessageView]) -> Problem {
    let ids: Vec<String> = known.iter().map(|message| message.id.to_string()).collect();
    let detail = format!(
        "{} stands for several messages; ask for one of them",
        name.escape_debug()
    );
    Problem::new(http::StatusCode::CONFLICT, detail).with_member("messages", serde_json::json!(ids))
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!(
        "there is no message {}; it may have been done and removed",
        id.escape_debug()
    ))
}
