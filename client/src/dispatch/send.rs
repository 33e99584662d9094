//! One exchange: its object and header fields, the stored promise that it leaves, its outcome.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use lightpost_clock::add;
use lightpost_mail::{Envelope, bsmtp, lines::BodyFacts};
use lightpost_queue::{ClaimedMessage, ClaimedRecipient, Disposition, NewExchange, WaitReason};
use lightpost_transport::{Exchange, Failure, Outcome, Reply};
use tokio::sync::OwnedSemaphorePermit;
use ulid::Ulid;

use super::{
    Shared,
    object::{self, Ready},
    outcome::{Later, Meaning, RefusedRecipient, judge},
    plan::{Group, authority, expired, retry},
    settle::{Fate, Original},
};
use crate::config::{Encoding, PathSettings};

/// Recipients of one message that travel in one exchange.
pub(crate) struct Job {
    original: Arc<Original>,
    facts: BodyFacts,
    priority: i8,
    group: Group,
    /// Held until the outcome is known.
    #[expect(dead_code, reason = "dropping it is its use")]
    permit: OwnedSemaphorePermit,
}

/// A job whose exchange is made.
pub(crate) struct Leaving {
    job: Job,
    exchange: Exchange,
    digest: [u8; 32],
    until: Timestamp,
}

impl Job {
    pub(crate) fn new(
        message: &ClaimedMessage,
        original: Arc<Original>,
        group: Group,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            original,
            facts: message.facts,
            priority: message.priority,
            group,
            permit,
        }
    }

    pub(crate) fn is_large(&self) -> bool {
        self.facts.size > object::SMALL
    }

    fn repeats(&self) -> bool {
        self.group.repeats.is_some()
    }

    fn envelope(&self) -> Envelope {
        Envelope {
            sender: self.original.sender.clone(),
            recipients: self
                .group
                .recipients
                .iter()
                .map(|one| one.recipient.clone())
                .collect(),
        }
    }

    /// The same fate for all.
    fn all(self, disposition: impl Fn(&ClaimedRecipient) -> Disposition, detail: &str) -> Vec<Fate> {
        let remote = authority(&self.group.url);
        self.group
            .recipients
            .into_iter()
            .map(|recipient| {
                let disposition = disposition(&recipient);
                if disposition == Disposition::Expired {
                    return Fate {
                        remote: Some(remote.clone()),
                        detail: format!("{}; last: {detail}", expired(recipient.clone()).detail),
                        recipient,
                        disposition,
                    };
                }
                Fate {
                    recipient,
                    disposition,
                    remote: Some(remote.clone()),
                    detail: detail.to_owned(),
                }
            })
            .collect()
    }
}

impl Shared {
    /// Makes the exchange of a job; settles its recipients where that is not possible.
    pub(crate) async fn prepare(&self, job: Job) -> Option<Leaving> {
        let settings = self.config.paths.get(&job.group.path)?;
        let envelope = job.envelope();
        let built = object::build(
            &self.store,
            &self.config.name,
            &envelope,
            job.original.body,
            &job.facts,
            settings.encoding,
        )
        .await;
        let ready = match built {
            Ok(ready) => ready,
            Err(error) => {
                tracing::error!(message = %job.original.id, %error, "the stored mail cannot be read");
                self.again(
                    job,
                    WaitReason::Interrupted,
                    None,
                    &format!("the stored mail cannot be read: {error}"),
                )
                .await;
                return None;
            }
        };
        let now = self.clock.now();
        let id = job
            .group
            .repeats
            .as_ref()
            .map_or_else(|| crate::ids::new(now), |open| open.id);
        let exchange = Exchange {
            id,
            gateway: job.group.url.clone(),
            path: job.group.path.clone(),
            headers: headers(id, &envelope, &job.facts, &ready, settings),
            object: ready.object,
            priority: job.priority,
            expires: job
                .group
                .recipients
                .iter()
                .map(|one| one.expires)
                .max()
                .unwrap_or(now),
        };
        Some(Leaving {
            until: add(now, settings.reply(job.facts.size)),
            digest: ready.digest,
            exchange,
            job,
        })
    }

