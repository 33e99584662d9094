//! From the inbox to the local MTA.
//!
//! [`mod@dispatch`] leases what is due and starts a delivery for each mail and server; [`deliver`] makes the attempt over a kept
//! session; [`outcome`] turns what the server said into the next status, purely, and what there is to tell of it into a
//! notification; [`mod@settle`] stores outcomes and notifications together, many in one transaction. The stored status is the
//! checkpoint: what a crash interrupts is leased, and queued again at the next start.

mod complaints;
mod deliver;
mod dispatch;
mod line;
mod outcome;
mod place;
mod settle;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use lightpost_clock::Clock;
use lightpost_intake::{
    Reporter,
    notify::delays::Delays,
    operator::metrics::{Exposition, Kind, Measured},
};
use lightpost_queue::{LOCAL, RecipientId, Store, schedule::Notices};
use lightpost_transport::tls::TlsError;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::complaints::Complaints;
use self::{line::Line, settle::Outcome};
use crate::Config;

/// Who leases from the inbox. Not the gateway's name: what a run leased under another name would wait for the lease's end.
pub(crate) const OWNER: &str = "gateway";

/// How long running deliveries may go on after the stop.
const GRACE: Duration = Duration::from_secs(10);

/// The pause before a stage goes on that panicked.
const AGAIN: Duration = Duration::from_secs(1);

/// What the stages share.
struct Shared {
    config: Arc<Config>,
    store: Arc<dyn Store>,
    reporter: Reporter,
    clock: Clock,
    /// One for each of [`crate::config::Onward::relays`].
    lines: Vec<Arc<Line>>,
    /// Recipients that are being worked on: should a lease ever run out meanwhile, they are not started twice.
    flight: Mutex<HashSet<RecipientId>>,
    /// Rings when a line has room again.
    room: Notify,
    stop: CancellationToken,
}

impl Shared {
    fn flight(&self) -> MutexGuard<'_, HashSet<RecipientId>> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running sending half of the gateway.
pub(crate) struct Onward {
    shared: Arc<Shared>,
    deliveries: TaskTracker,
    dispatcher: JoinHandle<()>,
    settler: JoinHandle<()>,
}

/// Who writes notifications here.
pub(crate) fn reporter(config: &Config, store: &Arc<dyn Store>) -> Reporter {
    let relays = &config.onward;
    Reporter {
        store: store.clone(),
        name: config.name.clone(),
        from: config.postmaster.clone(),
        postmaster: config.postmaster.clone(),
        lifetime: relays.relay(LOCAL).policy.lifetime,
    }
}

/// Tells senders of mail that waits here for long.
pub(crate) fn delays(
    config: &Arc<Config>,
    store: &Arc<dyn Store>,
    clock: &Clock,
) -> Delays<impl Fn(&str, u64) -> Option<Notices> + use<>> {
    let away = config.away();
    let relays = config.onward.relays();
    let shortest = relays.iter().filter_map(|relay| relay.notices(away).after).min();
    let (reporter, config) = (reporter(config, store), config.clone());
    let notices = move |destination: &str, _| Some(config.onward.relay(destination).notices(away));
    Delays::new(
        reporter,
        clock.clone(),
        shortest.unwrap_or(Duration::MAX),
        notices,
    )
}

/// Starts to hand mail over.
///
/// # Errors
/// When TLS towards a server cannot be set up.
pub(crate) fn start(config: Arc<Config>, store: Arc<dyn Store>, clock: Clock) -> Result<Onward, TlsError> {
    let lines = config
        .onward
        .relays()
        .into_iter()
        .map(|relay| Line::new(relay, clock.clone()).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()?;
    let shared = Arc::new(Shared {
        reporter: reporter(&config, &store),
        config,
        store,
        clock,
        lines,
        flight: Mutex::default(),
        room: Notify::new(),
        stop: CancellationToken::new(),
    });
    let deliveries = TaskTracker::new();
    let (outcomes, settled) = mpsc::channel::<Outcome>(1024);
    let settler = tokio::spawn(settle(shared.clone(), settled));
    let dispatcher = tokio::spawn(dispatch(shared.clone(), deliveries.clone(), outcomes));
    Ok(Onward {
        shared,
        deliveries,
        dispatcher,
        settler,
    })
}

async fn settle(shared: Arc<Shared>, mut outcomes: mpsc::Receiver<Outcome>) {
    while let Err(()) = survived("settler", settle::run(&shared, &mut outcomes)).await {
        shared.clock.sleep(AGAIN).await;
    }
}

async fn dispatch(shared: Arc<Shared>, deliveries: TaskTracker, outcomes: mpsc::Sender<Outcome>) {
    while let Err(()) = survived("dispatcher", dispatch::run(&shared, &deliveries, &outcomes)).await {
        shared.clock.sleep(AGAIN).await;
    }
}

/// Runs a stage to its end. A stage that panics must not end unnoticed: mail would be accepted and never leave.
async fn survived(stage: &'static str, run: impl Future<Output = ()>) -> Result<(), ()> {
    AssertUnwindSafe(run).catch_unwind().await.map_err(|_| {
        tracing::error!(
            stage,
            "an internal error; the stage goes on, its mail at hand waits for the end of its lease"
        );
    })
}

impl Measured for Shared {
    fn measure(&self, exposition: &mut Exposition) {
        // Domains may share a server, and a sample has to be the only one of its name and labels.
        let mut lines: BTreeMap<String, (bool, usize)> = BTreeMap::new();
        for line in &self.lines {
            let (up, leased) = line.measured();
            let server = lines.entry(line.relay.address.to_string()).or_insert((true, 0));
            *server = (server.0 && up, server.1 + leased);
        }
        let each = || {
            lines
                .iter()
                .map(|(server, figures)| (vec![("server", server.as_str())], *figures))
        };
        exposition.metric(
            "lightpost_server_up",
            Kind::Gauge,
            "Whether a server that mail is handed to could be reached when it was tried last.",
            each().map(|(labels, (up, _))| (labels, u8::from(up))),
        );
        exposition.metric(
            "lightpost_server_mails_in_flight",
            Kind::Gauge,
            "Mails that are being handed to it, or are about to be.",
            each().map(|(labels, (_, leased))| (labels, leased)),
        );
    }
}

impl Onward {
    /// The figures of the servers that mail is handed to.
    pub(crate) fn measured(&self) -> Arc<dyn Measured> {
        self.shared.clone()
    }

    /// Starts nothing new, lets running deliveries end for a few seconds, and stores their outcomes.
    pub(crate) async fn stop(self) {
        self.shared.stop.cancel();
        let _ = self.dispatcher.await;
        self.deliveries.close();
        let clock = &self.shared.clock;
        if clock.timeout(GRACE, self.deliveries.wait()).await.is_err() {
            tracing::warn!(
                deliveries = self.deliveries.len(),
                "deliveries are cut off; they are repeated after the next start"
            );
        }
        // The settler ends when the last delivery is gone, or now.
        let mut settler = self.settler;
        if clock.timeout(GRACE, &mut settler).await.is_err() {
            settler.abort();
        }
    }
}
