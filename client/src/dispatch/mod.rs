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
mod late;
mod line;
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
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use lightpost_clock::{Clock, add};
use lightpost_intake::{Original, Reporter};
use lightpost_queue::{LOCAL, Store};
use lightpost_smtp::send::Target;
use lightpost_transport::{Late, Transport};
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::{Id, JoinError, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::gateway::Gateways;
use self::{
    settle::{Fate, Settler, Verdict},
    worker::Ended,
};
use crate::{config::Config, discover::Discovery};

/// How long claimed mail may stay claimed without being settled: far longer than claiming, reading and storing takes.
const LEASE: Duration = Duration::from_secs(300);
/// The wait before a store that refused is asked again.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Workers that claim and plan at once.
const WORKERS: usize = 64;
/// Destinations that are looked after at once. Those that wait for a name server or a busy gateway count.
const DESTINATIONS: usize = 100_000;
/// Verdicts that wait for the settler before senders wait, too.
const VERDICTS: usize = 1024;
/// The time between two looks at a queue that changes: a first mail is looked at when it comes, and those of a flood together.
const GATHER: Duration = Duration::from_millis(2);
/// A worker that found nothing although something was due is not started again before this.
const IDLE: Duration = Duration::from_millis(100);
/// How long workers may take when the dispatcher is stopped.
const GRACE: Duration = Duration::from_secs(5);
/// How long replies are waited for then. Those that are almost there come within it; the other exchanges stay open, which costs
/// nothing but a repeat.
const LAST_REPLIES: Duration = Duration::from_millis(1500);

/// What workers and senders share.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Clock,
    pub(crate) stop: CancellationToken,
    /// Ends exchanges that wait for a connection or a reply, after `stop`.
    leave_open: CancellationToken,
    gateways: Arc<Gateways>,
    working: Semaphore,
    /// Destinations of which nothing can leave, and since when nobody looked through what is due.
    parked: Mutex<HashMap<String, Timestamp>>,
    verdicts: mpsc::Sender<Verdict>,
    wake: Arc<Notify>,
    running: TaskTracker,
}

