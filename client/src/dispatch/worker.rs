//! One destination's worker: claims what is due, plans it, stores that it leaves, lets it leave.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::select_all, stream};
use jiff::Timestamp;
use lightpost_clock::{add, until};
use lightpost_intake::Original;
use lightpost_queue::{Claim, ClaimedMessage, Status};
use tokio::sync::OwnedSemaphorePermit;
use ulid::Ulid;
use url::Url;

use super::{
    LEASE, Shared,
    gateway::{Admission, Gateway, Probe, SEARCHES},
    plan::{Group, Known, crowded, hops_for},
    send::{Job, Leaving},
};
use crate::{
    config::PathSettings,
    discover::{DiscoveryError, Hop, NextHops},
};

/// Mails that are claimed at once where none of them can leave.
const DRAIN: usize = 256;
/// While nothing can leave, what is due is looked through for mail that has expired, each time after this part of a lifetime.
const LOOK_THROUGH: u32 = 100;
/// Bodies that are read at once.
const READERS: usize = 8;
/// Who waits for the outcome of another's probe looks again after this at the latest.
const PROBING: Duration = Duration::from_secs(5);

/// What a worker leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// Messages that it claimed.
    pub(crate) claimed: usize,
    /// Nothing for this destination can leave before this time.
    pub(crate) until: Option<Timestamp>,
}

/// Room at gateways that a worker holds while it claims.
#[derive(Default)]
pub(crate) struct Room {
    permits: HashMap<String, OwnedSemaphorePermit>,
    probe: Option<(Url, Probe)>,
    messages: usize,
}

impl Room {
    fn at(hop: &Hop, permit: OwnedSemaphorePermit, probe: Option<Probe>) -> Self {
        Self {
            messages: permit.num_permits(),
            permits: HashMap::from([(hop.url.to_string(), permit)]),
            probe: probe.map(|probe| (hop.url.clone(), probe)),
        }
    }

    /// For mail that cannot leave.
    fn drain() -> Self {
        Self {
            messages: DRAIN,
            ..Self::default()
        }
    }

    /// The probe for a gateway, if it is held.
    pub(crate) fn probe_of(&mut self, url: &Url) -> Option<Probe> {
        self.probe
            .take_if(|(probed, _)| probed == url)
            .map(|(_, probe)| probe)
    }

    /// Whether [`Room::take`] would give a permit.
    pub(crate) fn is_free(&self, url: &Url, gateway: &Gateway) -> bool {
        self.permits.contains_key(url.as_str()) || gateway.has_room()
    }

    /// A permit for one exchange to `url`.
    fn take(&mut self, group: &Group) -> Option<OwnedSemaphorePermit> {
        if let Some(held) = self.permits.get_mut(group.url.as_str()) {
            if held.num_permits() > 1 {
                return held.split(1);
            }
            return self.permits.remove(group.url.as_str());
        }
        group.gateway.more(1)
    }

    fn leads_to(&self, hops: &NextHops) -> bool {
        hops.hops
            .iter()
            .any(|hop| self.permits.contains_key(hop.url.as_str()))
    }
}

/// What a look for room found.
enum Found {
    Room(Room),
    /// Every gateway is down; when the first is tried again.
    Down(Timestamp),
    /// The dispatcher stops, or the path is gone.
    End,
}

impl Shared {
    /// Works until nothing more is due for `destination`, or nothing for it can leave.
    pub(crate) async fn serve(self: Arc<Self>, destination: String) -> Ended {
        let mut ended = Ended::default();
        while !self.stop.is_cancelled() {
            let (found, room, until) = tokio::select! {
                ready = self.ready(&destination) => match ready {
                    Ready::Go(found, room, until) => (found, room, until),
                    Ready::Until(until) => {
                        ended.until = Some(until);
                        break;
                    }
                    Ready::End => break,
                },
                () = self.stop.cancelled() => break,
            };
            // Waiting for a name server or for room takes no place from other destinations, working does.
            let Ok(_working) = self.working.acquire().await else {
                break;
            };
            let claimed = match self.claim(&destination, room.messages).await {
                Some(claimed) if !claimed.is_empty() => claimed,
                _ => {
                    if until.is_some() {
                        let now = self.clock.now();
                        self.parked().insert(destination, now);
                    }
                    ended.until = until;
                    break;
                }
            };
            ended.claimed += claimed.len();
            self.dispatch(&destination, &found, claimed, room).await;
        }
        ended
    }

