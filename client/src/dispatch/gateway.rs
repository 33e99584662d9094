//! What is known about each gateway's health, and how much is on its way to it.
//!
//! A gateway that cannot be reached is left alone for a while, together with all mail for it: a thousand waiting mails are no reason to
//! knock a thousand times. When the while is over, one mail goes ahead as a probe; the others follow once it got through.
//!
//! Where another gateway serves, a dead one is put aside for much longer than that, because each knock costs a mail the time that
//! connecting may take. A gateway that is aside is asked again early only when no other can be.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use lightpost_clock::{Clock, add};
use lightpost_intake::operator::metrics::{Exposition, Kind, Measured, seconds};
use lightpost_queue::schedule::Policy;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::line::Line;

/// The time that fruitless connecting took is at most this part of the time that a gateway is put aside for it; doubled each time,
const ASIDE: u32 = 8;
/// up to this.
const ASIDE_MOST: u32 = 64;

/// Whether an exchange may go to a gateway now.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It may.
    Open,
    /// One may go ahead, to see whether the gateway is back.
    Probe(Probe),
    /// A probe is under way.
    Probing,
    /// Not before this time.
    Down(Timestamp),
}

/// How choosy a search for a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// Gateways that are aside stay aside.
    First,
    /// No other could be used.
    Last,
}

/// In this order.
pub(crate) const SEARCHES: [Search; 2] = [Search::First, Search::Last];

/// What becomes of a gateway that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// When it is tried again at the earliest.
    pub(crate) until: Timestamp,
    /// Whether this failure began the block; those that come together with it do not.
    pub(crate) new: bool,
}

#[derive(Debug, Default)]
struct Health {
    /// Failures in a row; zero is healthy.
    failures: u32,
    until: Timestamp,
    /// As long as others serve.
    aside: Timestamp,
    probing: bool,
    /// When it answered last.
    answered: Option<Timestamp>,
}

/// How long somebody who may send one exchange waits for the right to send more together with it.
const LINGER: Duration = Duration::from_millis(3);

/// One gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    concurrency: usize,
    permits: Arc<Semaphore>,
    health: Mutex<Health>,
    changed: Notify,
    /// What is on its way to it.
    pub(crate) line: Line,
}

/// The right to try a gateway that was down; given back when dropped.
#[derive(Debug)]
pub(crate) struct Probe(Arc<Gateway>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.health().probing = false;
        self.0.changed.notify_waiters();
    }
}

