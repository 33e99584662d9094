//! Feeds requests that come in bundles to the gateway's router, and sends the replies back to their sources.
//!
//! A bundle is kept by the node until the router has answered and the reply is with the node. So a fault at any time repeats it,
//! and the router knows a repeat by its key. What the gateway cannot take now is not answered across space: it waits here.

use std::{collections::HashSet, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use bytes::Bytes;
use hardy_bpv7::eid::Eid;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use lightpost_clock::{Clock, add};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    agent::{Agent, BundleId, Class, Content, Delivery, Incoming, Outgoing, Reports, SendError},
    client::KEY,
    payload::{self, Payload},
};
use crate::{Carrier, PeerIdentity};

/// The wait before the router is asked again, and the longest one.
const AGAIN: Duration = Duration::from_secs(2);
const AGAIN_LONGEST: Duration = Duration::from_secs(300);
/// A reply's body, as far as it crosses.
const REPLY: usize = 64 * 1024;
/// Memory is given out in pieces of this size.
const PIECE: usize = 64 * 1024;
/// How long running requests may take when the gateway is stopped.
const GRACE: Duration = Duration::from_secs(8);

/// What the listener is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The path that requests are POSTed to, whatever the bundle says.
    pub path: String,
    /// Who may send: source endpoints. All others are dropped, and not answered: a source is easily forged. Which of
    /// them have to sign is the agent's to know.
    pub sources: HashSet<String>,
    /// Requests at once.
    pub concurrency: usize,
    /// Octets of payloads in memory at once; one that is larger comes alone.
    pub memory: usize,
    /// How long a reply is kept on its way.
    pub reply_lifetime: Duration,
    /// How long a bundle without a lifetime of its own is tried.
    pub longest: Duration,
}

/// Where somebody who cannot be answered is spoken of: the local postmaster (RFC 2442 section 4).
#[async_trait::async_trait]
pub trait Complaints: Send + Sync + 'static {
    /// `from` sent what was refused with `status`, for the reason in `said`. Returns whether that is kept.
    async fn refused(&self, from: &str, bundle: &str, status: StatusCode, said: &Bytes) -> bool;
}

/// Serves `router` until `stop`.
pub async fn serve(
    agent: Arc<dyn Agent>,
    router: Router,
    complaints: Arc<dyn Complaints>,
    settings: Settings,
    clock: Clock,
    stop: CancellationToken,
) {
    let pieces = settings.memory.div_ceil(PIECE).clamp(1, Semaphore::MAX_PERMITS);
    let house = Arc::new(House {
        places: Arc::new(Semaphore::new(
            settings.concurrency.clamp(1, Semaphore::MAX_PERMITS),
        )),
        memory: Arc::new(Semaphore::new(pieces)),
        pieces,
        agent,
        router,
        complaints,
        settings,
        clock,
        stop,
    });
    let tasks = TaskTracker::new();
    let mut serving = pin!(house.stop.cancelled());
    loop {
        let next = async {
            let place = house.places.clone().acquire_owned().await.ok()?;
            let delivery = house.agent.receive().await;
            let memory = house.room(octets(&delivery)).await?;
            Some((place, memory, delivery))
        };
        tokio::select! {
            () = &mut serving => break,
            next = next => {
                let Some((place, memory, delivery)) = next else { break };
                let house = house.clone();
                tasks.spawn(async move {
                    house.take(delivery).await;
                    drop((place, memory));
                });
            }
        }
    }
    tasks.close();
    if house.clock.timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::info!(left = tasks.len(), "bundles that are not dealt with come again");
    }
}

struct House {
    agent: Arc<dyn Agent>,
    router: Router,
    complaints: Arc<dyn Complaints>,
    settings: Settings,
    clock: Clock,
    stop: CancellationToken,
    places: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    pieces: usize,
}

/// What a bundle asks of the router.
struct Asked {
    source: Eid,
    bundle: BundleId,
    headers: HeaderMap,
    body: Bytes,
    /// The field that names the exchange; none where no reply is wanted.
    key: Option<HeaderValue>,
    answered: bool,
    expires: Timestamp,
}

impl House {
    async fn room(&self, octets: usize) -> Option<OwnedSemaphorePermit> {
        let pieces = octets.div_ceil(PIECE).min(self.pieces);
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        self.memory.clone().acquire_many_owned(pieces).await.ok()
    }

    async fn take(&self, delivery: Delivery) {
        let asked = match &delivery.content {
            Content::Bundle(incoming) => self.asked(incoming),
            Content::Report(report) => {
                tracing::debug!(about = %report.about, from = %report.from, event = ?report.event, "status report");
                None
            }
        };
        let Some(asked) = asked else {
            delivery.done();
            return;
        };
        let settled = tokio::select! {
            settled = self.settle(&asked) => settled,
            // It comes again.
            () = self.given_up() => false,
        };
        if settled {
            delivery.done();
        }
    }

    /// Some time after the stop.
    async fn given_up(&self) {
        self.stop.cancelled().await;
        self.clock.sleep(GRACE).await;
    }

    /// Answers a request; false when it has to come again.
    async fn settle(&self, asked: &Asked) -> bool {
        let Some((status, headers, body)) = self.answer(asked).await else {
            return false;
        };
        if asked.answered {
            return self.reply(asked, status, headers, &body).await;
        }
        if status.is_success() && body.is_empty() {
            return true;
        }
        let (source, bundle) = (asked.source.to_string(), asked.bundle.to_string());
        self.complaints.refused(&source, &bundle, status, &body).await
    }

