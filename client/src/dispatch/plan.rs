//! Which exchange carries which recipients of a claimed message, and what becomes of those that nothing can carry now.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use lightpost_clock::add;
use lightpost_queue::{
    ClaimedMessage, ClaimedRecipient, Disposition, Exchanged, OpenExchange, RecipientId, WaitReason,
};
use lightpost_transport::bundle::options::NoReply;
use rand::{SeedableRng, rngs::SmallRng};
use ulid::Ulid;
use url::Url;

use super::{
    Shared,
    gateway::{Admission, Gateway, Probe, SEARCHES, Search},
    settle::Fate,
    worker::Room,
};
use crate::{
    config::PathSettings,
    discover::{DiscoveryError, Hop, NextHops, order, same_gateway},
};

/// While a gateway has no room for another exchange, mail that belongs to it alone comes back after this.
const FULL: Duration = Duration::from_secs(1);

/// Recipients that travel together.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) url: Url,
    pub(crate) path: String,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) recipients: Vec<ClaimedRecipient>,
    /// The exchange that is repeated.
    pub(crate) repeats: Option<OpenExchange>,
    /// The closed one that is opened again, now that the same recipients come back to its gateway.
    pub(crate) reopens: Option<OpenExchange>,
    /// Held until the outcome is known, where the gateway was down.
    #[expect(dead_code, reason = "dropping it is its use")]
    pub(crate) probe: Option<Probe>,
}

impl Group {
    /// The exchange that its gateway may have already: what leaves is the same object with the same id.
    pub(crate) fn earlier(&self) -> Option<&OpenExchange> {
        self.repeats.as_ref().or(self.reopens.as_ref())
    }

    /// What becomes of its exchange where no answer came or none could come.
    pub(crate) fn unanswered(&self) -> Exchanged {
        match self.repeats {
            Some(_) => Exchanged::Open,
            None => Exchanged::Closed,
        }
    }

    /// Finds what is opened again among the closed exchanges of the message.
    fn reopen(&mut self, closed: &[OpenExchange]) {
        let recipients: BTreeSet<RecipientId> = self.recipients.iter().map(|one| one.id).collect();
        let same = |exchange: &&OpenExchange| {
            exchange.gateway == self.url.as_str()
                && exchange.recipients.len() == recipients.len()
                && exchange.recipients.iter().all(|id| recipients.contains(id))
        };
        self.reopens = closed.iter().rfind(same).cloned();
    }
}

/// What is to be done with a claimed message.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) groups: Vec<Group>,
    pub(crate) fates: Vec<Fate>,
}

/// Where one recipient can go.
enum Way {
    To(Url, String, Arc<Gateway>, Option<Probe>),
    Nowhere(Disposition, String),
}

/// The hops of a destination in the order for one message: its recipients at several destinations meet at one gateway where they can.
pub(crate) fn hops_for(hops: &NextHops, message: Ulid) -> Vec<Hop> {
    // The random part of the id, so that equal priorities are drawn by weight over all messages.
    let seed = message.random() as u64;
    order(hops.hops.clone(), &mut SmallRng::seed_from_u64(seed))
}

/// Whether a destination has another gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Other {
    /// None that may be tried.
    None,
    /// One that failed a while ago and may be tried again.
    Suspect,
    /// One that nothing speaks against.
    Up,
}

/// What is known beside a claimed message when it is planned.
pub(crate) struct Known<'a> {
    /// The destination that it was claimed for.
    pub(crate) destination: &'a str,
    /// Where that one's mail goes: good for this claim, even when the records' time ends meanwhile.
    pub(crate) found: &'a Result<NextHops, DiscoveryError>,
    /// Open exchanges whose other recipients come due later, and when.
    pub(crate) incomplete: HashMap<Ulid, Timestamp>,
}

impl Known<'_> {
    fn hops(&self, shared: &Shared, destination: &str) -> Option<Result<NextHops, DiscoveryError>> {
        if destination == self.destination {
            return Some(self.found.clone());
        }
        shared.discovery.known(destination)
    }
}