impl Gateway {
    fn new(concurrency: usize) -> Self {
        Self {
            concurrency,
            permits: Arc::new(Semaphore::new(concurrency)),
            health: Mutex::default(),
            changed: Notify::new(),
            line: Line::default(),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an exchange may go now. A [`Probe`] has to live until the outcome is known.
    pub(crate) fn admit(self: &Arc<Self>, now: Timestamp, search: Search) -> Admission {
        let mut health = self.health();
        if health.failures == 0 {
            Admission::Open
        } else if now < health.until {
            Admission::Down(health.until)
        } else if health.probing {
            Admission::Probing
        } else if search == Search::First && now < health.aside {
            Admission::Down(health.aside)
        } else {
            health.probing = true;
            Admission::Probe(Probe(self.clone()))
        }
    }

    /// When the gateway is tried again; `None` when it may be used now.
    pub(crate) fn down(&self, now: Timestamp) -> Option<Timestamp> {
        let health = self.health();
        (health.failures > 0 && now < health.until).then_some(health.until)
    }

    /// Whether nothing speaks against using it.
    pub(crate) fn healthy(&self) -> bool {
        self.health().failures == 0
    }

    /// The gateway answered.
    pub(crate) fn reached(&self) {
        self.health().failures = 0;
        self.changed.notify_waiters();
    }

    /// A reply of the gateway came.
    pub(crate) fn answered(&self, now: Timestamp) {
        let mut health = self.health();
        health.answered = health.answered.max(Some(now));
    }

    /// The gateway cannot be used now. Exchanges that fail together count once.
    pub(crate) fn failed(&self, now: Timestamp, policy: &Policy, at_least: Option<Duration>) -> Block {
        let mut health = self.health();
        let new = health.failures == 0 || now >= health.until;
        if new {
            health.failures = health.failures.saturating_add(1);
            health.until = add(now, policy.wait(health.failures));
        }
        if let Some(wait) = at_least {
            health.until = health.until.max(add(now, wait.min(policy.lifetime)));
        }
        Block {
            until: health.until,
            new,
        }
    }

    /// Puts a gateway that failed after `spent` aside for as long as another one serves; never for longer than `most`.
    pub(crate) fn put_aside(&self, now: Timestamp, spent: Duration, most: Duration) {
        let mut health = self.health();
        let doubled = ASIDE.saturating_mul(1 << health.failures.saturating_sub(1).min(16));
        let span = spent.saturating_mul(doubled.min(ASIDE_MOST)).min(most);
        health.aside = health.aside.max(add(now, span));
    }

    /// Waits until something about the gateway's health changes.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits for the right to send one exchange, a moment for more, and takes as many as are free then, `most` in all.
    pub(crate) async fn permit(&self, most: usize, clock: &Clock) -> Option<OwnedSemaphorePermit> {
        let mut permit = self.permits.clone().acquire_owned().await.ok()?;
        // Replies come close together: with a quarter of the places one commit serves many.
        let quarter = most.min(self.concurrency / 4).saturating_sub(1);
        if let Ok(quarter @ 1..) = u32::try_from(quarter) {
            let more = self.permits.clone().acquire_many_owned(quarter);
            if let Ok(Ok(more)) = clock.timeout(LINGER, more).await {
                permit.merge(more);
            }
        }
        let most = most.saturating_sub(permit.num_permits().saturating_sub(1));
        if let Some(more) = self.more(most.saturating_sub(1)) {
            permit.merge(more);
        }
        Some(permit)
    }

    /// As many rights to send as are free now, at most `most`.
    pub(crate) fn more(&self, most: usize) -> Option<OwnedSemaphorePermit> {
        let free = u32::try_from(self.permits.available_permits().min(most)).ok()?;
        if free == 0 {
            return None;
        }
        self.permits.clone().try_acquire_many_owned(free).ok()
    }

    /// Whether a right to send is free now.
    pub(crate) fn has_room(&self) -> bool {
        self.permits.available_permits() > 0
    }
}

/// All gateways by URI.
#[derive(Debug, Default)]
pub(crate) struct Gateways(Mutex<HashMap<String, Arc<Gateway>>>);

impl Gateways {
    /// The gateway at `url`.
    pub(crate) fn get(&self, url: &str, concurrency: usize) -> Arc<Gateway> {
        let mut gateways = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gateway) = gateways.get(url) {
            return gateway.clone();
        }
        let gateway = Arc::new(Gateway::new(concurrency));
        gateways.insert(url.to_owned(), gateway.clone());
        gateway
    }
}

impl Measured for Gateways {
    fn measure(&self, exposition: &mut Exposition) {
        let gateways = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut gateways: Vec<(String, Arc<Gateway>)> = gateways.into_iter().collect();
        gateways.sort_by(|one, other| one.0.cmp(&other.0));
        let each = || {
            gateways
                .iter()
                .map(|(url, gateway)| (vec![("gateway", url.as_str())], gateway))
        };
        exposition.metric(
            "lightpost_gateway_up",
            Kind::Gauge,
            "Whether a gateway was reached when it was tried last.",
            each().map(|(labels, gateway)| (labels, u8::from(gateway.healthy()))),
        );
        exposition.metric(
            "lightpost_gateway_exchanges_in_flight",
            Kind::Gauge,
            "Exchanges that have left, or are about to, and have no reply yet.",
            each().map(|(labels, gateway)| (labels, gateway.line.busy().0)),
        );
        exposition.metric(
            "lightpost_gateway_octets_in_flight",
            Kind::Gauge,
            "Octets of the mails in them.",
            each().map(|(labels, gateway)| (labels, gateway.line.busy().1)),
        );
        exposition.metric(
            "lightpost_gateway_last_reply_timestamp_seconds",
            Kind::Gauge,
            "When a gateway replied last; absent when it has not since the start.",
            each().filter_map(|(labels, gateway)| Some((labels, seconds(gateway.health().answered?)))),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        first: Duration::from_secs(10),
        longest: Duration::from_secs(60),
        factor: 2.0,
        lifetime: Duration::from_secs(1000),
        reply: Duration::from_secs(5),
    };

    fn after(seconds: u64) -> Timestamp {
        add(
            Timestamp::from_second(1_900_000_000).unwrap(),
            Duration::from_secs(seconds),
        )
    }

    fn block(seconds: u64, new: bool) -> Block {
        Block {
            until: after(seconds),
            new,
        }
    }

    #[test]
    fn failures_that_come_together_count_once() {
        let gateway = Arc::new(Gateway::new(2));
        let admit = |seconds| gateway.admit(after(seconds), Search::First);
        assert!(matches!(admit(0), Admission::Open));
        assert_eq!(gateway.failed(after(0), &POLICY, None), block(10, true));
        assert_eq!(gateway.failed(after(1), &POLICY, None), block(10, false));
        assert!(matches!(admit(9), Admission::Down(until) if until == after(10)));
        let Admission::Probe(probe) = admit(10) else {
            panic!("no probe");
        };
        assert!(matches!(admit(10), Admission::Probing));
        assert_eq!(gateway.failed(after(12), &POLICY, None), block(32, true));
        drop(probe);
        assert_eq!(
            gateway.failed(after(13), &POLICY, Some(Duration::from_secs(500))),
            block(513, false)
        );
        gateway.reached();
        assert!(matches!(admit(14), Admission::Open));
    }

    #[test]
    fn a_gateway_that_is_aside_is_asked_early_only_when_no_other_can_be() {
        let gateway = Arc::new(Gateway::new(2));
        let (spent, most) = (Duration::from_secs(4), Duration::from_secs(200));
        gateway.failed(after(0), &POLICY, None);
        gateway.put_aside(after(0), spent, most);
        let down = |seconds| match gateway.admit(after(seconds), Search::First) {
            Admission::Down(until) => until,
            other => panic!("{other:?}"),
        };
        assert_eq!(down(5), after(10));
        assert_eq!(down(11), after(32));
        assert!(matches!(
            gateway.admit(after(5), Search::Last),
            Admission::Down(_)
        ));
        assert!(matches!(
            gateway.admit(after(11), Search::Last),
            Admission::Probe(_)
        ));
        gateway.failed(after(40), &POLICY, None);
        gateway.put_aside(after(40), spent, most);
        assert_eq!(down(60), after(40 + 64));
        for now in [200, 400, 600] {
            gateway.failed(after(now), &POLICY, None);
            gateway.put_aside(after(now), spent, most);
        }
        assert_eq!(down(700), after(800));
        assert!(matches!(
            gateway.admit(after(800), Search::First),
            Admission::Probe(_)
        ));
    }
}