    /// Waits until something for `destination` can leave.
    async fn ready(&self, destination: &str) -> Ready {
        loop {
            let found = self.discovery.find(destination).await;
            let hops = match &found {
                Ok(hops) => hops,
                // The plan says what becomes of each of them.
                Err(_) => return Ready::Go(Box::new(found), Room::drain(), None),
            };
            let Some(settings) = self.config.paths.get(&hops.path) else {
                return Ready::End;
            };
            match self.room(hops, settings).await {
                Found::Room(room) => {
                    self.parked().remove(destination);
                    // It may have been a long wait; where mail goes may have changed.
                    let found = self.discovery.find(destination).await;
                    if found.as_ref().is_ok_and(|hops| room.leads_to(hops)) {
                        return Ready::Go(Box::new(found), room, None);
                    }
                }
                Found::Down(until) if self.looks_through(destination, settings) => {
                    return Ready::Go(Box::new(found), Room::drain(), Some(until));
                }
                Found::Down(until) => return Ready::Until(until),
                Found::End => return Ready::End,
            }
        }
    }

    /// Whether what cannot leave is to be claimed all the same, so that mail at the end of its lifetime is given up. Each time
    /// everything that is due is written to, so this must be rare.
    fn looks_through(&self, destination: &str, settings: &PathSettings) -> bool {
        let now = self.clock.now();
        let period = settings.lifetime / LOOK_THROUGH;
        let mut parked = self.parked();
        let since = parked.entry(destination.to_owned()).or_insert(now);
        until(*since, now) >= period
    }

    /// Room at a gateway of `found`.
    async fn room(&self, found: &NextHops, settings: &PathSettings) -> Found {
        loop {
            let now = self.clock.now();
            let (mut probing, mut down, mut full) = (None, None, Vec::new());
            let hops = hops_for(found, Ulid::from_parts(0, rand::random()));
            for search in SEARCHES {
                for hop in &hops {
                    // Others are for the time when those before them fail, not for when they are busy.
                    let first: Option<&(&Hop, Arc<Gateway>)> = full.first();
                    if first.is_some_and(|(first, _)| first.priority != hop.priority) {
                        break;
                    }
                    let gateway = self.gateways.get(hop.url.as_str(), settings.concurrency);
                    let (probe, most) = match gateway.admit(now, search) {
                        Admission::Open => (None, settings.batch),
                        Admission::Probe(probe) => (Some(probe), 1),
                        Admission::Probing => {
                            probing.get_or_insert(gateway);
                            continue;
                        }
                        Admission::Down(at) => {
                            down = Some(down.map_or(at, |down: Timestamp| down.min(at)));
                            continue;
                        }
                    };
                    match gateway.more(most) {
                        Some(permit) => return Found::Room(Room::at(hop, permit, probe)),
                        None => full.push((hop, gateway)),
                    }
                }
                if !full.is_empty() {
                    break;
                }
            }
            if !full.is_empty() {
                let waits = full
                    .iter()
                    .map(|(_, gateway)| gateway.permit(settings.batch, &self.clock).boxed());
                let (permit, which, _) = select_all(waits).await;
                let Some((permit, (hop, gateway))) = permit.zip(full.get(which)) else {
                    return Found::End;
                };
                if gateway.healthy() {
                    return Found::Room(Room::at(hop, permit, None));
                }
            } else if let Some(gateway) = probing {
                // Soon it is known whether mail can leave.
                tokio::select! {
                    () = gateway.changed() => {}
                    () = self.clock.sleep(settings.retry_first.min(PROBING)) => {}
                }
            } else {
                return Found::Down(down.unwrap_or_else(|| add(now, settings.retry_first)));
            }
        }
    }

