//! One exchange on its way in: who sends it, what it holds, what is kept, what is answered.
//!
//! A request is judged in the order of what it costs: the peer, the fields, whether it is a repeat, and only then its body. What
//! is accepted goes into the inbox together with the answer, in one transaction, so that a repeat gets the same answer
//! and brings nothing twice.

mod answer;
mod judge;
mod peer;
mod seal;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use lightpost_clock::{Clock, add};
use lightpost_intake::{
    Batch, BatchError, BatchSettings, BodyReader, Digests, Encoding, Problem, ReadLimits, drained, fields,
    loops::recall, operator, receive, spool::discard_new,
};
use lightpost_mail::{
    Envelope,
    bsmtp::decode::{Limits, LineEnds, check_content_type},
    trace::Received,
};
use lightpost_queue::{Enqueued, RequestKey, Store, StoredReply, Submission};
use lightpost_transport::{EarlyData, PeerIdentity, exchange::priority as exchange_priority};
use tokio::sync::{Semaphore, SemaphorePermit};
use ulid::Ulid;

pub(crate) use self::seal::SealCheck;
use crate::{Config, config::Peer, new_id};

/// What Batch SMTP objects may require of us.
const EXTENSIONS: &[&str] = &[
    "8BITMIME",
    "SIZE",
    "DSN",
    "SMTPUTF8",
    "PIPELINING",
    "ENHANCEDSTATUSCODES",
    "MT-PRIORITY",
    "DELIVERBY",
];
/// Objects up to this size are read before the store is asked whether it knows them.
const SMALL: u64 = 64 * 1024;
/// How long an object waits for a place among those that are taken at once.
const WAIT: Duration = Duration::from_secs(10);
/// What a peer is asked to wait when too many objects come at once.
const BUSY: Duration = Duration::from_secs(10);

/// The receiving half of the gateway.
pub(crate) struct Inbound {
    config: Arc<Config>,
    store: Arc<dyn Store>,
    clock: Clock,
    seals: Option<SealCheck>,
    room: Semaphore,
    /// What of the room each peer may take, by its name: a slow one must not shut out the others.
    shares: HashMap<String, Semaphore>,
}

/// The router that every transport feeds.
pub(crate) fn router(
    config: Arc<Config>,
    store: Arc<dyn Store>,
    seals: Option<SealCheck>,
    clock: Clock,
) -> Router {
    let endpoint = config.listen.endpoint.clone();
    let room = config.accept.concurrency.min(Semaphore::MAX_PERMITS);
    let share = if config.peers.len() > 1 {
        room.div_ceil(2)
    } else {
        room
    };
    let names = config.peers.iter().map(|peer| peer.name.clone());
    let inbound = Inbound {
        room: Semaphore::new(room),
        shares: names.map(|name| (name, Semaphore::new(share))).collect(),
        config,
        store,
        seals,
        clock: clock.clone(),
    };
    let router = Router::new()
        .route(&endpoint, post(exchange))
        .fallback(operator::not_found)
        .method_not_allowed_fallback(operator::method_not_allowed)
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::new(inbound));
    drained(router, clock)
}

async fn exchange(State(inbound): State<Arc<Inbound>>, request: Request) -> Response {
    // On a task of its own: when the connection goes away this handler is dropped, but an object that has arrived is stored
    // all the same, and one that has not leaves nothing behind.
    let taking = tokio::spawn(async move { inbound.take(request).await });
    match taking.await {
        Ok(Ok(response)) => response,
        Ok(Err(problem)) => {
            tracing::info!(status = problem.status.as_u16(), detail = %problem.detail, "exchange refused");
            problem.into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an exchange ended in the middle");
            Problem::unavailable("the exchange ended in the middle; send it again", BUSY).into_response()
        }
    }
}

/// A place among the objects that are taken at once: of the peer's own, and of all.
#[expect(dead_code, reason = "dropping it is its use")]
struct Place<'a>(Option<SemaphorePermit<'a>>, SemaphorePermit<'a>);

/// What is known about an exchange before its body is read.
struct Heading<'a> {
    peer: &'a Peer,
    /// How it came, for `Received`.
    protocol: &'static str,
    /// The peer's `Idempotency-Key`.
    key: Option<String>,
    digests: Digests,
    encoding: Encoding,
    /// The id in our trace field: the exchange's, or one of ours.
    id: String,
    /// The sending order of mail that does not say its own.
    priority: i8,
}

