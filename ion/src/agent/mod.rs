//! The relay's side: an [`Agent`] that asks its helper.

mod deliveries;
mod process;
mod report;
mod requests;
mod session;

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hardy_bpv7::eid::Eid;
use lightpost_clock::Clock;
use lightpost_transport::bundle::agent::{
    Agent, BundleId, Class, Delivery, Outgoing as Bundle, Reports, SendError, Status,
};
use tokio::{sync::watch, task::JoinHandle};

use self::{deliveries::Deliveries, requests::Requests};
use crate::{
    outgoing::Outgoing,
    protocol::{INLINE, Order, Outcome, Request, Trouble},
    words,
};

/// How long [`Agent::close`] waits for the helper's end; one that takes longer ends by itself.
const CLOSE: Duration = Duration::from_secs(30);
/// The longest path that ION keeps for a payload's file, less our names.
const MOST_PATH: usize = 180;
/// The longest endpoint id that ION has room for, with something to spare.
const MOST_EID: usize = 64;

/// How an ION node is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our endpoint, `ipn:NODE.SERVICE`, which the node has to know (`a endpoint … q` in bpadmin).
    pub endpoint: Eid,
    /// A folder of ours, made when missing: received bundles wait there, and large payloads on their way. ION's daemons read and remove these.
    pub folder: PathBuf,
    /// `ION_NODE_WDNAME`, where the environment does not have it: the folder of the node.
    pub node: Option<PathBuf>,
    /// `ION_NODE_LIST_DIR`, where the environment does not have it: the folder that holds `ion_nodes`.
    pub nodes: Option<PathBuf>,
    /// The folder of ION's libraries, where the system's loader does not find them.
    pub libraries: Option<PathBuf>,
    /// The largest payload that is taken from the node; a larger one is dropped and logged.
    pub largest: u64,
    /// How long the helper may take for an answer before the node counts as locked.
    pub patience: Duration,
    /// The program that has the subcommand `ion-agent`; this one unless said otherwise.
    pub program: Option<PathBuf>,
}

impl Settings {
    /// The defaults for an endpoint and a folder: payloads up to 256 MiB, answers within 30 s.
    pub fn new(endpoint: Eid, folder: impl Into<PathBuf>) -> Self {
        Self {
            endpoint,
            folder: folder.into(),
            node: None,
            nodes: None,
            libraries: None,
            largest: 256 << 20,
            patience: Duration::from_secs(30),
            program: None,
        }
    }

    fn spool(&self) -> PathBuf {
        self.folder.join("received")
    }

    fn outgoing(&self) -> PathBuf {
        self.folder.join("sent")
    }
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The endpoint has another form.
    #[error("ION serves endpoints such as ipn:1.25, not {0}")]
    Endpoint(Eid),
    /// ION keeps paths of 255 octets.
    #[error("{0} is not an absolute path of at most {MOST_PATH} octets, which is what ION takes for files")]
    Path(PathBuf),
    /// The folder cannot be made.
    #[error("{folder} cannot be made: {error}; make it, or let this user", folder = .0.display(), error = .1)]
    Folder(PathBuf, io::Error),
}

/// An ION node on this host, through a helper process that is started, watched and started again.
///
/// When [`Agent::send`] says [`SendError::Down`] because the helper ended or did not answer in time, the node may have taken the bundle all
/// the same: sending it again can make two of it, which the exchange's id makes one again at the other end.
///
/// ION does not tell an application whether it verified an integrity block: [`Incoming`](lightpost_transport::bundle::agent::Incoming)'s `verified` is never set.
/// What ION's own security policy refuses does not arrive.
#[derive(Debug)]
pub struct IonAgent {
    shared: Arc<Shared>,
    supervisor: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// What the agent and its tasks share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    clock: Clock,
    state: watch::Sender<State>,
    closing: watch::Sender<bool>,
    requests: Requests,
    deliveries: Arc<Deliveries>,
    outgoing: Arc<Outgoing>,
}

/// How the helper and the node are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Up,
    Down(Trouble),
}

