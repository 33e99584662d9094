//! Rspamd's opinion of a mail: `POST /checkv2`, the body streamed from the store.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use lightpost_clock::Clock;
use lightpost_config::duration_text;
use lightpost_intake::StoredBody;
use lightpost_mail::EnhancedCode;
use lightpost_queue::StoreError;
use serde::Deserialize;

use super::{Mail, origin::Origin};
use crate::{accept::Refusal, config};

/// Delivery not authorised (RFC 3463), for good and for now.
const REFUSED: EnhancedCode = EnhancedCode::new(5, 7, 1);
const LATER: EnhancedCode = EnhancedCode::new(4, 7, 1);
/// Other or undefined mail system status.
const DOWN: EnhancedCode = EnhancedCode::new(4, 3, 0);
/// Octets of an answer at most.
const ANSWER: usize = 1024 * 1024;
/// Recipients that are named: all of them would not fit into the fields of a request, and a rule asks for one or for "many".
const RECIPIENTS: usize = 100;
/// Characters of a message that are repeated to the sender.
const SHOWN: usize = 200;

/// Asks Rspamd.
pub(super) struct Rspamd {
    settings: config::Rspamd,
    client: Client<HttpConnector, UnsyncBoxBody<Bytes, StoreError>>,
    clock: Clock,
}

/// What follows for a mail that is taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// One line for the history.
    pub(super) note: String,
    /// A header field to add, without its line end.
    pub(super) field: Option<String>,
    /// Why it has to wait for an operator.
    pub(super) hold: Option<String>,
}

/// Why there is no opinion.
#[derive(Debug, thiserror::Error)]
enum RspamdError {
    #[error("no answer within {}", duration_text(*.0))]
    Silent(Duration),
    #[error("{}", causes(.0))]
    Exchange(#[from] hyper_util::client::legacy::Error),
    #[error("the envelope cannot be put into a request: {0}")]
    Request(#[from] http::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("its answer is not what Rspamd says: {0}")]
    Answer(#[from] serde_json::Error),
}

/// What of an answer is used.
#[derive(Debug, Deserialize)]
struct Answer {
    action: String,
    score: Option<f64>,
    required_score: Option<f64>,
    #[serde(default)]
    messages: Messages,
}

#[derive(Debug, Default, Deserialize)]
struct Messages {
    smtp_message: Option<String>,
}

impl Rspamd {
    pub(super) fn new(settings: &config::Rspamd, clock: &Clock) -> Self {
        // A kept connection that Rspamd closes in the same moment would cost an opinion: a streamed body is not sent twice.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build_http();
        Self {
            settings: settings.clone(),
            client,
            clock: clock.clone(),
        }
    }

    /// What becomes of a mail.
    ///
    /// # Errors
    /// It is refused, for good or for now.
    pub(super) async fn judge(
        &self,
        mail: &Mail<'_>,
        name: &str,
        origin: &Origin,
        body: &StoredBody,
    ) -> Result<Verdict, Refusal> {
        if body.size > self.settings.max_size {
            let note = format!(
                "Rspamd was not asked: {} octets, and it sees mails of up to {}",
                body.size, self.settings.max_size
            );
            return Ok(Verdict {
                note,
                ..Verdict::default()
            });
        }
        let asked = self
            .clock
            .timeout(self.settings.timeout, self.ask(mail, name, origin, body));
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(_) => Err(RspamdError::Silent(self.settings.timeout)),
        };
        match answer {
            Ok(answer) => self.obey(&answer),
            Err(error) => {
                tracing::warn!(%error, id = %mail.draft.id, accepted = self.settings.accept_when_down, "Rspamd has no opinion");
                if !self.settings.accept_when_down {
                    return Err(Refusal::new(
                        451,
                        DOWN,
                        "the content cannot be checked now; try again later",
                    ));
                }
                Ok(Verdict {
                    note: format!("taken without Rspamd: {error}"),
                    ..Verdict::default()
                })
            }
        }
    }

    async fn ask(
        &self,
        mail: &Mail<'_>,
        name: &str,
        origin: &Origin,
        body: &StoredBody,
    ) -> Result<Answer, RspamdError> {
        let mut request =
            Request::post(&self.settings.url).body(StreamBody::new(body.frames()).boxed_unsync())?;
        *request.headers_mut() = fields(mail, name, origin)?;
        request
            .headers_mut()
            .insert(header::CONTENT_LENGTH, body.size.into());
        let response = self.client.request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(RspamdError::Status(response.status()));
        }
        let answer = Limited::new(response.into_body(), ANSWER).collect().await;
        Ok(serde_json::from_slice(
            &answer.map_err(RspamdError::Body)?.to_bytes(),
        )?)
    }

    fn obey(&self, answer: &Answer) -> Result<Verdict, Refusal> {
        let text = |otherwise: &str| match &answer.messages.smtp_message {
            Some(text) if !text.trim().is_empty() => printable(text),
            _ => otherwise.to_owned(),
        };
        let number =
            |number: Option<f64>| number.map_or_else(|| "?".to_owned(), |number| format!("{number:.1}"));
        let mut verdict = Verdict {
            note: format!(
                "Rspamd: {}, {} of {}",
                printable(&answer.action),
                number(answer.score),
                number(answer.required_score)
            ),
            ..Verdict::default()
        };
        match answer.action.as_str() {
            // To discard it unseen would be a mail that is acknowledged and gone.
            "reject" | "discard" => return Err(Refusal::new(550, REFUSED, text("the content is unwanted"))),
            "soft reject" => return Err(Refusal::new(451, LATER, text("try again later"))),
            "greylist" if self.settings.greylist => {
                return Err(Refusal::new(451, LATER, text("greylisted; try again later")));
            }
            "add header" | "rewrite subject" => verdict.field = Some(self.settings.header.clone()),
            "quarantine" => {
                verdict.hold = Some(format!("quarantined by Rspamd: {}", text("unwanted content")))
            }
            _ => {}
        }
        Ok(verdict)
    }
}

/// What Rspamd is told about the envelope and the client.
fn fields(mail: &Mail<'_>, name: &str, origin: &Origin) -> Result<HeaderMap, http::Error> {
    let mut fields = HeaderMap::new();
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes());
    let sender = mail.sender.path.address().map_or("", |address| address.as_str());
    fields.insert("from", value(sender)?);
    for recipient in mail.draft.taken.iter().take(RECIPIENTS) {
        fields.append("rcpt", value(recipient.recipient.address.as_str())?);
    }
    fields.insert("queue-id", value(&mail.draft.id.to_string())?);
    fields.insert("mta-name", value(name)?);
    if let Origin::Client { address, helo } = origin {
        fields.insert("ip", value(&address.to_string())?);
        if let Some(helo) = helo {
            fields.insert("helo", value(&printable(helo))?);
        }
    }
    Ok(fields)
}

/// One short line.
fn printable(text: &str) -> String {
    let plain = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    text.trim().chars().take(SHOWN).map(plain).collect()
}

/// An error with those behind it: hyper's own text is "client error".
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
