//! The node's inside: what happens to a bundle from the moment it is here.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use hardy_bpv7::{bundle::Bundle, eid::Eid, status_report::ReasonCode};
use lightpost_clock::Clock;
use lightpost_transport::bundle::agent::{BundleId, ReportEvent, Reports};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    bundle::{
        head,
        make::{self, Draft},
        onward::{self, Halt},
        report::Subject,
        stamp::Stamps,
    },
    config::NodeConfig,
    count::{Count, Counters},
    eid,
    feed::{Feed, Held},
    link::peer::Peer,
    security::Keyring,
    store::{Place, Record, Store, StoreError},
};

/// Rank of bundles that carry no class of service.
pub(crate) const NORMAL: u8 = 1;
/// How long a status report lives at least.
const REPORT_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What everything in the node shares.
pub(crate) struct Core {
    pub(crate) admin: Eid,
    pub(crate) config: NodeConfig,
    pub(crate) clock: Clock,
    pub(crate) store: Arc<Store>,
    pub(crate) stamps: Stamps,
    pub(crate) counters: Counters,
    pub(crate) keyring: Keyring,
    pub(crate) services: HashMap<u32, Arc<Feed>>,
    pub(crate) peers: HashMap<String, Arc<Peer>>,
    /// Octets of bundles that are under way from others, in KiB.
    pub(crate) inbound: Arc<Semaphore>,
    /// Connections from others.
    pub(crate) sessions: Arc<Semaphore>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// Where a destination is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Here, or through a neighbour.
    To(Place),
    /// This node itself.
    Admin,
    /// Here, but nobody is at it.
    NoEndpoint,
    /// Unknown.
    NoRoute,
}

/// Where `destination` is, for a node of this configuration.
pub(crate) fn way(config: &NodeConfig, destination: &Eid) -> Way {
    match eid::numbers(destination) {
        Some((node, 0)) if node == config.number => Way::Admin,
        Some((node, service)) if node == config.number => {
            if config.services.contains(&service) {
                Way::To(Place::Service(service))
            } else {
                Way::NoEndpoint
            }
        }
        _ => config
            .routes
            .iter()
            .find(|route| route.pattern.matches(destination))
            .map_or(Way::NoRoute, |route| Way::To(Place::Neighbour(route.via.clone()))),
    }
}

/// A bundle that is ready to leave.
pub(crate) struct Ready {
    pub(crate) held: Held,
    pub(crate) data: Bytes,
    /// Whether it is one of this node's own.
    ours: bool,
    subject: Option<Subject>,
}

impl Core {
    /// The number of the service of ours that `source` is.
    pub(crate) fn service_of(&self, source: &Eid) -> Option<u32> {
        match way(&self.config, source) {
            Way::To(Place::Service(service)) => Some(service),
            _ => None,
        }
    }

    /// The reports that are owed now that this happened to `bundle`.
    pub(crate) fn reports(&self, bundle: &Bundle, event: ReportEvent, reason: ReasonCode) -> Vec<Record> {
        self.report(Subject::of(bundle).as_ref(), event, reason)
    }

    pub(crate) fn report(
        &self,
        subject: Option<&Subject>,
        event: ReportEvent,
        reason: ReasonCode,
    ) -> Vec<Record> {
        let now = self.clock.now();
        let Some((subject, payload)) = subject.and_then(|it| Some((it, it.record(event, reason, now)?)))
        else {
            return Vec::new();
        };
        let destination = subject.report_to.clone();
        let place = match way(&self.config, &destination) {
            Way::To(place) => place,
            Way::Admin => match self.service_of(subject.source()) {
                Some(service) => Place::Service(service),
                None => return Vec::new(),
            },
            Way::NoRoute | Way::NoEndpoint => return Vec::new(),
        };
        let draft = Draft {
            source: self.admin.clone(),
            destination: destination.clone(),
            report_to: Eid::Null,
            reports: Reports::default(),
            administrative: true,
            lifetime: subject.lifetime.max(REPORT_LIFETIME),
            hops: self.config.limits.hops,
            payload: &payload,
        };
        match self.record(draft, place, NORMAL) {
            Ok((_, record)) => vec![record],
            Err(error) => {
                tracing::error!(error, "a status report could not be made");
                Vec::new()
            }
        }
    }

    /// A bundle of ours, ready for the store.
    pub(crate) fn record(
        &self,
        draft: Draft<'_>,
        place: Place,
        rank: u8,
    ) -> Result<(BundleId, Record), String> {
        let now = self.clock.now();
        let destination = draft.destination.to_string();
        let (bundle, data) = make::make(draft, self.stamps.next(now)).map_err(|error| error.to_string())?;
        let (bundle, data) = self.keyring.protect(bundle, data)?;
        let received = now.as_millisecond();
        let record = Record {
            key: head::key(&bundle.id),
            place,
            rank,
            destination,
            received,
            expires: head::expires(&bundle, received),
            verified: None,
            data,
            stamp: bundle.id.timestamp.creation_time().map(|it| it.millisecs()),
            part: None,
        };
        Ok((head::bundle_id(&bundle.id), record))
    }

