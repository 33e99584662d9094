//! One exchange: its object and header fields, the stored promise that it leaves, its outcome.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use lightpost_clock::add;
use lightpost_intake::Original;
use lightpost_mail::{EnhancedCode, Envelope, bsmtp, lines::BodyFacts};
use lightpost_queue::{ClaimedMessage, ClaimedRecipient, Disposition, Exchanged, NewExchange, WaitReason};
use lightpost_transport::{Exchange, Failure, Late, News, Outcome, Reply};
use tokio::sync::OwnedSemaphorePermit;
use ulid::Ulid;

use super::{
    Shared,
    gateway::Block,
    line::Load,
    object::{self, Ready},
    outcome::{Later, Meaning, RefusedRecipient, judge},
    plan::{Group, Other, authority, expired, retry},
    settle::Fate,
};
use crate::config::{Encoding, PathSettings};

/// A gateway may always ask for this.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);
/// Within this time after the deadline of an exchange its outcome is stored.
const OUTCOME: Duration = Duration::from_secs(60);

/// Message too big for system (RFC 3463 section 3.4).
const TOO_LARGE: EnhancedCode = EnhancedCode::new(5, 3, 4);

/// Recipients of one message that travel in one exchange. It is handed from one to the next in its box: by itself it is of half a kilobyte.
pub(crate) struct Job {
    original: Arc<Original>,
    facts: BodyFacts,
    /// The whole body, where it came along with the claim.
    content: Option<Bytes>,
    priority: i8,
    group: Group,
    /// Held until the outcome is known; none where a carrier had the exchange.
    #[expect(dead_code, reason = "dropping it is its use")]
    permit: Option<OwnedSemaphorePermit>,
    /// Its octets as those behind it count them, once it leaves.
    load: Option<Load>,
    /// The news that decide about it, to be let go once that is stored.
    late: Option<Late>,
}

/// A job whose exchange is made.
pub(crate) struct Leaving {
    job: Box<Job>,
    exchange: Exchange,
    digest: [u8; 32],
    /// What the object says EHLO with.
    name: String,
    /// What the far end is taken to accept.
    terms: u32,
    until: Timestamp,
}

impl Job {
    pub(crate) fn new(
        message: &ClaimedMessage,
        original: Arc<Original>,
        group: Group,
        permit: OwnedSemaphorePermit,
    ) -> Box<Self> {
        Box::new(Self {
            original,
            facts: message.facts,
            content: message.content.clone(),
            priority: message.priority,
            group,
            permit: Some(permit),
            load: None,
            late: None,
        })
    }

    /// The job that a carrier had, with the news of it.
    pub(crate) fn held(message: &ClaimedMessage, group: Group, late: Late) -> Box<Self> {
        Box::new(Self {
            original: Arc::new(Original::from(message)),
            facts: message.facts,
            content: None,
            priority: message.priority,
            group,
            permit: None,
            load: None,
            late: Some(late),
        })
    }

