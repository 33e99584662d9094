//! Problem documents (RFC 9457): the one form in which both HTTP interfaces say what is wrong.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use lightpost_mail::{
    EnhancedCode,
    bsmtp::decode::{ContentTypeError, DecodeError, DecodeErrorKind},
    envelope::ArgumentError,
};
use lightpost_queue::StoreError;
use serde_json::{Map, Value, json};

/// When a caller may try again after the store could not take its mail.
const STORE_RETRY: Duration = Duration::from_secs(60);

/// Where in a request body something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Octet of the decoded body, from 0.
    pub offset: u64,
    /// Transaction, from 1; absent where the body holds one mail only.
    pub transaction: Option<usize>,
}

/// A problem document.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// `type`: `about:blank` or a URN of ours.
    pub kind: &'static str,
    /// Always the same for one `kind` and status.
    pub title: &'static str,
    /// What is wrong with this request and, where there is something to do, what.
    pub detail: String,
    /// `code`: the enhanced status code that SMTP would answer.
    pub code: Option<EnhancedCode>,
    /// `line`, `offset`, `transaction`.
    pub place: Option<Box<Place>>,
    /// The `Retry-After` field.
    pub retry_after: Option<Duration>,
    /// Further members: `accepted`, `refused`.
    pub members: Option<Box<Map<String, Value>>>,
}

impl Problem {
    /// A problem of the type `about:blank`, whose title is the status' own.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Problem"),
            detail: detail.into(),
            code: None,
            place: None,
            retry_after: None,
            members: None,
        }
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401, with the challenge for a bearer token.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail).with_code(EnhancedCode::new(5, 7, 0))
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail).with_code(EnhancedCode::new(5, 7, 1))
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 409: an `Idempotency-Key` that was used before for other content.
    pub fn key_conflict(key: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            format!("the key {key} was used before for other content; use a new one for new content"),
        )
        .of_kind("urn:lightpost:problem:key-conflict", "Key used for other content")
    }

    /// 413.
    pub fn too_large(what: &str, limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("{what} exceeds the limit of {limit} octets"),
        )
        .with_code(EnhancedCode::new(5, 3, 4))
    }

    /// 415.
    pub fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).with_code(EnhancedCode::new(5, 6, 1))
    }

    /// 422.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// 425 (RFC 8470 section 5.2).
    pub fn too_early() -> Self {
        Self::new(
            StatusCode::TOO_EARLY,
            "a request in early data without Idempotency-Key could be a recording, and the handshake did not end; send it again",
        )
        .with_code(EnhancedCode::new(4, 7, 0))
    }

    /// 429.
    pub fn too_many(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
            .with_code(EnhancedCode::new(4, 4, 5))
            .with_retry_after(retry_after)
    }

    /// 503.
    pub fn unavailable(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            .with_code(EnhancedCode::new(4, 3, 0))
            .with_retry_after(retry_after)
    }

    /// With a type and title of our own.
    #[must_use]
    pub fn of_kind(mut self, kind: &'static str, title: &'static str) -> Self {
        (self.kind, self.title) = (kind, title);
        self
    }

    /// With the enhanced status code that SMTP would answer.
    #[must_use]
    pub fn with_code(mut self, code: EnhancedCode) -> Self {
        self.code = Some(code);
        self
    }

    /// With the place of the error.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(Box::new(place));
        self
    }

    /// With a `Retry-After` field.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// With a further member.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: Value) -> Self {
        self.members
            .get_or_insert_default()
            .insert(name.to_owned(), value);
        self
    }

    /// The document as JSON, as it is sent and as it is stored for repeats.
    pub fn document(&self) -> Vec<u8> {
        let mut object = json!({
            "type": self.kind,
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(object) = object.as_object_mut() {
            if let Some(code) = self.code {
                object.insert("code".into(), code.to_string().into());
            }
            if let Some(place) = &self.place {
                object.insert("line".into(), place.line.into());
                object.insert("offset".into(), place.offset.into());
                if let Some(transaction) = place.transaction {
                    object.insert("transaction".into(), transaction.into());
                }
            }
            object.extend(self.members.iter().flat_map(|members| (**members).clone()));
        }
        object.to_string().into_bytes()
    }
}

/// The media type of problem documents.
pub const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.document()).into_response();
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, MEDIA_TYPE);
        if let Some(wait) = self.retry_after {
            // Never zero: a caller would come back at once.
            let seconds = wait.as_secs().max(1);
            fields.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    /// 507 when the disk is full, else 503; both can be tried again. Paths and causes stay in our log.
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the queue cannot be used");
        match error {
            StoreError::Full { .. } => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                format!(
                    "the disk is full{}; nothing of this request was stored",
                    error.lack()
                ),
            )
            .with_code(EnhancedCode::new(4, 3, 1))
            .with_retry_after(STORE_RETRY),
            _ => Self::unavailable(
                "the queue cannot be written; nothing of this request was stored",
                STORE_RETRY,
            ),
        }
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        let (status, code) = match &error.kind {
            DecodeErrorKind::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, EnhancedCode::new(5, 3, 4)),
            DecodeErrorKind::Mail(argument) => (StatusCode::UNPROCESSABLE_ENTITY, argument.sender_code()),
            _ => (StatusCode::BAD_REQUEST, EnhancedCode::new(5, 5, 0)),
        };
        let place = Place {
            line: error.line,
            offset: error.offset,
            transaction: Some(error.transaction),
        };
        Self::new(status, error.to_string())
            .of_kind(
                "urn:lightpost:problem:batch-smtp",
                "Not an acceptable Batch SMTP object",
            )
            .with_code(code)
            .at(place)
    }
}