impl Shared {
    /// Plans a message. `room` is what the caller holds at gateways.
    pub(crate) fn plan(&self, message: &ClaimedMessage, known: &Known<'_>, room: &mut Room) -> Plan {
        let now = self.clock.now();
        let mut plan = Plan::default();
        let mut recipients = message.recipients.clone();
        // The object of an exchange must not depend on the order in which its recipients were claimed.
        recipients.sort_by_key(|recipient| recipient.id);
        let (open, fresh): (Vec<_>, Vec<_>) = recipients.into_iter().partition(|one| one.exchange.is_some());
        self.plan_repeats(&mut plan, message, open, now, known, room);
        for recipient in fresh {
            if recipient.expires <= now {
                plan.fates.push(expired(recipient));
                continue;
            }
            match self.way(&plan, message, &recipient, now, known, room) {
                Way::To(url, path, gateway, probe) => join(&mut plan, url, path, gateway, probe, recipient),
                Way::Nowhere(disposition, detail) => plan.fates.push(Fate {
                    recipient,
                    disposition,
                    remote: None,
                    detail,
                }),
            }
        }
        for group in plan.groups.iter_mut().filter(|group| group.repeats.is_none()) {
            group.reopen(&message.closed);
        }
        plan
    }

    fn plan_repeats(
        &self,
        plan: &mut Plan,
        message: &ClaimedMessage,
        mut open: Vec<ClaimedRecipient>,
        now: Timestamp,
        known: &Known<'_>,
        room: &mut Room,
    ) {
        while let Some(exchange) = open.first().and_then(|one| one.exchange.clone()) {
            let same =
                |one: &ClaimedRecipient| one.exchange.as_ref().is_some_and(|other| other.id == exchange.id);
            let (together, others): (Vec<_>, Vec<_>) = open.into_iter().partition(same);
            open = others;
            if together.iter().all(|one| one.expires <= now) {
                plan.fates.extend(together.into_iter().map(expired_open));
                continue;
            }
            match self.repeat(message, &together, &exchange, now, known, room) {
                Ok(mut group) => {
                    group.recipients = together;
                    plan.groups.push(group);
                }
                Err((disposition, detail)) => plan.fates.extend(together.into_iter().map(|recipient| Fate {
                    recipient,
                    disposition: disposition.clone(),
                    remote: Some(exchange.gateway.clone()),
                    detail: detail.clone(),
                })),
            }
        }
    }

    /// The group that repeats `exchange`, or what happens to its recipients instead.
    fn repeat(
        &self,
        message: &ClaimedMessage,
        together: &[ClaimedRecipient],
        exchange: &OpenExchange,
        now: Timestamp,
        known: &Known<'_>,
        room: &mut Room,
    ) -> Result<Group, (Disposition, String)> {
        let destination = together
            .first()
            .map(|one| one.destination.as_str())
            .unwrap_or_default();
        let anew = |detail: &str| {
            Err((
                retry(now, WaitReason::NoReply, false, Exchanged::Closed),
                detail.to_owned(),
            ))
        };
        let (Some(settings), Ok(url)) = (self.settings(destination), Url::parse(&exchange.gateway)) else {
            let due = add(now, self.discovery_wait(together.first()));
            let detail = format!("no route is for {destination} any more");
            return Err((retry(due, WaitReason::Discovery, true, Exchanged::Open), detail));
        };
        if let Some(due) = known.incomplete.get(&exchange.id) {
            let due = (*due).max(add(now, FULL));
            let detail = "waits for the other recipients of its exchange".to_owned();
            return Err((retry(due, WaitReason::NoReply, false, Exchanged::Open), detail));
        }
        let mut carried: Vec<RecipientId> = exchange.recipients.clone();
        carried.sort_unstable();
        if !carried.iter().eq(together.iter().map(|one| &one.id)) {
            tracing::warn!(message = %message.id, exchange = %exchange.id, "an exchange cannot be repeated as it was and is begun anew");
            return anew("begun anew: the exchange had other recipients");
        }
        let given_up = settings.rules.bundle.no_reply == NoReply::GiveUp && now >= exchange.until;
        if let (true, Some(bundle)) = (given_up, &exchange.custody) {
            let detail = format!("no answer came to bundle {bundle}, and the path says to give up then");
            return Err((Disposition::Expired, detail));
        }
        let gateway = self.gateways.get(url.as_str(), settings.concurrency);
        let ran_out = now >= add(exchange.begun, settings.reply(message.facts.size));
        let other = self.other_gateway(destination, &url, now) != Other::None;
        if ran_out && other && gateway.down(now).is_some() {
            tracing::warn!(message = %message.id, exchange = %exchange.id, gateway = %url,
                "no reply came and the gateway is down: another one takes over, the mail may arrive twice");
            return anew("given to another gateway after the time for a reply ran out; it may arrive twice");
        }
        let probe = match admit(&url, &gateway, now, Search::Last, room) {
            Ok(probe) => probe,
            Err(until) => {
                let until = until.unwrap_or_else(|| add(now, settings.retry_first));
                let detail = format!("{} is down; the exchange stays its own", authority(&url));
                return Err((
                    retry(until, WaitReason::Unreachable, false, Exchanged::Open),
                    detail,
                ));
            }
        };
        Ok(Group {
            url,
            path: settings.path.name.clone(),
            gateway,
            recipients: Vec::new(),
            repeats: Some(exchange.clone()),
            reopens: None,
            probe,
        })
    }