    pub(crate) fn is_large(&self) -> bool {
        self.facts.size > object::SMALL
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

    /// How often the exchange will have been tried, and when the first of its recipients expires: one time to try again for all of
    /// them, so that they stay together.
    fn shared_times(&self) -> (u32, Timestamp) {
        let recipients = &self.group.recipients;
        let attempts = recipients.iter().map(|one| one.attempts).max();
        let expires = recipients.iter().map(|one| one.expires).min();
        (
            attempts.unwrap_or_default().saturating_add(1),
            expires.unwrap_or(Timestamp::MAX),
        )
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
    pub(crate) async fn prepare(&self, mut job: Box<Job>) -> Option<Box<Leaving>> {
        let settings = self.config.paths.get(&job.group.path)?;
        let now = self.clock.now();
        let earlier = job.group.earlier();
        let id = earlier.map_or_else(|| crate::ids::new(now), |exchange| exchange.id);
        let mut envelope = job.envelope();
        // What is agreed may have changed since an exchange has left; its object has not.
        let terms = earlier.and_then(|exchange| exchange.terms);
        let accepts = terms.map_or(settings.accepts, |terms| settings.accepts.on(terms));
        accepts.trim(&mut envelope);
        if let Some(by) = &mut envelope.sender.parameters.deliver_by {
            // From the begin of the exchange, which its id tells the gateway: the object is the same whenever it is repeated.
            *by = by.counted_from(crate::ids::time(id), by.deadline(job.original.accepted));
        }
        // A repeat is the same object to the octet, even where the agent was given another name since.
        let name = earlier
            .map(|exchange| exchange.name.clone())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| self.config.name.clone());
        let built = object::build(
            &self.store,
            &name,
            &envelope,
            (job.original.body, job.content.clone()),
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
        let (ahead, load) = job.group.gateway.line.enter(job.facts.size);
        let exchange = Exchange {
            id,
            gateway: job.group.url.clone(),
            path: job.group.path.clone(),
            headers: headers(id, &envelope, &job.facts, &ready, settings),
            object: ready.object,
            octets: job.facts.size,
            line: settings.path.sending(job.facts.size.saturating_add(ahead)),
            held_before: earlier.is_some_and(|exchange| exchange.custody.is_some()),
            priority: job.priority,
            expires: job
                .group
                .recipients
                .iter()
                .map(|one| one.expires)
                .max()
                .unwrap_or(now),
        };
        job.load = Some(load);
        Some(Box::new(Leaving {
            until: add(now, settings.reply_behind(job.facts.size, ahead)),
            digest: ready.digest,
            name,
            terms: accepts.terms(),
            exchange,
            job,
        }))
    }

    /// Stores that exchanges leave, and lets them leave.
    #[expect(
        clippy::vec_box,
        reason = "they are in their boxes already, and a vector of them unboxed is of many kilobytes"
    )]
    pub(crate) async fn leave(self: &Arc<Self>, leaving: Vec<Box<Leaving>>) {
        if leaving.is_empty() {
            return;
        }
        let exchanges = leaving.iter().map(|one| NewExchange {
            id: one.exchange.id,
            message: one.job.original.id,
            gateway: one.exchange.gateway.to_string(),
            digest: one.digest,
            name: one.name.clone(),
            terms: one.terms,
            recipients: one.job.group.recipients.iter().map(|one| one.id).collect(),
            // Until then the outcome comes from the transport, which gives up at `until`.
            until: add(one.until, OUTCOME),
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
            tracing::info!(id = %one.job.original.id, exchange = %one.exchange.id, gateway = %authority(&one.job.group.url), "leaves");
            let shared = self.clone();
            self.running.spawn(async move { shared.send(one).await });
        }
    }

    async fn send(&self, leaving: Box<Leaving>) {
        let Leaving {
            mut job,
            exchange,
            until,
            ..
        } = *leaving;
        let (begun, id) = (self.clock.now(), exchange.id);
        let outcome = tokio::select! {
            outcome = self.transport.send(exchange, until) => outcome,
            // It stays open in the store.
            () = self.leave_open.cancelled() => return,
        };
        match outcome {
            Outcome::Replied(reply) => self.replied(job, &reply).await,
            Outcome::InCustody {
                until,
                custody,
                tried,
            } => {
                job.group.gateway.reached();
                if let Some(load) = job.load.take() {
                    job.group.gateway.line.keep(id, load, until, self.clock.now());
                }
                let tried = tried.map(|tried| format!("{tried}; ")).unwrap_or_default();
                let said = format!("{tried}a bundle node holds it as {custody}");
                let awaiting = |one: &ClaimedRecipient| Disposition::Awaiting {
                    until: until.min(one.expires),
                    custody: custody.clone(),
                };
                self.finish(job, awaiting, &said).await;
            }
            Outcome::HandedOver { said } => {
                job.group.gateway.reached();
                self.accepted(job, Vec::new(), &said).await;
            }
            Outcome::NoContact { until } => {
                let exchange = job.group.unanswered();
                self.finish(
                    job,
                    |one| retry(until.min(one.expires), WaitReason::NoContact, false, exchange),
                    "there is no contact now",
                )
                .await;
            }
            Outcome::Failed(failure) => self.failed(job, &failure, begun).await,
        }
    }

    pub(crate) async fn replied(&self, job: Box<Job>, reply: &Reply) {
        let now = self.clock.now();
        job.group.gateway.answered(now);
        let meaning = judge(reply, now);
        match meaning {
            Meaning::Accepted(refused) => {
                job.group.gateway.reached();
                let way = match job.late.as_ref().map(|late| &late.news) {
                    Some(News::Reply { from, .. }) => format!(", by bundle from {from}"),
                    _ => String::new(),
                };
                let said = format!("{}: on disk at the gateway{way}", reply.status.as_u16());
                self.accepted(job, refused, &said).await;
            }
            Meaning::Refused(code, detail) => {
                job.group.gateway.reached();
                self.finish(job, |_| Disposition::Failed(code), &detail).await;
            }
            Meaning::Unclear(detail) => {
                job.group.gateway.reached();
                tracing::error!(gateway = %authority(&job.group.url), message = %job.original.id, detail,
                    "a reply cannot be understood; the mail is held");
                self.finish(job, |_| Disposition::Held(detail.clone()), &detail)
                    .await;
            }
            Meaning::Later(later) => self.later(job, later, reply.status.as_u16(), now).await,
        }
    }

    async fn later(&self, job: Box<Job>, later: Later, status: u16, now: Timestamp) {
        let gateway = authority(&job.group.url);
        if status == 409 && job.group.earlier().is_some() {
            tracing::error!(gateway, message = %job.original.id,
                "the gateway has this exchange with other content, as after a change of `name`; what it has may be this very mail: \
                 look for the exchange in the gateway's queue, then cancel the mail here or submit it anew");
            let held = Disposition::Held("the gateway has this exchange with other content".into());
            self.finish(job, |_| held.clone(), &later.detail).await;
            return;
        }
        let mut wait = later.after;
        match self.config.paths.get(&job.group.path) {
            Some(settings) if later.whole_gateway => {
                let block = self.block(&job, settings, now, later.after);
                wait = Some(lightpost_clock::until(now, block.until));
                if block.new && matches!(status, 401 | 403 | 407) {
                    tracing::error!(
                        gateway,
                        detail = later.detail,
                        "the gateway does not let us in; mail for it waits: set [tls] certificate or the path's token, or ask its operator to add us as a [[peer]]"
                    );
                } else if block.new {
                    tracing::warn!(gateway, detail = later.detail, until = %block.until, "a gateway takes nothing now");
                }
            }
            _ => job.group.gateway.reached(),
        }
        // That this copy was not taken says nothing about one that went before.
        let exchange = match (later.not_taken, job.group.earlier()) {
            (true, None) => Exchanged::Refused,
            (true, Some(_)) => job.group.unanswered(),
            (false, _) => Exchanged::Open,
        };
        self.retry(job, later.reason, wait, exchange, &later.detail).await;
    }

    /// Blocks a job's gateway. No wait that it asks for goes beyond what the path itself may ask for.
    fn block(&self, job: &Job, settings: &PathSettings, now: Timestamp, asked: Option<Duration>) -> Block {
        let most = settings
            .retry_longest
            .max(settings.path.outage_max)
            .max(LONGEST_ASKED);
        let policy = settings.policy(job.facts.size);
        let asked = asked.map(|asked| asked.min(most));
        job.group.gateway.failed(now, &policy, asked)
    }

    pub(crate) async fn accepted(&self, mut job: Box<Job>, refused: Vec<RefusedRecipient>, said: &str) {
        let (original, late) = (job.original.clone(), job.late.take());
        let gateway = authority(&job.group.url);
        let mut fates = job.all(|_| Disposition::Delivered, said);
        let mut strange = Vec::new();
        for one in refused {
            let mut found = false;
            for fate in fates
                .iter_mut()
                .filter(|fate| one.is(&fate.recipient.recipient.address))
            {
                found = true;
                fate.disposition = Disposition::Failed(one.code);
                fate.detail.clone_from(&one.detail);
            }
            if !found {
                strange.push(one.address);
            }
        }
        if !strange.is_empty() {
            let detail = format!(
                "the gateway refused a recipient that it was not given: {}",
                strange.join(", ")
            );
            tracing::error!(gateway, message = %original.id, detail, "a reply cannot be understood; the mail is held");
            for fate in &mut fates {
                if fate.disposition == Disposition::Delivered {
                    fate.disposition = Disposition::Held(detail.clone());
                    fate.detail.clone_from(&detail);
                }
            }
        }
        self.settle(original, fates, late).await;
    }

    async fn failed(&self, job: Box<Job>, failure: &Failure, begun: Timestamp) {
        let detail = failure.to_string();
        match failure {
            Failure::Unreachable { .. } => self.unreachable(job, &detail, begun).await,
            Failure::Interrupted { .. } | Failure::Object(_) => {
                self.again(job, WaitReason::Interrupted, None, &detail).await;
            }
            Failure::NoReply { .. } => self.again(job, WaitReason::NoReply, None, &detail).await,
            Failure::TooLarge { .. } => {
                self.finish(job, |_| Disposition::Failed(TOO_LARGE), &detail)
                    .await;
            }
        }
    }

    /// No octet has left: another gateway may take it at once.
    async fn unreachable(&self, job: Box<Job>, detail: &str, begun: Timestamp) {
        let now = self.clock.now();
        let Some(settings) = self.config.paths.get(&job.group.path) else {
            return;
        };
        let (gateway, url) = (job.group.gateway.clone(), job.group.url.clone());
        let block = self.block(&job, settings, now, None);
        let other = |one: &ClaimedRecipient| self.other_gateway(&one.destination, &url, now);
        if job.group.recipients.iter().any(|one| other(one) == Other::Up) {
            gateway.put_aside(now, lightpost_clock::until(begun, now), settings.lifetime / 8);
        }
        if block.new {
            tracing::warn!(gateway = %authority(&url), detail, until = %block.until, "a gateway cannot be reached");
        }
        // What may have arrived at this gateway goes to another one only when no reply can come any more.
        let reply = settings.reply(job.facts.size);
        let open = job.group.repeats.as_ref();
        let owed = open.is_some_and(|open| now < add(open.begun, reply));
        // The recipients of an open exchange stay together.
        let together = open.map(|_| match owed {
            true => Other::None,
            false => job
                .group
                .recipients
                .iter()
                .map(other)
                .min()
                .unwrap_or(Other::None),
        });
        let others = together.is_some_and(|other| other != Other::None);
        if others {
            tracing::warn!(message = %job.original.id, "no reply came in time and the gateway is down: another one takes over, the mail may arrive twice");
        }
        let policy = settings.policy(job.facts.size);
        let (attempts, expires) = job.shared_times();
        let exchange = job.group.unanswered();
        let disposition = |one: &ClaimedRecipient| match together.unwrap_or_else(|| other(one)) {
            Other::Up => retry(now, WaitReason::Unreachable, false, Exchanged::Closed),
            Other::Suspect => {
                let due = add(now, policy.wait(attempts)).min(expires);
                retry(due, WaitReason::Unreachable, true, Exchanged::Closed)
            }
            Other::None => retry(block.until.min(expires), WaitReason::Unreachable, true, exchange),
        };
        self.finish(job, disposition, detail).await;
    }

    /// Tried again by the path's policy, with the same exchange.
    pub(crate) async fn again(
        &self,
        job: Box<Job>,
        reason: WaitReason,
        at_least: Option<Duration>,
        detail: &str,
    ) {
        self.retry(job, reason, at_least, Exchanged::Open, detail).await;
    }

    async fn retry(
        &self,
        job: Box<Job>,
        reason: WaitReason,
        at_least: Option<Duration>,
        exchange: Exchanged,
        detail: &str,
    ) {
        let now = self.clock.now();
        let (attempts, expires) = job.shared_times();
        let wait = match self.config.paths.get(&job.group.path) {
            Some(settings) => settings.policy(job.facts.size).wait(attempts),
            None => self.discovery_wait(job.group.recipients.first()),
        };
        let due = add(now, wait.max(at_least.unwrap_or_default()));
        // An open exchange is repeated as long as one of its recipients may still be delivered to.
        let last = job.group.recipients.iter().map(|one| one.expires).max();
        let over = |one: &ClaimedRecipient| {
            now >= if exchange != Exchanged::Open {
                one.expires
            } else {
                last.unwrap_or(one.expires)
            }
        };
        let disposition = |one: &ClaimedRecipient| match over(one) {
            true => Disposition::Expired,
            false if now < expires => retry(due.min(expires), reason, true, exchange),
            false => retry(due.min(last.unwrap_or(due)), reason, true, exchange),
        };
        self.finish(job, disposition, detail).await;
    }

    async fn finish(
        &self,
        mut job: Box<Job>,
        disposition: impl Fn(&ClaimedRecipient) -> Disposition,
        detail: &str,
    ) {
        let (original, late) = (job.original.clone(), job.late.take());
        self.settle(original, job.all(disposition, detail), late).await;
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