impl From<ArgumentError> for Problem {
    fn from(error: ArgumentError) -> Self {
        Self::unprocessable(error.to_string())
            .of_kind("urn:lightpost:problem:envelope", "Not an acceptable envelope")
            .with_code(error.code())
    }
}

impl From<ContentTypeError> for Problem {
    fn from(error: ContentTypeError) -> Self {
        Self::unsupported(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use lightpost_queue::Shortage;

    use super::*;

    #[test]
    fn documents_carry_place_code_and_members() {
        let problem = Problem::bad_request("cut off")
            .with_code(EnhancedCode::new(5, 5, 0))
            .at(Place {
                line: 7,
                offset: 120,
                transaction: Some(2),
            })
            .with_member("accepted", json!(["a"]));
        let value: Value = serde_json::from_slice(&problem.document()).unwrap();
        assert_eq!(
            value,
            json!({"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "cut off", "code": "5.5.0",
                "line": 7, "offset": 120, "transaction": 2, "accepted": ["a"]})
        );
    }

    #[test]
    fn a_full_disk_is_507_and_can_be_tried_again() {
        let full = StoreError::Full {
            path: "/secret/place".into(),
            shortage: Some(Shortage {
                file_system: "/secret".into(),
                free: 1 << 20,
                wanted: 9 << 20,
            }),
        };
        let problem = Problem::from(full);
        assert_eq!(
            problem.detail,
            "the disk is full (1.0 MiB free, 9.0 MiB wanted, 8.0 MiB short); nothing of this request was stored"
        );
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::INSUFFICIENT_STORAGE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "60");
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        for other in [
            StoreError::ReadOnly {
                path: "/secret".into(),
                cause: "x".into(),
            },
            StoreError::Damaged {
                path: "/secret".into(),
                cause: "x".into(),
            },
            StoreError::Newer {
                path: "/secret".into(),
                found: 9,
                known: 1,
            },
            StoreError::Other {
                path: "/secret".into(),
                cause: "x".into(),
            },
        ] {
            let problem = Problem::from(other);
            assert_eq!(problem.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(!problem.detail.contains("secret") && problem.retry_after.is_some());
        }
    }

    #[test]
    fn retry_after_is_never_zero() {
        let response = Problem::too_many("busy", Duration::from_millis(3)).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