impl Shared {
    /// Sets the state, and logs when it is another.
    fn set(&self, state: State) {
        self.state.send_if_modified(|old| {
            if *old == state {
                return false;
            }
            match &state {
                State::Up => tracing::info!(endpoint = %self.settings.endpoint, "the ION node takes bundles"),
                State::Down(_) if *self.closing.borrow() => {}
                State::Down(trouble) => {
                    tracing::warn!(endpoint = %self.settings.endpoint, remedy = trouble.remedy, "{}", trouble.why);
                }
            }
            *old = state;
            true
        });
    }
}

impl IonAgent {
    /// Starts the agent, which starts its helper. Must be called inside a runtime.
    ///
    /// # Errors
    /// [`StartError`]; a node that is not there is none, but [`Status::Down`].
    pub fn start(settings: Settings, clock: Clock) -> Result<Self, StartError> {
        name(&settings.endpoint).ok_or_else(|| StartError::Endpoint(settings.endpoint.clone()))?;
        let folder = &settings.folder;
        if !folder.is_absolute() || folder.as_os_str().len() > MOST_PATH || folder.to_str().is_none() {
            return Err(StartError::Path(folder.clone()));
        }
        for folder in [settings.spool(), settings.outgoing()] {
            make(&folder).map_err(|error| StartError::Folder(folder, error))?;
        }
        let shared = Arc::new(Shared {
            requests: Requests::new(settings.patience, clock.clone()),
            deliveries: Deliveries::new(&settings.spool(), clock.clone()),
            outgoing: Arc::new(Outgoing::new(&settings.outgoing())),
            state: watch::Sender::new(State::Down(words::starting())),
            closing: watch::Sender::new(false),
            settings,
            clock,
        });
        let supervisor = tokio::spawn(session::supervise(Arc::clone(&shared)));
        Ok(Self {
            shared,
            supervisor: tokio::sync::Mutex::new(Some(supervisor)),
        })
    }

    /// The payload as a file of ours.
    async fn file(&self, bundle: &Bundle) -> Result<PathBuf, SendError> {
        let (outgoing, payload) = (Arc::clone(&self.shared.outgoing), bundle.payload.clone());
        let (lifetime, now) = (bundle.lifetime, self.shared.clock.now());
        let written = tokio::task::spawn_blocking(move || outgoing.write(&payload, lifetime, now)).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|error| SendError::NoRoom {
            octets: bundle.payload.len() as u64,
            why: format!("{}: {error}", self.shared.settings.outgoing().display()),
        })
    }

    /// Asks the helper to hand a bundle over, its payload in the frame or in a file.
    async fn order(&self, bundle: &Bundle, names: &Names, file: Option<PathBuf>) -> Outcome {
        let patience = self.shared.settings.patience;
        let order = |id| {
            Request::Send(Order {
                id,
                destination: names.destination.clone(),
                // ION counts whole seconds, and takes no lifetime of none.
                lifetime: i32::try_from(bundle.lifetime.as_secs())
                    .unwrap_or(i32::MAX)
                    .max(1),
                class: class(bundle.class),
                report_to: names.report_to.clone(),
                reports: flags(bundle.reports, names.report_to.is_some()),
                patience: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
                file: file.clone(),
                octets: bundle.payload.len() as u64,
            })
        };
        let inline: &[u8] = if file.is_some() { &[] } else { &bundle.payload };
        let outcome = self.shared.requests.ask(order, inline).await;
        // An outcome that nobody knows leaves the file to the sweep: the node may have the bundle.
        if let Some(file) = &file
            && matches!(
                outcome,
                Outcome::NoRoom { .. }
                    | Outcome::TooLarge { .. }
                    | Outcome::Refused { .. }
                    | Outcome::NoRoute
            )
        {
            Outgoing::remove(file);
        }
        outcome
    }

    fn down(&self) -> Option<Trouble> {
        match &*self.shared.state.borrow() {
            State::Up => None,
            State::Down(trouble) => Some(trouble.clone()),
        }
    }
}

#[async_trait::async_trait]
impl Agent for IonAgent {
    fn endpoint(&self) -> &Eid {
        &self.shared.settings.endpoint
    }

