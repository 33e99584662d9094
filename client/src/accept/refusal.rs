//! Why a recipient or a mail is not taken, in the words of both interfaces.

use std::{fmt, time::Duration};

use http::StatusCode;
use lightpost_intake::Problem;
use lightpost_mail::{EnhancedCode, envelope::ArgumentError};
use lightpost_queue::StoreError;
use lightpost_smtp::Reply;

use super::BodyError;

/// When a caller of REST may come back after a refusal for now that names no time.
const LATER: Duration = Duration::from_secs(60);

/// A refusal of one recipient or of a whole mail. For good or for now: the class of its code says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The reply code of SMTP, of the same class as `code`.
    pub(crate) reply: u16,
    /// The enhanced status code.
    pub(crate) code: EnhancedCode,
    /// What is wrong and, where there is something to do, what. One line.
    pub(crate) text: String,
    /// When to try again, where that is known.
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal; `reply` and `code` are of the same class.
    pub(crate) fn new(reply: u16, code: EnhancedCode, text: impl Into<String>) -> Self {
        debug_assert_eq!(reply / 100, u16::from(code.class));
        Self {
            reply,
            code,
            text: text.into(),
            retry_after: None,
        }
    }

    /// Whether trying again is of no use.
    pub(crate) fn is_permanent(&self) -> bool {
        self.code.is_permanent()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.reply, self.code, self.text)
    }
}

impl From<Refusal> for Problem {
    /// 413 for size, 403 for policy, 422 for what else is refused for good; 507 for room, 429 for policy and 503 for what else is refused for now.
    fn from(refusal: Refusal) -> Self {
        let status = match (refusal.is_permanent(), refusal.code.subject, refusal.code.detail) {
            (true, 3, 4) => StatusCode::PAYLOAD_TOO_LARGE,
            (true, 7, _) => StatusCode::FORBIDDEN,
            (true, ..) => StatusCode::UNPROCESSABLE_ENTITY,
            (false, 3, 1) => StatusCode::INSUFFICIENT_STORAGE,
            (false, 7, 1) => StatusCode::TOO_MANY_REQUESTS,
            (false, ..) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let problem = Self::new(status, refusal.text).with_code(refusal.code);
        if refusal.code.is_permanent() {
            return problem;
        }
        problem.with_retry_after(refusal.retry_after.unwrap_or(LATER))
    }
}

impl From<StoreError> for Refusal {
    /// Paths and causes stay in our log.
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the outbox cannot be used");
        match error {
            StoreError::Full { .. } => Self::new(
                452,
                EnhancedCode::new(4, 3, 1),
                format!("the disk is full{}; the mail was not stored", error.lack()),
            ),
            _ => Self::new(
                451,
                EnhancedCode::new(4, 3, 0),
                "the outbox cannot be written; the mail was not stored",
            ),
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Bare(_) => Self::new(554, EnhancedCode::new(5, 6, 0), error.to_string()),
            BodyError::TooLarge(_) => Self::new(552, EnhancedCode::new(5, 3, 4), error.to_string()),
            BodyError::Store(error) => error.into(),
        }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: refusal.reply,
            enhanced: Some(refusal.code),
            text: refusal.text,
        }
    }
}

impl From<&ArgumentError> for Refusal {
    /// Of the argument of RCPT.
    fn from(error: &ArgumentError) -> Self {
        Self::new(550, error.code(), error.to_string())
    }
}
