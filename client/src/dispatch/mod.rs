//! From the outbox to the gateways.
//!
//! The dispatcher looks at which destinations have something due and runs one worker for each. A worker
//!
//! 1. finds the next hops (and only it waits when the resolver is slow),
//! 2. waits for room at a gateway that is up,
//! 3. claims as many messages as there is room for,
//! 4. plans them: recipients behind the same gateway travel together, an open exchange is repeated as it was,
//! 5. stores that the exchanges leave, in one transaction for all of them, and lets them leave.
//!
//! Each exchange then waits for its reply on its own. What became of it goes to the one settler, which stores many outcomes in one
//! transaction. Nothing important lives in memory only: after a crash, what had left is repeated with the same id to the same gateway,
//! what had not is claimed again.

mod gateway;
mod local;
mod object;
mod outcome;
mod plan;
mod send;
mod settle;
mod worker;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use lightpost_clock::{Clock, add};
use lightpost_queue::{LOCAL, Store};
use lightpost_smtp::send::Target;
use lightpost_transport::Transport;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    gateway::Gateways,
    settle::{Fate, Original, Settler, Verdict},
};
use crate::{config::Config, discover::Discovery};

/// How long claimed mail may stay claimed without being settled: far longer than claiming, reading and storing takes.
const LEASE: Duration = Duration::from_secs(300);
/// The wait before a store that refused is asked again.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Workers at once.
const WORKERS: usize = 1024;
/// Verdicts that wait for the settler before senders wait, too.
const VERDICTS: usize = 1024;
/// Changes of the queue within this time are looked at together.
const GATHER: Duration = Duration::from_millis(2);
/// A worker that found nothing although something was due is not started again before this.
const IDLE: Duration = Duration::from_millis(100);
/// How long running exchanges may take when the dispatcher is stopped.
const GRACE: Duration = Duration::from_secs(5);

/// What workers and senders share.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Clock,
    pub(crate) stop: CancellationToken,
    gateways: Gateways,
    verdicts: mpsc::Sender<Verdict>,
    wake: Arc<Notify>,
    running: TaskTracker,
}

impl Shared {
    /// Hands fates to the settler.
    async fn settle(&self, original: Arc<Original>, fates: Vec<Fate>) {
        if fates.is_empty() {
            return;
        }
        let verdict = Verdict {
            original,
            at: self.clock.now(),
            fates,
        };
        // The settler outlives every sender.
        let _ = self.verdicts.send(verdict).await;
    }
}

/// What the dispatcher works with.
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) local: Target,
    pub(crate) clock: Clock,
    pub(crate) stop: CancellationToken,
}

/// Runs until `stop`, then lets running exchanges end for a few seconds and stores what became of them.
pub(crate) async fn run(parts: Parts) {
    let (verdicts, received) = mpsc::channel(VERDICTS);
    let wake = Arc::new(Notify::new());
    let settler = Settler {
        config: parts.config.clone(),
        store: parts.store.clone(),
        clock: parts.clock.clone(),
        wake: wake.clone(),
    };
    let settling = tokio::spawn(settler.run(received));
    let shared = Arc::new(Shared {
        config: parts.config,
        store: parts.store,
        discovery: parts.discovery,
        transport: parts.transport,
        clock: parts.clock,
        stop: parts.stop,
        gateways: Gateways::default(),
        verdicts,
        wake,
        running: TaskTracker::new(),
    });
    let late = tokio::spawn(late_replies(shared.clone()));
    let mut desk = Desk {
        shared: shared.clone(),
        local: Arc::new(parts.local),
        workers: JoinSet::new(),
        active: HashSet::new(),
        idle: HashMap::new(),
    };
    desk.run().await;
    late.abort();
    let _ = late.await;
    let clock = shared.clock.clone();
    drop(desk);
    shared.running.close();
    if clock.timeout(GRACE, shared.running.wait()).await.is_err() {
        tracing::info!(
            left = shared.running.len(),
            "exchanges without a reply stay open and are repeated later"
        );
    }
    drop(shared);
    // Senders that are still waiting hold on to the settler; what they learn later is learnt again by a repeat.
    if clock.timeout(GRACE, settling).await.is_err() {
        tracing::debug!("the settler is left behind");
    }
}

async fn late_replies(shared: Arc<Shared>) {
    loop {
        let reply = shared.transport.late_reply().await;
        shared.late(reply).await;
    }
}

/// Starts workers for what is due.
struct Desk {
    shared: Arc<Shared>,
    local: Arc<Target>,
    workers: JoinSet<(String, usize)>,
    active: HashSet<String>,
    /// Destinations whose worker found nothing, and until when they are passed over.
    idle: HashMap<String, Timestamp>,
}

impl Desk {
    async fn run(&mut self) {
        let shared = self.shared.clone();
        loop {
            let next = self.start_workers().await;
            let sleep = async {
                match next {
                    Some(at) => shared.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shared.stop.cancelled() => break,
                () = shared.store.changed() => shared.clock.sleep(GATHER).await,
                () = shared.wake.notified() => {}
                Some(ended) = self.workers.join_next() => self.ended(ended),
                () = sleep => {}
            }
            while let Some(ended) = self.workers.try_join_next() {
                self.ended(ended);
            }
        }
        // Workers see the same signal and end between two claims.
        while let Some(ended) = self.workers.join_next().await {
            self.ended(ended);
        }
    }

    fn ended(&mut self, ended: Result<(String, usize), tokio::task::JoinError>) {
        match ended {
            Ok((destination, claimed)) => {
                self.active.remove(&destination);
                if claimed == 0 {
                    self.idle.insert(destination, add(self.shared.clock.now(), IDLE));
                }
            }
            Err(error) => {
                // Which one it was is not known; all others end and are started again.
                tracing::error!(%error, "a worker broke");
                if self.workers.is_empty() {
                    self.active.clear();
                }
            }
        }
    }

    /// Starts what can be started; returns when to look again.
    async fn start_workers(&mut self) -> Option<Timestamp> {
        let shared = self.shared.clone();
        let now = shared.clock.now();
        self.idle.retain(|_, until| now < *until);
        let (mut due, next) = match futures_util::try_join!(shared.store.due(now), shared.store.next_due()) {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "the queue cannot be read; trying again");
                return Some(add(now, STORE_RETRY));
            }
        };
        due.sort_by_key(|one| std::cmp::Reverse(one.priority));
        for one in due {
            let passed_over =
                self.active.contains(&one.destination) || self.idle.contains_key(&one.destination);
            if passed_over || self.workers.len() >= WORKERS {
                continue;
            }
            self.active.insert(one.destination.clone());
            self.start(one.destination);
        }
        // What is due already is in the hands of workers, whose end is waited for; only what passes over has to be looked at again.
        let later = next.filter(|at| *at > now);
        later.into_iter().chain(self.idle.values().copied()).min()
    }

    fn start(&mut self, destination: String) {
        let shared = self.shared.clone();
        let local = self.local.clone();
        self.workers.spawn(async move {
            let claimed = if destination == LOCAL {
                shared.serve_local(local).await
            } else {
                shared.serve(destination.clone()).await
            };
            (destination, claimed)
        });
    }
}
