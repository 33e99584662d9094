//! One or several mails as `application/batch-SMTP`.

use std::sync::Mutex;

use http::StatusCode;
use lightpost_intake::{
    Batch, BatchError, BatchSettings, BodyReader, Problem, Transaction, receive as read_object,
};
use lightpost_mail::{
    EnhancedCode, Envelope,
    bsmtp::decode::{Limits, LineEnds},
};
use lightpost_queue::{NewMessage, StoredReply};
use serde_json::json;

use super::{
    Upload,
    accept::{Judged, Receipt, Said, judge},
};
use crate::accept::{Refusal, Source, Spooled};

pub(super) async fn receive(upload: &Upload<'_>, mut reader: BodyReader) -> Result<StoredReply, Problem> {
    let ingestion = upload.ingestion;
    if upload.uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(Problem::bad_request(
            "a Batch SMTP object carries its envelopes itself; send no query",
        ));
    }
    if upload.repeated {
        reader.drain().await?;
        let digest = upload.digest(&reader)?;
        if let Some(reply) = upload.repeat(digest).await? {
            return Ok(reply);
        }
        return Err(Problem::unavailable("send the request again", super::CROWDED));
    }
    let source = Source::rest();
    // Each envelope is judged once, when its body begins: the trace field needs the message's id.
    let judged = Mutex::new(Vec::new());
    let settings = BatchSettings {
        line_ends: LineEnds::Detect,
        limits: Limits {
            recipients: ingestion.config.ingest.max_recipients,
            body: ingestion.config.ingest.max_message,
            ..Limits::default()
        },
        name: &ingestion.config.name,
    };
    let batch = read_object(&mut reader, &ingestion.store, settings, |envelope: &Envelope| {
        let one = judge(ingestion, envelope);
        let taken = !one.draft.taken.is_empty();
        let prefix = taken.then(|| one.draft.received(&source, &ingestion.config.name));
        if let Ok(mut all) = judged.lock() {
            all.push(one);
        }
        prefix
    })
    .await;
    let judged = judged.into_inner().unwrap_or_default();
    let digest = match upload.digest(&reader) {
        Ok(digest) => digest,
        Err(problem) => {
            // What did not arrive whole cannot be recognised when it is repeated, so nothing of it may count.
            batch.discard(&*ingestion.store).await;
            return Err(batch.error.map_or(problem, Problem::from));
        }
    };
    if let Some(error @ (BatchError::Spool(_) | BatchError::Read(_))) = batch.error {
        for transaction in &batch.transactions {
            if let Some(body) = &transaction.body {
                lightpost_intake::spool::discard_new(&*ingestion.store, body).await;
            }
        }
        return Err(error.into());
    }
    let (messages, reply) = outcome(upload, batch, judged, &source).await;
    if messages.is_empty() {
        return Ok(reply);
    }
    upload.enqueue(digest, messages, reply).await
}

/// The messages that are taken, and what is said about all of them.
async fn outcome(
    upload: &Upload<'_>,
    batch: Batch,
    judged: Vec<Judged>,
    source: &Source,
) -> (Vec<NewMessage>, StoredReply) {
    let (mut messages, mut receipts) = (Vec::new(), Vec::new());
    for (transaction, mut judged) in batch.transactions.into_iter().zip(judged) {
        judged.said.extend(
            transaction
                .bad
                .iter()
                .map(|bad| Said::bad(&bad.argument, &bad.error)),
        );
        match take(upload, transaction, judged, source).await {
            Ok((message, receipt)) => {
                messages.extend(message);
                receipts.push(receipt);
            }
            Err((envelope, refusal)) => receipts.push(Receipt::refused(&envelope, &refusal)),
        }
    }
    let problem = match batch.error {
        Some(error) => Problem::from(error),
        None if messages.is_empty() => none_taken(&receipts),
        None => {
            let reply = StoredReply {
                status: StatusCode::ACCEPTED.as_u16(),
                body: json!({ "messages": receipts }).to_string().into_bytes(),
            };
            return (messages, reply);
        }
    };
    let problem = problem.with_member("messages", json!(receipts));
    let reply = StoredReply {
        status: problem.status.as_u16(),
        body: problem.document(),
    };
    (messages, reply)
}

/// One mail of the object: a message, where a recipient was taken.
async fn take(
    upload: &Upload<'_>,
    transaction: Transaction,
    judged: Judged,
    source: &Source,
) -> Result<(Option<NewMessage>, Receipt), (Envelope, Refusal)> {
    let Some(body) = transaction.body else {
        let receipt = Receipt {
            id: None,
            recipients: judged.said,
        };
        return Ok((None, receipt));
    };
    let (envelope, draft) = (transaction.envelope, judged.draft);
    let spooled = Spooled::new(body, transaction.facts, transaction.hops);
    let spooled = match upload
        .ingestion
        .message(&draft, source, &envelope.sender, spooled)
        .await
    {
        Ok(spooled) => spooled,
        Err(refusal) => return Err((envelope, refusal)),
    };
    let receipt = Receipt {
        id: Some(draft.id),
        recipients: judged.said,
    };
    let message = draft.message(source, envelope.sender, spooled, upload.key.clone());
    Ok((Some(message), receipt))
}

/// Every recipient of every mail is refused; for now, if one of them is.
fn none_taken(receipts: &[Receipt]) -> Problem {
    const DETAIL: &str = "every recipient is refused";
    let mut said = receipts.iter().flat_map(|receipt| &receipt.recipients);
    match said.find(|said| said.is_for_now()) {
        Some(said) => {
            let code = said.code.parse().unwrap_or(EnhancedCode::new(4, 0, 0));
            Problem::unavailable(DETAIL, super::REFUSED_FOR_NOW).with_code(code)
        }
        None => Problem::unprocessable(DETAIL).with_code(EnhancedCode::new(5, 1, 0)),
    }
}