    /// Whether another gateway of the destination is up, by what is known of it, be that old.
    pub(crate) fn other_gateway(&self, destination: &str, than: &Url, now: Timestamp) -> Other {
        let Some(found) = self.discovery.last_known(destination) else {
            return Other::None;
        };
        let Some(settings) = self.config.paths.get(&found.path) else {
            return Other::None;
        };
        let others = found.hops.iter().filter(|hop| !same_gateway(&hop.url, than));
        others
            .map(|hop| {
                let gateway = self.gateways.get(hop.url.as_str(), settings.concurrency);
                match gateway.down(now) {
                    _ if gateway.healthy() => Other::Up,
                    None => Other::Suspect,
                    Some(_) => Other::None,
                }
            })
            .max()
            .unwrap_or(Other::None)
    }

    fn way(
        &self,
        plan: &Plan,
        message: &ClaimedMessage,
        recipient: &ClaimedRecipient,
        now: Timestamp,
        known: &Known<'_>,
        room: &mut Room,
    ) -> Way {
        let found = match known.hops(self, &recipient.destination) {
            Some(Ok(found)) => found,
            Some(Err(error)) => return self.undiscovered(recipient, &error, now),
            // Nobody has asked yet. Its own worker does, without holding up this one.
            None => {
                return Way::Nowhere(
                    retry(now, WaitReason::Discovery, false, Exchanged::Closed),
                    "its next hop is looked up first".into(),
                );
            }
        };
        let Some(settings) = self.config.paths.get(&found.path) else {
            let due = add(now, self.discovery_wait(Some(recipient)));
            return Way::Nowhere(
                retry(due, WaitReason::Discovery, true, Exchanged::Closed),
                "its path is gone".into(),
            );
        };
        let hops = hops_for(&found, message.id);
        let mut until: Option<Timestamp> = None;
        for search in SEARCHES {
            let mut full: Option<(&Hop, Arc<Gateway>)> = None;
            for hop in &hops {
                // One with room is preferred among those of equal priority only.
                if full
                    .as_ref()
                    .is_some_and(|(first, _)| first.priority != hop.priority)
                {
                    break;
                }
                let gateway = self.gateways.get(hop.url.as_str(), settings.concurrency);
                // What already goes there takes this recipient along.
                let goes = |group: &Group| group.repeats.is_none() && group.url == hop.url;
                if plan.groups.iter().any(goes) {
                    return Way::To(hop.url.clone(), found.path, gateway, None);
                }
                match admit(&hop.url, &gateway, now, search, room) {
                    Ok(None) if !room.is_free(&hop.url, &gateway) => {
                        full.get_or_insert((hop, gateway));
                    }
                    Ok(probe) => return Way::To(hop.url.clone(), found.path, gateway, probe),
                    Err(at) => {
                        let at = at.unwrap_or_else(|| add(now, settings.retry_first));
                        until = Some(until.map_or(at, |until| until.min(at)));
                    }
                }
            }
            if let Some((hop, gateway)) = full {
                return Way::To(hop.url.clone(), found.path, gateway, None);
            }
        }
        let due = until.unwrap_or_else(|| add(now, settings.retry_first));
        Way::Nowhere(
            retry(
                due.min(recipient.expires),
                WaitReason::Unreachable,
                false,
                Exchanged::Closed,
            ),
            "no gateway can be reached; it waits until one is tried again".into(),
        )
    }