    /// Makes a bundle ready to leave; `None` when it does not.
    pub(crate) async fn ready(&self, held: Held) -> Option<Ready> {
        let stored = held.stored();
        let read = self
            .store
            .load(stored)
            .await
            .map_err(|error| error.to_string())
            .and_then(|data| Ok((head::stored(&data)?, data)));
        let (bundle, data) = match read {
            Ok(it) => it,
            Err(error) => {
                tracing::error!(
                    bundle = stored.key,
                    error,
                    "a bundle cannot be read; it stays until its lifetime ends"
                );
                held.park();
                return None;
            }
        };
        let ours = eid::numbers(&bundle.id.source).is_some_and(|(node, _)| node == self.config.number);
        let stay = self.clock.now().as_millisecond().saturating_sub(stored.received);
        let data = if ours {
            Ok(data)
        } else {
            onward::onward(&bundle, &data, &self.admin, u64::try_from(stay).unwrap_or(0))
        };
        let reason = match data {
            Ok(data) => {
                let subject = Subject::of(&bundle);
                return Some(Ready {
                    held,
                    data,
                    ours,
                    subject,
                });
            }
            Err(Halt::Delete(reason)) => reason,
            Err(Halt::Unchangeable(cause)) => {
                tracing::warn!(bundle = stored.key, cause, "a bundle cannot go on and is deleted");
                ReasonCode::NoAdditionalInformation
            }
        };
        self.counters.add(Count::Deleted);
        let also = self.reports(&bundle, ReportEvent::Deleted, reason);
        self.let_go(held, !ours, also);
        None
    }

    /// A neighbour has it. `acknowledged`: it said so.
    pub(crate) fn forwarded(&self, ready: Ready, acknowledged: bool) {
        self.counters.add(Count::Forwarded);
        let reason = if acknowledged {
            ReasonCode::NoAdditionalInformation
        } else {
            ReasonCode::ForwardedOverUnidirectionalLink
        };
        let also = self.report(ready.subject.as_ref(), ReportEvent::Forwarded, reason);
        self.let_go(ready.held, !ready.ours, also);
    }

    /// A neighbour does not take it: it is offered again later, and later still, until its lifetime ends.
    pub(crate) fn refused(&self, ready: Ready, neighbour: &str, why: &str) {
        self.counters.add(Count::Refused);
        let limits = &self.config.limits;
        let bundle = ready.held.stored().key.clone();
        let wait = ready.held.put_off(limits.redial_most, limits.offer_most);
        let seconds = wait.as_secs();
        tracing::warn!(
            neighbour,
            bundle,
            why,
            seconds,
            "the neighbour does not take this bundle; it is offered again after this wait"
        );
    }

    /// Whether a neighbour refused the bundle in this row. Every one is asked: a row does not say where it waits.
    pub(crate) fn was_refused(&self, id: i64) -> bool {
        self.peers.values().any(|peer| peer.feed.was_refused(id))
    }

    /// The bundle in this row has left the store unsent.
    pub(crate) fn forget_refusals(&self, id: i64) {
        for peer in self.peers.values() {
            peer.feed.forget(id);
        }
    }

    /// One of our services has taken it.
    pub(crate) fn delivered(&self, held: Held, subject: Option<&Subject>) {
        self.counters.add(Count::Delivered);
        let also = self.report(
            subject,
            ReportEvent::Delivered,
            ReasonCode::NoAdditionalInformation,
        );
        self.let_go(held, true, also);
    }

    /// Removes it from the store. `remember`: it is not to be taken again, should it come; our own are never taken.
    fn let_go(&self, held: Held, remember: bool, also: Vec<Record>) {
        let stored = held.stored().clone();
        self.store.take(&stored, remember, also, move |_| held.finish());
    }

    /// Deletes a bundle of ours that waits to leave; whether it was still there.
    pub(crate) async fn cancel(&self, key: &str) -> Result<bool, StoreError> {
        let Some(stored) = self.store.outgoing(key).await? else {
            return Ok(false);
        };
        let bundle = head::stored(&self.store.load(&stored).await?).ok();
        let also = bundle.map_or_else(Vec::new, |bundle| {
            self.reports(&bundle, ReportEvent::Deleted, ReasonCode::TransmissionCanceled)
        });
        let there = self.store.taken(&stored, false, also).await?;
        self.forget_refusals(stored.id);
        Ok(there)
    }
}
