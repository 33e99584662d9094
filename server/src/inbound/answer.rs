//! What a peer is answered, now and when it repeats.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use lightpost_intake::{Problem, problem};
use lightpost_mail::EnhancedCode;
use lightpost_queue::StoredReply;
use serde_json::{Value, json};

use super::judge::{Decision, Judged};

/// The answer to an object that was judged.
#[derive(Debug)]
pub(super) enum Answer {
    /// 202; a document only when a recipient was refused.
    Accepted(Option<Value>),
    /// A problem that tells what was accepted all the same.
    Refused(Problem),
}

impl Answer {
    /// From what became of each transaction, and why the object ended before its end.
    pub(super) fn new(judged: &[Judged], error: Option<Problem>) -> Self {
        let all = || judged.iter().flat_map(|one| &one.recipients);
        let accepted = all().any(|recipient| recipient.refusal.is_none());
        if let Some(problem) = error {
            return Self::Refused(if judged.is_empty() {
                problem
            } else {
                with_members(problem, judged)
            });
        }
        if !accepted {
            return Self::Refused(with_members(nothing_accepted(judged), judged));
        }
        let refused = all().any(|recipient| recipient.refusal.is_some());
        Self::Accepted(
            refused.then(|| json!({ "messages": messages(judged), "recipients": recipients(judged) })),
        )
    }

    /// The answer as it is kept for repeats.
    pub(super) fn stored(&self) -> StoredReply {
        match self {
            Self::Accepted(document) => StoredReply {
                status: StatusCode::ACCEPTED.as_u16(),
                body: document
                    .as_ref()
                    .map(|document| document.to_string().into_bytes())
                    .unwrap_or_default(),
            },
            Self::Refused(problem) => StoredReply {
                status: problem.status.as_u16(),
                body: problem.document(),
            },
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Accepted(_) => again(&self.stored()),
            Self::Refused(problem) => problem.into_response(),
        }
    }
}

/// A stored answer, given again.
pub(super) fn again(reply: &StoredReply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::ACCEPTED);
    let mut response = (status, reply.body.clone()).into_response();
    let fields = response.headers_mut();
    if reply.body.is_empty() {
        fields.remove(header::CONTENT_TYPE);
    } else if status.is_success() {
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    } else {
        fields.insert(header::CONTENT_TYPE, problem::MEDIA_TYPE);
    }
    response
}

/// 422 with the first reason's code. Never 403, which says that the peer itself is not let in: it would hold back all of its
/// mail for the sake of one sender.
fn nothing_accepted(judged: &[Judged]) -> Problem {
    let first = judged
        .iter()
        .flat_map(|one| &one.recipients)
        .find_map(|recipient| recipient.refusal.clone());
    let (code, text) = first.unwrap_or((EnhancedCode::new(5, 5, 1), "there is no recipient".into()));
    Problem::unprocessable(format!("no recipient was accepted: {text}"))
        .of_kind("urn:lightpost:problem:no-recipient", "No recipient was accepted")
        .with_code(code)
}

fn with_members(problem: Problem, judged: &[Judged]) -> Problem {
    problem
        .with_member("accepted", messages(judged))
        .with_member("recipients", recipients(judged))
}

/// The transactions that were accepted, with their ids.
fn messages(judged: &[Judged]) -> Value {
    judged
        .iter()
        .filter_map(|one| Some(json!({ "transaction": one.number, "id": one.id?.to_string() })))
        .collect()
}

/// The refused recipients of every transaction, in order. Those that were accepted are not listed, so that the answer to an
/// object with many recipients stays short.
fn recipients(judged: &[Judged]) -> Value {
    let mut list = Vec::new();
    for one in judged {
        for Decision { address, refusal } in &one.recipients {
            let Some((code, text)) = refusal else { continue };
            let mut entry = json!({
                "address": address,
                "status": "refused",
                "code": code.to_string(),
                "detail": text,
            });
            if let (true, Some(entry)) = (judged.len() > 1, entry.as_object_mut()) {
                entry.insert("transaction".into(), one.number.into());
            }
            list.push(entry);
        }
    }
    list.into()
}
