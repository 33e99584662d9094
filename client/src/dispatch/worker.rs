//! One destination's worker: claims what is due, plans it, stores that it leaves, lets it leave.

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt, stream};
use lightpost_clock::add;
use lightpost_queue::{Claim, ClaimedMessage};
use tokio::sync::OwnedSemaphorePermit;
use ulid::Ulid;
use url::Url;

use super::{
    LEASE, Shared,
    gateway::{Admission, Probe},
    plan::{Group, crowded, hops_for},
    send::{Job, Leaving},
    settle::Original,
};
use crate::discover::NextHops;

/// Mails that are claimed at once where none of them can leave.
const DRAIN: usize = 256;
/// Bodies that are read at once.
const READERS: usize = 8;

/// Room at gateways that a worker holds while it claims.
#[derive(Default)]
struct Room {
    permits: HashMap<String, OwnedSemaphorePermit>,
    probe: Option<(Url, Probe)>,
    messages: usize,
}

impl Room {
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
}

impl Shared {
    /// Works until nothing more is due for `destination`; returns how many messages were claimed.
    pub(crate) async fn serve(self: Arc<Self>, destination: String) -> usize {
        let mut total = 0;
        while !self.stop.is_cancelled() {
            let room = match self.discovery.find(&destination).await {
                Ok(found) => match self.room(&found).await {
                    Some(room) => room,
                    None => break,
                },
                // The plan says what becomes of each of them.
                Err(_) => Room {
                    messages: DRAIN,
                    ..Room::default()
                },
            };
            let claimed = match self.claim(&destination, room.messages).await {
                Some(claimed) if !claimed.is_empty() => claimed,
                _ => break,
            };
            total += claimed.len();
            self.dispatch(claimed, room).await;
        }
        total
    }

    /// Waits for room at a gateway of `found`; where all of them are down, there is room for none of what is claimed. `None` ends the
    /// worker.
    async fn room(&self, found: &NextHops) -> Option<Room> {
        let settings = self.config.paths.get(&found.path)?;
        loop {
            let now = self.clock.now();
            let mut probing = None;
            for hop in hops_for(found, Ulid::from_parts(0, rand::random())) {
                let gateway = self.gateways.get(hop.url.as_str(), settings.concurrency);
                let (probe, most) = match gateway.admit(now) {
                    Admission::Open => (None, settings.batch),
                    Admission::Probe(probe) => (Some((hop.url.clone(), probe)), 1),
                    Admission::Probing => {
                        probing.get_or_insert(gateway);
                        continue;
                    }
                    Admission::Down(_) => continue,
                };
                let permit = tokio::select! {
                    permit = gateway.permit(most) => permit?,
                    () = self.stop.cancelled() => return None,
                };
                return Some(Room {
                    messages: permit.num_permits(),
                    permits: HashMap::from([(hop.url.to_string(), permit)]),
                    probe,
                });
            }
            let Some(gateway) = probing else {
                return Some(Room {
                    messages: DRAIN,
                    ..Room::default()
                });
            };
            // Soon it is known whether mail can leave.
            tokio::select! {
                () = gateway.changed() => {}
                () = self.clock.sleep(settings.retry_first) => {}
                () = self.stop.cancelled() => return None,
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
    async fn dispatch(self: &Arc<Self>, claimed: Vec<ClaimedMessage>, mut room: Room) {
        let (mut jobs, mut large) = (Vec::new(), Vec::new());
        for message in claimed {
            let original = Arc::new(Original::from(&message));
            let plan = self.plan(&message, &mut room.probe);
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
            self.settle(original, fates).await;
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
        let leaving: Vec<Leaving> = stream::iter(jobs)
            .map(|job| self.prepare(job))
            .buffered(READERS)
            .filter_map(std::future::ready)
            .collect()
            .await;
        self.leave(leaving).await;
    }
}