impl Shared {
    fn parked(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands fates to the settler, which lets the news that they follow from go once they are stored.
    async fn settle(&self, original: Arc<Original>, fates: Vec<Fate>, late: Option<Late>) {
        if fates.is_empty() {
            return;
        }
        let verdict = Verdict {
            original,
            at: self.clock.now(),
            fates,
            late,
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
    pub(crate) reporter: Reporter,
    pub(crate) gateways: Arc<Gateways>,
    pub(crate) clock: Clock,
    pub(crate) stop: CancellationToken,
}

/// Runs until `stop`, then lets running exchanges end for a few seconds and stores what became of them.
pub(crate) async fn run(parts: Parts) {
    let (verdicts, received) = mpsc::channel(VERDICTS);
    let wake = Arc::new(Notify::new());
    let settler = Settler {
        config: parts.config.clone(),
        discovery: parts.discovery.clone(),
        reporter: parts.reporter,
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
        leave_open: CancellationToken::new(),
        gateways: parts.gateways,
        working: Semaphore::new(WORKERS),
        parked: Mutex::default(),
        verdicts,
        wake,
        running: TaskTracker::new(),
    });
    let late = tokio::spawn(late::listen(shared.clone()));
    let mut desk = Desk {
        shared: shared.clone(),
        local: Arc::new(parts.local),
        workers: JoinSet::new(),
        active: HashMap::new(),
        busy: HashSet::new(),
        idle: HashMap::new(),
    };
    desk.run().await;
    late.abort();
    let _ = late.await;
    let clock = shared.clock.clone();
    drop(desk);
    shared.running.close();
    if clock.timeout(LAST_REPLIES, shared.running.wait()).await.is_err() {
        tracing::info!(
            left = shared.running.len(),
            "exchanges without a reply stay open and are repeated later"
        );
        shared.leave_open.cancel();
        let _ = clock.timeout(GRACE, shared.running.wait()).await;
    }
    drop(shared);
    // Senders that are still waiting hold on to the settler; what they learn later is learnt again by a repeat.
    if clock.timeout(GRACE, settling).await.is_err() {
        tracing::debug!("the settler is left behind");
    }
}

/// Starts workers for what is due.
struct Desk {
    shared: Arc<Shared>,
    local: Arc<Target>,
    workers: JoinSet<Ended>,
    active: HashMap<Id, String>,
    busy: HashSet<String>,
    /// Destinations of which nothing can be sent, and until when they are passed over.
    idle: HashMap<String, Timestamp>,
}

impl Desk {
    async fn run(&mut self) {
        let shared = self.shared.clone();
        loop {
            let looked = shared.clock.instant();
            let next = self.start_workers().await;
            let sleep = async {
                match next {
                    Some(at) => shared.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shared.stop.cancelled() => break,
                () = shared.store.changed() => {
                    let left = GATHER.saturating_sub(looked.elapsed());
                    if !left.is_zero() {
                        shared.clock.sleep(left).await;
                    }
                }
                () = shared.wake.notified() => {}
                Some(ended) = self.workers.join_next_with_id() => self.ended(ended),
                () = sleep => {}
            }
            while let Some(ended) = self.workers.try_join_next_with_id() {
                self.ended(ended);
            }
        }
        // Workers see the same signal and end between two claims.
        let ended = async { while self.workers.join_next().await.is_some() {} };
        if shared.clock.timeout(GRACE, ended).await.is_err() {
            tracing::info!("a worker does not end and is left; what it had is taken up at the next start");
            self.workers.shutdown().await;
        }
    }

    fn ended(&mut self, ended: Result<(Id, Ended), JoinError>) {
        let now = self.shared.clock.now();
        let (id, until) = match ended {
            Ok((
                id,
                Ended {
                    until: Some(until), ..
                },
            )) => (id, Some(until)),
            Ok((id, Ended { claimed: 0, .. })) => (id, Some(add(now, IDLE))),
            Ok((id, _)) => (id, None),
            Err(error) => {
                tracing::error!(%error, "a worker broke; its destination is taken up again");
                (error.id(), Some(add(now, STORE_RETRY)))
            }
        };
        let Some(destination) = self.active.remove(&id) else {
            return;
        };
        self.busy.remove(&destination);
        if let Some(until) = until {
            self.idle.insert(destination, until);
        }
    }

    /// Starts what can be started; returns when to look again.
    async fn start_workers(&mut self) -> Option<Timestamp> {
        let shared = self.shared.clone();
        let now = shared.clock.now();
        self.idle.retain(|_, until| now < *until);
        let (mut due, next) =
            match futures_util::try_join!(shared.store.due(now), shared.store.next_due_after(now)) {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(%error, "the queue cannot be read; trying again");
                    return Some(add(now, STORE_RETRY));
                }
            };
        due.sort_by_key(|one| std::cmp::Reverse(one.priority));
        for one in due {
            let passed_over =
                self.busy.contains(&one.destination) || self.idle.contains_key(&one.destination);
            if passed_over || self.workers.len() >= DESTINATIONS {
                continue;
            }
            self.start(one.destination);
        }
        // What is due already is in the hands of workers, whose end is waited for, or passed over until a known time.
        next.into_iter().chain(self.idle.values().copied()).min()
    }

    fn start(&mut self, destination: String) {
        let shared = self.shared.clone();
        let local = self.local.clone();
        self.busy.insert(destination.clone());
        let name = destination.clone();
        let worker = self.workers.spawn(async move {
            if name == LOCAL {
                let claimed = shared.serve_local(local).await;
                return Ended {
                    claimed,
                    ..Ended::default()
                };
            }
            shared.serve(name).await
        });
        self.active.insert(worker.id(), destination);
    }
}