    /// Stores that exchanges leave, and lets them leave.
    pub(crate) async fn leave(self: &Arc<Self>, leaving: Vec<Leaving>) {
        if leaving.is_empty() {
            return;
        }
        let exchanges = leaving.iter().map(|one| NewExchange {
            id: one.exchange.id,
            message: one.job.original.id,
            gateway: one.exchange.gateway.to_string(),
            digest: one.digest,
            recipients: one.job.group.recipients.iter().map(|one| one.id).collect(),
            until: one.until,
        });
        let now = self.clock.now();
        if let Err(error) = self.store.begin_exchanges(exchanges.collect(), now).await {
            tracing::error!(%error, "nothing leaves: what leaves cannot be stored");
            for one in leaving {
                self.again(
                    one.job,
                    WaitReason::Interrupted,
                    None,
                    "what leaves could not be stored",
                )
                .await;
            }
            return;
        }
        for one in leaving {
            let shared = self.clone();
            self.running.spawn(async move { shared.send(one).await });
        }
    }

    async fn send(&self, leaving: Leaving) {
        let Leaving {
            job, exchange, until, ..
        } = leaving;
        let outcome = self.transport.send(exchange, until).await;
        match outcome {
            Outcome::Replied(reply) => self.replied(job, &reply).await,
            Outcome::InCustody { until } => {
                self.finish(job, |_| Disposition::Awaiting(until), "a bundle node holds it")
                    .await;
            }
            Outcome::NoContact { until } => {
                let close = !job.repeats();
                self.finish(
                    job,
                    |one| retry(until.min(one.expires), WaitReason::NoContact, false, close),
                    "there is no contact now",
                )
                .await;
            }
            Outcome::Failed(failure) => self.failed(job, &failure).await,
        }
    }

    async fn replied(&self, job: Job, reply: &Reply) {
        let now = self.clock.now();
        let meaning = judge(reply, now);
        match meaning {
            Meaning::Accepted(refused) => {
                job.group.gateway.reached();
                let said = format!("{}: on disk at the gateway", reply.status.as_u16());
                self.accepted(job, refused, &said).await;
            }
            Meaning::Refused(code, detail) => {
                job.group.gateway.reached();
                self.finish(job, |_| Disposition::Failed(code), &detail).await;
            }
            Meaning::Later(later) => self.later(job, later, reply.status.as_u16(), now).await,
        }
    }

    async fn later(&self, job: Job, later: Later, status: u16, now: Timestamp) {
        let gateway = authority(&job.group.url);
        if matches!(status, 401 | 403 | 407) {
            tracing::error!(
                gateway,
                detail = later.detail,
                "the gateway does not let us in; mail for it waits: set [tls] certificate or the path's token, or ask its operator to add us as a [[peer]]"
            );
        } else if status == 409 {
            tracing::warn!(gateway, message = %job.original.id, "the gateway knows the exchange with other content; it is sent anew");
        }
        let mut wait = later.after;
        match self.config.paths.get(&job.group.path) {
            Some(settings) if later.whole_gateway => {
                let until = job
                    .group
                    .gateway
                    .failed(now, &settings.policy(job.facts.size), later.after);
                wait = Some(lightpost_clock::until(now, until));
            }
            _ => job.group.gateway.reached(),
        }
        if later.not_taken {
            self.again_anew(job, later.reason, wait, &later.detail).await;
        } else {
            self.again(job, later.reason, wait, &later.detail).await;
        }
    }

    async fn accepted(&self, job: Job, refused: Vec<RefusedRecipient>, said: &str) {
        let original = job.original.clone();
        let mut fates = job.all(|_| Disposition::Delivered, said);
        for one in refused {
            let address = one
                .address
                .trim_start_matches('<')
                .split('>')
                .next()
                .unwrap_or_default();
            for fate in &mut fates {
                if fate.recipient.recipient.address.as_str() == address {
                    fate.disposition = Disposition::Failed(one.code);
                    fate.detail.clone_from(&one.detail);
                }
            }
        }
        self.settle(original, fates).await;
    }

    async fn failed(&self, job: Job, failure: &Failure) {
        let now = self.clock.now();
        let detail = failure.to_string();
        match failure {
            Failure::Unreachable { .. } => self.unreachable(job, &detail, now).await,
            Failure::Interrupted { .. } | Failure::Object(_) => {
                self.again(job, WaitReason::Interrupted, None, &detail).await;
            }
            Failure::NoReply { .. } => self.again(job, WaitReason::NoReply, None, &detail).await,
        }
    }