    fn asked(&self, incoming: &Incoming) -> Option<Asked> {
        let (source, bundle) = (incoming.id.source.clone(), incoming.id.clone());
        let name = source.to_string();
        if !self.settings.sources.contains(&name) {
            tracing::warn!(%bundle, "a bundle from a source that is nobody's `endpoints` is dropped");
            return None;
        }
        let longest = add(self.clock.now(), self.settings.longest);
        let asked = |headers, body, key, answered| Asked {
            source,
            bundle,
            headers,
            body,
            key,
            answered,
            expires: incoming.expires.unwrap_or(longest).min(longest),
        };
        match payload::read(&incoming.payload) {
            Ok(Payload::Request(mut content)) => {
                let key = content.headers.get(KEY).cloned();
                let length = HeaderValue::from(content.body.len());
                content.headers.insert(header::CONTENT_LENGTH, length);
                Some(asked(content.headers, content.body, key, true))
            }
            Ok(Payload::BatchSmtp(object)) => {
                let headers = self.fields(&incoming.id, &object);
                Some(asked(headers, object, None, false))
            }
            Ok(Payload::Response(..)) => {
                tracing::warn!(bundle = %incoming.id, "a reply came to the gateway's endpoint and is dropped");
                None
            }
            Err(error) => {
                tracing::warn!(bundle = %incoming.id, %error, "a bundle that is no request is dropped");
                None
            }
        }
    }

    /// The fields that a bare object lacks. The bundle's id is its key: the same bundle is the same exchange.
    fn fields(&self, bundle: &BundleId, object: &Bytes) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/batch-SMTP"),
        );
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(object.len()));
        if let Ok(key) = HeaderValue::try_from(format!("\"bundle {bundle}\"")) {
            headers.insert(KEY, key);
        }
        headers
    }

    /// What the router says once it says something that may cross; `None` when the time is up or the gateway stops.
    async fn answer(&self, asked: &Asked) -> Option<(StatusCode, HeaderMap, Bytes)> {
        let mut wait = AGAIN;
        loop {
            let response = self.ask(asked).await;
            let status = response.status();
            if !is_later(status) {
                let (parts, body) = response.into_parts();
                let body = Limited::new(body, REPLY).collect().await;
                let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                return Some((status, parts.headers, body));
            }
            let now = self.clock.now();
            if now >= asked.expires {
                tracing::warn!(bundle = %asked.bundle, %status, "a bundle's lifetime ends before the gateway can take it");
                return Some((status, HeaderMap::new(), Bytes::new()));
            }
            let after = retry_after(response.headers()).unwrap_or_default();
            tracing::info!(bundle = %asked.bundle, %status, "a bundle cannot be taken now; it is kept and tried again");
            self.clock.sleep(wait.max(after).min(AGAIN_LONGEST)).await;
            wait = (wait * 2).min(AGAIN_LONGEST);
        }
    }

    async fn ask(&self, asked: &Asked) -> Response<Body> {
        let mut request = Request::new(Body::from(asked.body.clone()));
        *request.method_mut() = Method::POST;
        if let Ok(path) = self.settings.path.parse() {
            *request.uri_mut() = path;
        }
        *request.headers_mut() = asked.headers.clone();
        request.extensions_mut().insert(PeerIdentity {
            names: Vec::new(),
            address: None,
            endpoint: Some(asked.source.to_string()),
            carrier: Carrier::Bundle,
        });
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Sends a reply; false when the request has to come again.
    async fn reply(&self, asked: &Asked, status: StatusCode, mut headers: HeaderMap, body: &Bytes) -> bool {
        headers.remove(header::CONTENT_LENGTH);
        if let Some(key) = &asked.key {
            headers.insert(KEY, key.clone());
        }
        let reply = Outgoing {
            destination: asked.source.clone(),
            lifetime: self.settings.reply_lifetime,
            class: Class::Normal,
            report_to: None,
            reports: Reports::default(),
            payload: payload::response(status, &headers, body),
        };
        let until = add(self.clock.now(), self.settings.reply_lifetime);
        let mut wait = AGAIN;
        loop {
            match self.agent.send(reply.clone()).await {
                Ok(bundle) => {
                    tracing::debug!(request = %asked.bundle, reply = %bundle, %status, "answered");
                    return true;
                }
                Err(error @ (SendError::TooLarge { .. } | SendError::Refused(_))) => {
                    tracing::error!(bundle = %asked.bundle, %error, "a reply cannot be sent");
                    return true;
                }
                Err(error) if self.clock.now() >= until => {
                    tracing::error!(bundle = %asked.bundle, %error, "a reply could not be sent in all its lifetime");
                    return true;
                }
                Err(error) => {
                    tracing::warn!(bundle = %asked.bundle, %error, "a reply cannot be sent now; trying again");
                }
            }
            self.clock.sleep(wait).await;
            wait = (wait * 2).min(AGAIN_LONGEST);
        }
    }
}

fn octets(delivery: &Delivery) -> usize {
    match &delivery.content {
        Content::Bundle(incoming) => incoming.payload.len(),
        Content::Report(_) => 0,
    }
}

/// Whether the same request may fare better here later: nobody far away has to hear of it.
fn is_later(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