impl Inbound {
    async fn take(&self, request: Request) -> Result<Response, Problem> {
        let identity = request.extensions().get::<PeerIdentity>();
        let peer = peer::identify(&self.config.peers, identity, request.headers())?;
        let protocol = identity.map_or("HTTP", |identity| identity.carrier.protocol());
        let heading = self.heading(peer, protocol, request.headers())?;
        // A repeat of it would be recognised by its key; without one it may only count once.
        if heading.key.is_none()
            && let Some(early) = request.extensions().get::<EarlyData>().cloned()
            && !early.confirmed().await
        {
            return Err(Problem::too_early());
        }
        // A small object is here before the store has been asked; whether it is a repeat is then found when it is stored.
        let small = fields::content_length(request.headers()).is_some_and(|length| length <= SMALL);
        if !small && let Some(response) = self.known(&heading).await? {
            return Ok(response);
        }
        let Some(_place) = self.place(peer).await else {
            let busy = Problem::too_many("too many objects arrive at once", BUSY);
            return self.unless_known(&heading, busy).await;
        };
        let limits = ReadLimits {
            octets: self.config.accept.max_object,
            idle: self.config.accept.idle,
        };
        let body = request.into_body();
        let mut reader = BodyReader::new(body, heading.encoding, limits, self.clock.clone())?;
        let batch = self.read(&mut reader, &heading).await;
        match self.conclude(batch, &heading).await {
            Err(problem) if small => self.unless_known(&heading, problem).await,
            outcome => outcome,
        }
    }

