//! What is known about each gateway's health, and how much is on its way to it.
//!
//! A gateway that cannot be reached is left alone for a while, together with all mail for it: a thousand waiting mails are no reason to
//! knock a thousand times. When the while is over, one mail goes ahead as a probe; the others follow once it got through.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use lightpost_clock::add;
use lightpost_queue::schedule::Policy;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

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

#[derive(Debug, Default)]
struct Health {
    /// Failures in a row; zero is healthy.
    failures: u32,
    until: Timestamp,
    probing: bool,
}

/// One gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    permits: Arc<Semaphore>,
    health: Mutex<Health>,
    changed: Notify,
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
            permits: Arc::new(Semaphore::new(concurrency)),
            health: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an exchange may go now. A [`Probe`] has to live until the outcome is known.
    pub(crate) fn admit(self: &Arc<Self>, now: Timestamp) -> Admission {
        let mut health = self.health();
        if health.failures == 0 {
            Admission::Open
        } else if now < health.until {
            Admission::Down(health.until)
        } else if health.probing {
            Admission::Probing
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

    /// The gateway answered.
    pub(crate) fn reached(&self) {
        self.health().failures = 0;
        self.changed.notify_waiters();
    }

    /// The gateway cannot be used now. Exchanges that fail together count once. Returns when it is tried again.
    pub(crate) fn failed(&self, now: Timestamp, policy: &Policy, at_least: Option<Duration>) -> Timestamp {
        let mut health = self.health();
        if health.failures == 0 || now >= health.until {
            health.failures = health.failures.saturating_add(1);
            health.until = add(now, policy.wait(health.failures));
        }
        if let Some(wait) = at_least {
            health.until = health.until.max(add(now, wait.min(policy.lifetime)));
        }
        health.until
    }

    /// Waits until something about the gateway's health changes.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits for the right to send one exchange, and takes as many more as are free, `most` in all.
    pub(crate) async fn permit(&self, most: usize) -> Option<OwnedSemaphorePermit> {
        let mut permit = self.permits.clone().acquire_owned().await.ok()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_come_together_count_once() {
        let policy = Policy {
            first: Duration::from_secs(10),
            longest: Duration::from_secs(60),
            factor: 2.0,
            lifetime: Duration::from_secs(1000),
            reply: Duration::from_secs(5),
        };
        let now = Timestamp::from_second(1_900_000_000).unwrap();
        let after = |seconds| add(now, Duration::from_secs(seconds));
        let gateway = Arc::new(Gateway::new(2));
        assert!(matches!(gateway.admit(now), Admission::Open));
        assert_eq!(gateway.failed(now, &policy, None), after(10));
        assert_eq!(gateway.failed(after(1), &policy, None), after(10));
        assert!(matches!(gateway.admit(after(9)), Admission::Down(until) if until == after(10)));
        let Admission::Probe(probe) = gateway.admit(after(10)) else {
            panic!("no probe");
        };
        assert!(matches!(gateway.admit(after(10)), Admission::Probing));
        assert_eq!(gateway.failed(after(12), &policy, None), after(32));
        drop(probe);
        assert_eq!(
            gateway.failed(after(13), &policy, Some(Duration::from_secs(500))),
            after(513)
        );
        gateway.reached();
        assert!(matches!(gateway.admit(after(14)), Admission::Open));
    }
}
