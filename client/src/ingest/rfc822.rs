//! One mail as `message/rfc822`, its envelope in the query.

use http::{StatusCode, Uri};
use lightpost_intake::{BodyReader, Place, Problem, Sha256, spool};
use lightpost_mail::{EnhancedCode, Envelope, Recipient, Sender};
use lightpost_queue::StoredReply;

use super::{
    Upload,
    accept::{Receipt, Said, judge},
};
use crate::accept::{BodyError, Draft, Source, Spooled, Spooling};

/// The envelope as the query has it.
struct Query {
    sender: Sender,
    recipients: Vec<Result<Recipient, Said>>,
}

pub(super) async fn receive(upload: &Upload<'_>, mut reader: BodyReader) -> Result<StoredReply, Problem> {
    let ingestion = upload.ingestion;
    let query = query(&upload.uri, ingestion.config.ingest.max_recipients)?;
    let limit = ingestion.config.ingest.max_message;
    if query.sender.parameters.size.is_some_and(|size| size > limit) {
        return Err(Problem::too_large("the declared SIZE", limit));
    }
    if upload.repeated {
        reader.drain().await?;
        let digest = whole_digest(upload, &reader)?;
        if let Some(reply) = upload.repeat(digest).await? {
            return Ok(reply);
        }
        // The key ran out in this moment, and the body is gone.
        return Err(Problem::unavailable("send the request again", super::CROWDED));
    }
    let envelope = Envelope {
        sender: query.sender,
        recipients: query.recipients.iter().flatten().cloned().collect(),
    };
    let judged = judge(ingestion, &envelope);
    let (draft, said) = (judged.draft, in_order(&query.recipients, judged.said));
    if draft.taken.is_empty() {
        return Err(none_taken(said));
    }
    let source = Source::rest();
    let spooled = read(upload, &mut reader, &draft, &source).await?;
    let digest = match whole_digest(upload, &reader) {
        Ok(digest) => digest,
        Err(problem) => {
            spool::discard_new(&*ingestion.store, &spooled.body).await;
            return Err(problem);
        }
    };
    let spooled = ingestion
        .message(&draft, &source, &envelope.sender, spooled)
        .await?;
    let reply = accepted(&Receipt {
        id: Some(draft.id),
        recipients: said,
    });
    let message = draft.message(&source, envelope.sender, spooled, upload.key.clone());
    upload.enqueue(digest, vec![message], reply).await
}

/// Reads the body into the store, our trace field before it.
async fn read(
    upload: &Upload<'_>,
    reader: &mut BodyReader,
    draft: &Draft,
    source: &Source,
) -> Result<Spooled, Problem> {
    let mut spooling = Spooling::start(upload.ingestion, draft, source)
        .await
        .map_err(problem)?;
    while let Some(chunk) = reader.next().await? {
        spooling.push(&chunk).await.map_err(problem)?;
    }
    spooling.finish().await.map_err(problem)
}

fn problem(error: BodyError) -> Problem {
    match error {
        BodyError::Bare(error) => Problem::bad_request(error.to_string())
            .with_code(EnhancedCode::new(5, 6, 0))
            .at(Place {
                line: error.line,
                offset: error.offset,
                transaction: None,
            }),
        BodyError::TooLarge(limit) => Problem::too_large("the mail", limit),
        BodyError::Store(error) => error.into(),
    }
}

fn query(uri: &Uri, most: usize) -> Result<Query, Problem> {
    let mut sender = None;
    let mut recipients = Vec::new();
    let wrong = |detail: String| Problem::bad_request(detail).with_code(EnhancedCode::new(5, 5, 4));
    for (key, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*key {
            "from" if sender.is_some() => return Err(wrong("`from` stands twice".into())),
            "from" => {
                let text = if value.is_empty() { "<>" } else { &*value };
                let read = text.parse::<Sender>().map_err(|error| {
                    let code = error.sender_code();
                    Problem::from(error).with_code(code)
                })?;
                sender = Some(read);
            }
            "to" if recipients.len() == most => {
                return Err(Problem::unprocessable(format!("more than {most} recipients"))
                    .with_code(EnhancedCode::new(5, 5, 3)));
            }
            "to" => recipients.push(
                value
                    .parse::<Recipient>()
                    .map_err(|error| Said::bad(&value, &error)),
            ),
            other => {
                return Err(wrong(format!(
                    "the query has no `{}`; use from (once) and to (once or more)",
                    other.escape_debug()
                )));
            }
        }
    }
    let sender =
        sender.ok_or_else(|| wrong("`from` is missing; write from=<> for a null reverse-path".into()))?;
    if recipients.is_empty() {
        return Err(wrong("`to` is missing".into()));
    }
    Ok(Query { sender, recipients })
}

/// What is said about all recipients, in the order of the query.
fn in_order(recipients: &[Result<Recipient, Said>], judged: Vec<Said>) -> Vec<Said> {
    let mut judged = judged.into_iter();
    recipients
        .iter()
        .filter_map(|recipient| match recipient {
            Ok(_) => judged.next(),
            Err(said) => Some(said.clone()),
        })
        .collect()
}

fn none_taken(said: Vec<Said>) -> Problem {
    let first = said.iter().find(|said| said.is_for_now()).or(said.first());
    let code = first.and_then(|said| said.code.parse().ok());
    let detail = match said.as_slice() {
        [one] => one.detail.clone(),
        _ => "every recipient is refused".to_owned(),
    };
    let problem = if said.iter().any(Said::is_for_now) {
        Problem::unavailable(detail, super::REFUSED_FOR_NOW)
    } else {
        Problem::unprocessable(detail)
    };
    problem
        .with_code(code.unwrap_or(EnhancedCode::new(5, 1, 0)))
        .with_member("recipients", serde_json::json!(said))
}

fn accepted(receipt: &Receipt) -> StoredReply {
    StoredReply {
        status: StatusCode::ACCEPTED.as_u16(),
        body: serde_json::json!(receipt).to_string().into_bytes(),
    }
}

/// The digest of envelope and body, by which a repeat is recognised; `None` where none is wanted.
fn whole_digest(upload: &Upload<'_>, reader: &BodyReader) -> Result<Option<[u8; 32]>, Problem> {
    Ok(upload.digest(reader)?.map(|body| {
        let mut envelope = Sha256::default();
        for (key, value) in url::form_urlencoded::parse(upload.uri.query().unwrap_or_default().as_bytes()) {
            for part in [&key, &value] {
                envelope.update(&(part.len() as u64).to_be_bytes());
                envelope.update(part.as_bytes());
            }
        }
        let mut whole = Sha256::default();
        whole.update(b"message/rfc822\0");
        whole.update(&envelope.finish());
        whole.update(&body);
        whole.finish()
    }))
}