    fn undiscovered(&self, recipient: &ClaimedRecipient, error: &DiscoveryError, now: Timestamp) -> Way {
        if let Some(code) = error.permanent() {
            return Way::Nowhere(Disposition::Failed(code), error.to_string());
        }
        let due = add(now, self.discovery_wait(Some(recipient))).min(recipient.expires);
        Way::Nowhere(
            retry(due, WaitReason::Discovery, true, Exchanged::Closed),
            error.to_string(),
        )
    }

    /// The wait after another fruitless lookup.
    pub(super) fn discovery_wait(&self, recipient: Option<&ClaimedRecipient>) -> Duration {
        let attempts = recipient.map_or(1, |recipient| recipient.attempts.saturating_add(1));
        let settings = recipient.and_then(|recipient| self.settings(&recipient.destination));
        // Without a path there is no policy; an operator is at work on the routes.
        settings.map_or(Duration::from_secs(300), |settings| {
            settings.policy(0).wait(attempts)
        })
    }

    /// The settings of the path that a destination's mail takes.
    pub(crate) fn settings(&self, destination: &str) -> Option<&PathSettings> {
        let route = self.discovery.route(destination)?;
        self.config.paths.get(&route.path)
    }
}

/// The right to use a gateway, or when it is tried again.
fn admit(
    url: &Url,
    gateway: &Arc<Gateway>,
    now: Timestamp,
    search: Search,
    room: &mut Room,
) -> Result<Option<Probe>, Option<Timestamp>> {
    if let Some(probe) = room.probe_of(url) {
        return Ok(Some(probe));
    }
    match gateway.admit(now, search) {
        Admission::Open => Ok(None),
        Admission::Probe(probe) => Ok(Some(probe)),
        Admission::Probing => Err(None),
        Admission::Down(until) => Err(Some(until)),
    }
}

/// Adds a recipient to the new exchange for its gateway.
fn join(
    plan: &mut Plan,
    url: Url,
    path: String,
    gateway: Arc<Gateway>,
    probe: Option<Probe>,
    recipient: ClaimedRecipient,
) {
    let found = plan
        .groups
        .iter_mut()
        .find(|group| group.repeats.is_none() && group.url == url && group.path == path);
    match found {
        Some(group) => group.recipients.push(recipient),
        None => plan.groups.push(Group {
            url,
            path,
            gateway,
            recipients: vec![recipient],
            repeats: None,
            reopens: None,
            probe,
        }),
    }
}

/// What becomes of recipients whose gateway has no room now.
pub(crate) fn crowded(group: Group, now: Timestamp) -> impl Iterator<Item = Fate> {
    let exchange = group.unanswered();
    let detail = format!("as much as allowed is on its way to {}", authority(&group.url));
    group.recipients.into_iter().map(move |recipient| Fate {
        recipient,
        disposition: retry(add(now, FULL), WaitReason::Busy, false, exchange),
        remote: None,
        detail: detail.clone(),
    })
}

/// To be tried again.
pub(crate) fn retry(due: Timestamp, reason: WaitReason, counted: bool, exchange: Exchanged) -> Disposition {
    Disposition::Retry {
        due,
        reason,
        counted,
        exchange,
    }
}

/// Given up at the end of its lifetime.
pub(crate) fn expired(recipient: ClaimedRecipient) -> Fate {
    let detail = match recipient.attempts {
        0 => "could not be sent within its lifetime".to_owned(),
        1 => "could not be delivered within its lifetime, after 1 attempt".to_owned(),
        attempts => format!("could not be delivered within its lifetime, after {attempts} attempts"),
    };
    Fate {
        recipient,
        disposition: Disposition::Expired,
        remote: None,
        detail,
    }
}

/// The same where an exchange has no reply.
fn expired_open(recipient: ClaimedRecipient) -> Fate {
    let mut fate = expired(recipient);
    fate.detail
        .push_str("; no reply came to the last exchange, so that it may have arrived");
    fate
}

/// Host and port of a gateway, for people.
pub(crate) fn authority(url: &Url) -> String {
    match url.has_host() {
        true => url.authority().to_owned(),
        false => url.to_string(),
    }
}