    async fn send(&self, bundle: Bundle) -> Result<BundleId, SendError> {
        let names = Names::of(&bundle)?;
        let octets = bundle.payload.len() as u64;
        if octets == 0 {
            return Err(SendError::Refused("ION takes no bundle without a payload".into()));
        }
        if let Some(trouble) = self.down() {
            return Err(down(trouble));
        }
        let inline = bundle.payload.len() <= INLINE;
        let file = if inline {
            None
        } else {
            Some(self.file(&bundle).await?)
        };
        let mut outcome = self.order(&bundle, &names, file).await;
        if inline && matches!(outcome, Outcome::TooLarge { .. }) {
            // A small heap; files have an account of their own.
            let file = self.file(&bundle).await?;
            outcome = self.order(&bundle, &names, Some(file)).await;
        }
        match outcome {
            Outcome::Sent { time, sequence } => Ok(BundleId {
                source: self.shared.settings.endpoint.clone(),
                time,
                sequence,
            }),
            Outcome::NoRoom { why } => Err(SendError::NoRoom { octets, why }),
            Outcome::TooLarge { most } => Err(SendError::TooLarge { octets, most }),
            Outcome::NoRoute => Err(SendError::NoRoute {
                destination: bundle.destination,
            }),
            Outcome::Refused { why } => Err(SendError::Refused(why)),
            Outcome::Down(trouble) => Err(down(trouble)),
            other => Err(SendError::Refused(format!("the helper answers {other:?}"))),
        }
    }

    async fn receive(&self) -> Delivery {
        self.shared.deliveries.next().await
    }

    async fn cancel(&self, bundle: &BundleId) -> Result<bool, SendError> {
        if let Some(trouble) = self.down() {
            return Err(down(trouble));
        }
        if bundle.source != self.shared.settings.endpoint {
            return Ok(false);
        }
        let (time, sequence) = (bundle.time, bundle.sequence);
        let ask = |id| Request::Cancel { id, time, sequence };
        match self.shared.requests.ask(ask, &[]).await {
            Outcome::Cancelled { had } => Ok(had),
            Outcome::Down(trouble) => Err(down(trouble)),
            Outcome::Refused { why } | Outcome::NoRoom { why } => Err(SendError::Refused(why)),
            other => Err(SendError::Refused(format!("the helper answers {other:?}"))),
        }
    }

    async fn status(&self) -> Status {
        match self.down() {
            None => Status::Up,
            Some(Trouble { why, remedy }) => Status::Down { why, remedy },
        }
    }

    async fn close(&self) {
        self.shared.closing.send_replace(true);
        let supervisor = self.supervisor.lock().await.take();
        if let Some(mut supervisor) = supervisor
            && self.shared.clock.timeout(CLOSE, &mut supervisor).await.is_err()
        {
            supervisor.abort();
            tracing::warn!("ION's helper has not ended yet; it ends by itself when ION lets it");
        }
        self.shared.set(State::Down(words::closed()));
    }
}

impl Drop for IonAgent {
    fn drop(&mut self) {
        // The helper sees its socket closed, and ends in order.
        if let Some(supervisor) = self.supervisor.get_mut() {
            supervisor.abort();
        }
    }
}

/// Endpoint ids as ION reads them.
struct Names {
    destination: String,
    report_to: Option<String>,
}

impl Names {
    fn of(bundle: &Bundle) -> Result<Self, SendError> {
        let name = |eid: &Eid| {
            name(eid).ok_or_else(|| SendError::Refused(format!("ION does not know endpoints such as {eid}")))
        };
        Ok(Self {
            destination: name(&bundle.destination)?,
            report_to: bundle.report_to.as_ref().map(name).transpose()?,
        })
    }
}

/// An endpoint as ION reads it, when it can be one of an ION node's.
fn name(eid: &Eid) -> Option<String> {
    let text = eid.to_string();
    let (node, service) = text.strip_prefix("ipn:")?.split_once('.')?;
    let sound = node.parse::<u64>().is_ok() && service.parse::<u32>().is_ok() && text.len() <= MOST_EID;
    sound.then_some(text)
}

fn class(class: Class) -> u8 {
    match class {
        Class::Bulk => 0,
        Class::Normal => 1,
        Class::Expedited => 2,
    }
}

/// ION's flags; none without somewhere to report to, because ION would take the source.
fn flags(reports: Reports, somewhere: bool) -> u8 {
    if !somewhere {
        return 0;
    }
    u8::from(reports.received)
        | u8::from(reports.forwarded) << 2
        | u8::from(reports.delivered) << 3
        | u8::from(reports.deleted) << 4
}

fn down(Trouble { why, remedy }: Trouble) -> SendError {
    SendError::Down { why, remedy }
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
