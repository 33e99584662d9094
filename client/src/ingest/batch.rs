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
    Ingestion, Upload,
    accept::{Judged, LOOP, Receipt, Said, is_loop, loop_detail},
};

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
        let one = ingestion.judge(envelope);
        let prefix = (!one.taken.is_empty()).then(|| ingestion.received(&one));
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
    let (messages, reply) = outcome(ingestion, batch, judged, upload.key.as_deref()).await;
    if messages.is_empty() {
        return Ok(reply);
    }
    upload.enqueue(digest, messages, reply).await
}

/// The messages that are taken, and what is said about all of them.
async fn outcome(
    ingestion: &Ingestion,
    batch: Batch,
    judged: Vec<Judged>,
    key: Option<&str>,
) -> (Vec<NewMessage>, StoredReply) {
    let (mut messages, mut receipts) = (Vec::new(), Vec::new());
    for (transaction, mut judged) in batch.transactions.into_iter().zip(judged) {
        judged.said.extend(
            transaction
                .bad
                .iter()
                .map(|bad| Said::bad(&bad.argument, &bad.error)),
        );
        if is_loop(transaction.hops) && transaction.body.is_some() {
            receipts.push(refuse_loop(ingestion, transaction).await);
        } else if let Some(body) = transaction.body {
            let (message, receipt) = judged.message(&transaction.envelope, body, transaction.facts, key);
            messages.push(message);
            receipts.push(receipt);
        } else {
            receipts.push(Receipt {
                id: None,
                recipients: judged.said,
            });
        }
    }
    let reply = match batch.error {
        Some(error) => {
            let problem = Problem::from(error).with_member("messages", json!(receipts));
            StoredReply {
                status: problem.status.as_u16(),
                body: problem.document(),
            }
        }
        None if messages.is_empty() => {
            let problem = Problem::unprocessable("every recipient is refused")
                .with_code(EnhancedCode::new(5, 1, 0))
                .with_member("messages", json!(receipts));
            StoredReply {
                status: problem.status.as_u16(),
                body: problem.document(),
            }
        }
        None => StoredReply {
            status: StatusCode::ACCEPTED.as_u16(),
            body: json!({ "messages": receipts }).to_string().into_bytes(),
        },
    };
    (messages, reply)
}

async fn refuse_loop(ingestion: &Ingestion, transaction: Transaction) -> Receipt {
    if let Some(body) = &transaction.body {
        lightpost_intake::spool::discard_new(&*ingestion.store, body).await;
    }
    let detail = loop_detail(transaction.hops);
    let recipients = transaction
        .envelope
        .recipients
        .iter()
        .map(|recipient| Said::refused(recipient.address.as_str(), LOOP, detail.clone()))
        .collect();
    Receipt { id: None, recipients }
}
