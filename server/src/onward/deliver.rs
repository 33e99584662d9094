//! One attempt to hand one mail to one server.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream, stream::BoxStream};
use lightpost_intake::Original;
use lightpost_mail::{Envelope, dsn};
use lightpost_queue::{BodyId, ClaimedMessage, ClaimedRecipient, Store};
use lightpost_smtp::send::SmtpError;
use tokio::sync::mpsc;

use super::{
    Shared,
    line::Line,
    outcome::{self, Attempt},
    place::Place,
    settle::Outcome,
};

/// A mail for some of its recipients, on its way to their server.
pub(super) struct Job {
    /// The message; its list of recipients is empty.
    pub(super) message: Arc<ClaimedMessage>,
    /// The recipients that this server takes.
    pub(super) recipients: Vec<ClaimedRecipient>,
    /// The server.
    pub(super) line: Arc<Line>,
    /// Held until the outcome is stored.
    pub(super) place: Place,
}

/// Makes the attempt and passes its outcome on to be stored.
pub(super) async fn run(shared: Arc<Shared>, job: Job, outcomes: mpsc::Sender<Outcome>) {
    let attempt = {
        let permit = tokio::select! {
            biased;
            // What has not begun stays leased, and is queued again at the next start.
            () = shared.stop.cancelled() => return,
            permit = job.line.sessions.acquire() => permit,
        };
        if permit.is_err() {
            return;
        }
        attempt(&shared, &job).await
    };
    let now = shared.clock.now();
    let server = job.line.relay.address.to_string();
    let (settlements, statuses) = outcome::conclude(&job, &attempt, &server, now);
    let original = Original::from(&*job.message);
    let statuses: Vec<_> = statuses
        .into_iter()
        .filter(|status| shared.reporter.tells(&original, status))
        .collect();
    let notification = if statuses.is_empty() {
        None
    } else {
        Some(shared.reporter.write(&original, &statuses, now).await)
    };
    let outcome = Outcome {
        place: job.place,
        settlements,
        notification,
    };
    // The settler outlives every delivery; if it is gone, the next start repeats this one.
    let _ = outcomes.send(outcome).await;
}

async fn attempt(shared: &Shared, job: &Job) -> Attempt {
    let Job {
        message,
        recipients,
        line,
        ..
    } = job;
    let now = shared.clock.now();
    let wanted_back = dsn::return_by(&message.sender, message.accepted).is_some();
    if wanted_back && recipients.iter().all(|recipient| recipient.expires <= now) {
        return Attempt::Over;
    }
    if let Some(why) = line.is_down(now) {
        return Attempt::Unreachable(why);
    }
    let envelope = Envelope {
        sender: message.sender.clone(),
        recipients: recipients
            .iter()
            .map(|recipient| recipient.recipient.clone())
            .collect(),
    };
    let body = match &message.content {
        Some(content) => stream::iter([Ok(content.clone())]).boxed(),
        None => octets(shared.store.clone(), message.body, message.facts.size),
    };
    let result = line.pool.deliver(&envelope, &message.facts, body).await;
    match result {
        Ok(delivery) => {
            line.works();
            Attempt::Made(delivery)
        }
        Err(error @ (SmtpError::Connect { .. } | SmtpError::Refused { .. })) => {
            let why = error.to_string();
            line.failed(shared.clock.now(), &why);
            Attempt::Unreachable(why)
        }
        Err(SmtpError::Body(cause)) => {
            tracing::error!(id = %message.id, cause, "a body cannot be read from the inbox");
            Attempt::Broken(format!("the body cannot be read: {cause}"))
        }
        Err(error) => Attempt::Broken(error.to_string()),
    }
}

/// A stored body as a stream.
pub(super) fn octets(
    store: Arc<dyn Store>,
    body: BodyId,
    size: u64,
) -> BoxStream<'static, std::io::Result<Bytes>> {
    stream::try_unfold((store, 0), move |(store, offset)| async move {
        if offset >= size {
            return Ok(None);
        }
        let chunk = store
            .read_body(body, offset)
            .await
            .map_err(std::io::Error::other)?;
        if chunk.is_empty() {
            return Err(std::io::Error::other(format!(
                "it ends after {offset} of {size} octets"
            )));
        }
        let offset = offset + chunk.len() as u64;
        Ok(Some((chunk, (store, offset))))
    })
    .boxed()
}