    /// A place among those that are taken at once. It is waited for: the answer that there is none costs the peer a round trip and all
    /// that it has sent.
    async fn place(&self, peer: &Peer) -> Option<Place<'_>> {
        let share = self.shares.get(&peer.name);
        if let (Ok(share), Ok(room)) = (
            share.map(Semaphore::try_acquire).transpose(),
            self.room.try_acquire(),
        ) {
            return Some(Place(share, room));
        }
        let both = async {
            let share = match share {
                Some(share) => Some(share.acquire().await.ok()?),
                None => None,
            };
            Some(Place(share, self.room.acquire().await.ok()?))
        };
        self.clock.timeout(WAIT, both).await.ok().flatten()
    }

    /// `problem`, unless this is a repeat of what was stored: "not taken" must not be said of that.
    async fn unless_known(&self, heading: &Heading<'_>, problem: Problem) -> Result<Response, Problem> {
        match self.known(heading).await {
            Ok(Some(response)) => Ok(response),
            // The first fault says more than that of looking.
            Ok(None) | Err(_) => Err(problem),
        }
    }

    fn heading<'a>(
        &self,
        peer: &'a Peer,
        protocol: &'static str,
        headers: &http::HeaderMap,
    ) -> Result<Heading<'a>, Problem> {
        check_content_type(fields::content_type(headers)?, EXTENSIONS)?;
        let encoding = fields::encoding(headers)?;
        let key = fields::idempotency_key(headers)?;
        let id = key
            .as_deref()
            .filter(|key| key.bytes().all(|octet| octet.is_ascii_alphanumeric()))
            .map_or_else(|| new_id(self.clock.now()).to_string(), str::to_owned);
        Ok(Heading {
            peer,
            protocol,
            digests: fields::digests(headers, encoding)?,
            encoding,
            key,
            id,
            priority: fields::urgency(headers).map_or(0, exchange_priority),
        })
    }

    /// The answer to a repeat that can be told by its fields alone.
    async fn known(&self, heading: &Heading<'_>) -> Result<Option<Response>, Problem> {
        let (Some(key), Some(digest)) = (&heading.key, heading.digests.decoded) else {
            return Ok(None);
        };
        match self
            .store
            .find_reply(&heading.peer.name, key, Some(digest))
            .await?
        {
            Some(Enqueued::Repeat(reply)) => Ok(Some(repeat(heading, &reply))),
            Some(Enqueued::Conflict) => Err(Problem::key_conflict(key)),
            Some(Enqueued::Stored | Enqueued::Over(_)) | None => Ok(None),
        }
    }

    async fn read(&self, reader: &mut BodyReader, heading: &Heading<'_>) -> Batch {
        let accept = &self.config.accept;
        let settings = BatchSettings {
            line_ends: LineEnds::Crlf,
            limits: Limits {
                recipients: accept.max_recipients,
                body: accept.max_message,
                ..Limits::default()
            },
            name: &self.config.name,
        };
        let now = self.clock.now();
        let prefix = |envelope: &Envelope| {
            let single = match &envelope.recipients[..] {
                [only] if only.address.is_ascii() => Some(only.address.as_str()),
                _ => None,
            };
            let received = Received {
                address: None,
                from: Some(&heading.peer.name),
                by: &self.config.name,
                with: heading.protocol,
                id: &heading.id,
                recipient: single,
                at: now,
            };
            judge::is_wanted(envelope, heading.peer, accept).then(|| received.field())
        };
        receive(reader, &self.store, settings, prefix).await
    }

    /// Decides about an object that was read, and stores what is accepted.
    async fn conclude(&self, mut batch: Batch, heading: &Heading<'_>) -> Result<Response, Problem> {
        let digest = match sound(&batch, &heading.digests) {
            Ok(digest) => digest,
            Err(problem) => {
                batch.discard(&*self.store).await;
                return Err(problem);
            }
        };
        let now = self.clock.now();
        for transaction in &mut batch.transactions {
            recall(&*self.store, &mut transaction.hops).await;
        }
        let mut verdicts = judge::judge(batch.transactions, heading.peer, &self.config, now, heading);
        if let Some(seals) = &self.seals
            && let Err(error) = seals.examine(&self.store, &mut verdicts).await
        {
            let taken = verdicts.messages.iter().map(|message| &message.body);
            for body in taken.chain(&verdicts.unused) {
                discard_new(&*self.store, body).await;
            }
            return Err(error.into());
        }
        let answer = answer::Answer::new(&verdicts.refusals, batch.error.map(Problem::from));
        for unused in &verdicts.unused {
            discard_new(&*self.store, unused).await;
        }
        if verdicts.messages.is_empty() {
            // Nothing is taken now, but the first copy may have been, by rules that have changed since.
            if let Some(response) = self.known(heading).await? {
                return Ok(response);
            }
            // Nothing was taken, so nothing has to be remembered: a repeat is judged afresh.
            return Ok(answer.into_response());
        }
        let accepted: Vec<(Ulid, Option<String>)> = verdicts
            .messages
            .iter()
            .map(|message| (message.id, message.upstream.clone()))
            .collect();
        let bodies: Vec<_> = verdicts
            .messages
            .iter()
            .map(|message| message.body.clone())
            .collect();
        let submission = Submission {
            key: heading.key.clone().map(|key| RequestKey {
                scope: heading.peer.name.clone(),
                key,
                digest,
                expires: add(now, self.config.accept.remember),
            }),
            reply: answer.stored(),
            messages: verdicts.messages,
            charges: Vec::new(),
        };
        let enqueued = self.store.enqueue(submission).await;
        if !matches!(enqueued, Ok(Enqueued::Stored)) {
            for body in &bodies {
                discard_new(&*self.store, body).await;
            }
        }
        match enqueued? {
            Enqueued::Stored => {
                for (id, upstream) in accepted {
                    tracing::info!(%id, peer = heading.peer.name, exchange = heading.id, upstream, "on disk");
                }
                Ok(answer.into_response())
            }
            Enqueued::Repeat(reply) => Ok(repeat(heading, &reply)),
            // A gateway charges nobody.
            Enqueued::Over(over) => Err(Problem::forbidden(format!(
                "{} has used up its allowance",
                over.name
            ))),
            Enqueued::Conflict => Err(Problem::key_conflict(heading.key.as_deref().unwrap_or_default())),
        }
    }
}

/// The answer to a repeat, which is the first one's.
fn repeat(heading: &Heading<'_>, reply: &StoredReply) -> Response {
    let key = heading.key.as_deref();
    tracing::info!(peer = heading.peer.name, key, "a repeat; answered from the store");
    answer::again(reply)
}

/// The object's digest, unless nothing of the object may count: it did not arrive whole, is not what the peer sent, or
/// could not be stored.
fn sound(batch: &Batch, claimed: &Digests) -> Result<[u8; 32], Problem> {
    match &batch.error {
        None | Some(BatchError::Decode(_) | BatchError::Recipients(_)) => {}
        Some(error) => return Err(error.clone().into()),
    }
    let Some(digest) = batch.digest else {
        let error = batch.error.clone().map(Problem::from);
        return Err(error.unwrap_or_else(|| Problem::bad_request("the object did not arrive whole")));
    };
    digest.check(claimed)?;
    Ok(digest.sha256)
}