    /// No octet has left: another gateway may take it at once.
    async fn unreachable(&self, job: Job, detail: &str, now: Timestamp) {
        let Some(settings) = self.config.paths.get(&job.group.path) else {
            return;
        };
        let until = job
            .group
            .gateway
            .failed(now, &settings.policy(job.facts.size), None);
        tracing::warn!(gateway = %authority(&job.group.url), detail, until = %until, "a gateway cannot be reached");
        let reply = settings.reply(job.facts.size);
        // What may have arrived at this gateway goes to another one only when no reply can come any more.
        let owed = job
            .group
            .repeats
            .as_ref()
            .is_some_and(|open| now < add(open.begun, reply));
        if job.repeats() && !owed {
            tracing::warn!(message = %job.original.id, "no reply came in time and the gateway is down: if another one takes over, the mail may arrive twice");
        }
        let url = job.group.url.clone();
        let disposition = |one: &ClaimedRecipient| {
            let other = !owed && self.other_gateway(&one.destination, &url, now);
            let due = if other { now } else { until.min(one.expires) };
            retry(
                due,
                WaitReason::Unreachable,
                !other,
                other || one.exchange.is_none(),
            )
        };
        self.finish(job, disposition, detail).await;
    }

    /// Tried again by the path's policy, with the same exchange.
    async fn again(&self, job: Job, reason: WaitReason, at_least: Option<Duration>, detail: &str) {
        self.retry(job, reason, at_least, false, detail).await;
    }

    /// Tried again by the path's policy, with a new exchange.
    async fn again_anew(&self, job: Job, reason: WaitReason, at_least: Option<Duration>, detail: &str) {
        self.retry(job, reason, at_least, true, detail).await;
    }

    async fn retry(
        &self,
        job: Job,
        reason: WaitReason,
        at_least: Option<Duration>,
        close: bool,
        detail: &str,
    ) {
        let now = self.clock.now();
        let Some(settings) = self.config.paths.get(&job.group.path) else {
            return;
        };
        let policy = settings.policy(job.facts.size);
        let disposition = |one: &ClaimedRecipient| {
            let attempts = one.attempts.saturating_add(1);
            match policy.next(attempts, now, one.expires) {
                Some(due) => {
                    let due = due.max(at_least.map_or(due, |wait| add(now, wait)));
                    retry(due.min(one.expires), reason, true, close)
                }
                None => Disposition::Expired,
            }
        };
        self.finish(job, disposition, detail).await;
    }

    async fn finish(&self, job: Job, disposition: impl Fn(&ClaimedRecipient) -> Disposition, detail: &str) {
        let original = job.original.clone();
        self.settle(original, job.all(disposition, detail)).await;
    }

    /// A reply to an exchange that was let go.
    pub(crate) async fn late(&self, reply: Reply) {
        let id: Ulid = reply.exchange;
        match self.store.find_exchange(id).await {
            Ok(Some((message, open))) => {
                let now = self.clock.now();
                let delivered =
                    matches!(judge(&reply, now), Meaning::Accepted(refused) if refused.is_empty());
                let settlements = open
                    .recipients
                    .iter()
                    .map(|recipient| lightpost_queue::Settlement {
                        recipient: *recipient,
                        // Whatever else it says is asked again: the gateway gives the same answer to a repeat.
                        disposition: if delivered {
                            Disposition::Delivered
                        } else {
                            retry(now, WaitReason::Busy, true, false)
                        },
                        at: now,
                        remote: Some(open.gateway.clone()),
                        detail: format!("{}, a late reply", reply.status.as_u16()),
                    });
                if let Err(error) = self.store.settle(settlements.collect(), Vec::new()).await {
                    tracing::error!(%message, %error, "a late reply cannot be stored; the exchange is repeated");
                }
                self.wake.notify_one();
            }
            Ok(None) => tracing::info!(exchange = %id, "a late reply belongs to no open exchange"),
            Err(error) => tracing::error!(exchange = %id, %error, "a late reply cannot be placed"),
        }
    }
}

fn headers(
    id: Ulid,
    envelope: &Envelope,
    facts: &BodyFacts,
    ready: &Ready,
    settings: &PathSettings,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: String| {
        // All of these are printable ASCII by construction.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    let extensions = bsmtp::encode::required_extensions(envelope, facts);
    set(
        header::CONTENT_TYPE,
        format!("{}; required-extensions=\"{extensions}\"", bsmtp::MEDIA_TYPE),
    );
    if ready.zstd {
        debug_assert_eq!(settings.encoding, Encoding::Zstd);
        set(header::CONTENT_ENCODING, "zstd".into());
    }
    set(
        HeaderName::from_static("unencoded-digest"),
        format!("sha-256=:{}:", STANDARD.encode(ready.digest)),
    );
    set(HeaderName::from_static("idempotency-key"), format!("\"{id}\""));
    if let Some(token) = &settings.token {
        headers.insert(header::AUTHORIZATION, token.authorization());
    }
    headers
}