    async fn claim(&self, destination: &str, limit: usize) -> Option<Vec<ClaimedMessage>> {
        let now = self.clock.now();
        let claim = Claim {
            owner: &self.config.name,
            destination,
            now,
            until: add(now, LEASE),
            limit,
        };
        match self.store.claim(claim).await {
            Ok(claimed) => Some(claimed),
            Err(error) => {
                tracing::error!(%error, "due mail cannot be claimed; trying again");
                self.clock.sleep(super::STORE_RETRY).await;
                None
            }
        }
    }

    /// Plans claimed messages and sends what can leave.
    async fn dispatch(
        self: &Arc<Self>,
        destination: &str,
        found: &Looked,
        claimed: Vec<ClaimedMessage>,
        mut room: Room,
    ) {
        let (mut jobs, mut large) = (Vec::new(), Vec::new());
        for message in claimed {
            let original = Arc::new(Original::from(&message));
            let known = Known {
                destination,
                found,
                incomplete: self.incomplete(&message).await,
            };
            let plan = self.plan(&message, &known, &mut room);
            let mut fates = plan.fates;
            for group in plan.groups {
                match room.take(&group) {
                    Some(permit) => {
                        let job = Job::new(&message, original.clone(), group, permit);
                        if job.is_large() {
                            large.push(job);
                        } else {
                            jobs.push(job);
                        }
                    }
                    None => fates.extend(crowded(group, self.clock.now())),
                }
            }
            self.settle(original, fates, None).await;
        }
        drop(room);
        for job in large {
            // Reading a large body takes a while; the small ones do not wait for it.
            let shared = self.clone();
            self.running.spawn(async move {
                if let Some(leaving) = shared.prepare(job).await {
                    shared.leave(vec![leaving]).await;
                }
            });
        }
        let leaving: Vec<Box<Leaving>> = stream::iter(jobs)
            .map(|job| self.prepare(job))
            .buffered(READERS)
            .filter_map(std::future::ready)
            .collect()
            .await;
        self.leave(leaving).await;
    }

    /// Open exchanges of which only some recipients were claimed while the others come due later. Rare: all recipients of an
    /// exchange get the same due time.
    async fn incomplete(&self, message: &ClaimedMessage) -> HashMap<Ulid, Timestamp> {
        let mut incomplete = HashMap::new();
        for exchange in message.recipients.iter().filter_map(|one| one.exchange.as_ref()) {
            let claimed = |id| message.recipients.iter().any(|one| one.id == id);
            if exchange.recipients.iter().all(|id| claimed(*id)) || incomplete.contains_key(&exchange.id) {
                continue;
            }
            let Ok(Some(view)) = self.store.message(message.id).await else {
                continue;
            };
            let waits = |status| matches!(status, Status::Queued | Status::Leased | Status::Awaiting);
            let others = view
                .recipients
                .iter()
                .filter(|one| one.exchange == Some(exchange.id) && waits(one.status) && !claimed(one.id));
            if let Some(due) = others.map(|one| one.due.unwrap_or(one.expires)).max() {
                incomplete.insert(exchange.id, due);
            }
        }
        incomplete
    }
}

/// Where a destination's mail goes.
type Looked = Result<NextHops, DiscoveryError>;

/// What a worker waits for.
enum Ready {
    /// Claim; with a time where all that is due is looked through although nothing can leave before then.
    Go(Box<Looked>, Room, Option<Timestamp>),
    /// Nothing can leave before this time.
    Until(Timestamp),
    End,
}
