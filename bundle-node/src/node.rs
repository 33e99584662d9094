//! A node, from outside.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lightpost_clock::Clock;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    agent::NodeAgent,
    bundle::stamp::Stamps,
    config::NodeConfig,
    count::{Count, Counters},
    custody::{Core, Way, way},
    eid,
    feed::Feed,
    link::{
        self, Port,
        peer::{NeighbourState, Peer},
        tls,
    },
    security::Keyring,
    store::{self, Place},
    sweep,
};

/// How long connections have to end in order.
const PARTING: Duration = Duration::from_secs(10);

/// Why a node cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its configuration is wrong; all problems at once.
    #[error("the bundle node's configuration: {}", .0.join("; "))]
    Config(Vec<String>),
    /// Its store cannot be used.
    #[error("the bundle node's store: {0}")]
    Store(String),
    /// A socket cannot be opened.
    #[error("the bundle node cannot listen on {address}: {cause}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// A bundle node inside this program (RFC 9171). Ends when it is closed or dropped.
pub struct Node {
    inner: Arc<Inner>,
    addresses: Vec<SocketAddr>,
}

pub(crate) struct Inner {
    pub(crate) core: Arc<Core>,
    agents: AtomicUsize,
}

/// How a node is.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// What keeps the store from being written; nothing when all is well.
    pub failing: Option<String>,
    /// Octets in the store.
    pub stored: u64,
    /// Octets that it may hold.
    pub most: u64,
    /// The nodes next to it, in the order of the configuration.
    pub neighbours: Vec<NeighbourStatus>,
}

/// How a neighbour is.
#[derive(Clone, Debug)]
pub struct NeighbourStatus {
    /// Its name.
    pub name: String,
    /// Whether there is a connection, and else why not.
    pub state: NeighbourState,
    /// Bundles that wait for it; `None` when the store cannot be read.
    pub waiting: Option<u64>,
}

impl Node {
    /// Opens the store and the sockets, and begins to call the neighbours. Everything that was in custody still is.
    ///
    /// # Errors
    /// [`OpenError`]
    pub async fn open(config: NodeConfig, clock: Clock) -> Result<Self, OpenError> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(OpenError::Config(problems));
        }
        let mut problems = Vec::new();
        let callers = tls::callers(&config, &clock, &mut problems);
        let called = tls::called(&config, &clock, &mut problems);
        let keyring = Keyring::load(&config.security, &mut problems);
        if !problems.is_empty() {
            return Err(OpenError::Config(problems));
        }
        let (ports, addresses) = bind(&config, called).await?;
        let place = |destination: &hardy_bpv7::eid::Eid| match way(&config, destination) {
            Way::To(place) => place,
            _ => Place::Nowhere,
        };
        let (store, last) = store::open(&config, clock.clone(), place)
            .await
            .map_err(|error| OpenError::Store(error.to_string()))?;
        let core = core(config, clock, Arc::new(store), last, callers, keyring);
        core.assemble_all()
            .await
            .map_err(|error| OpenError::Store(error.to_string()))?;
        core.tasks.spawn(sweep::run(Arc::clone(&core)));
        for port in ports {
            core.tasks.spawn(link::listen(Arc::clone(&core), port));
        }
        for peer in core.peers.values() {
            core.tasks.spawn(link::dial(Arc::clone(&core), Arc::clone(peer)));
        }
        let inner = Arc::new(Inner {
            core,
            agents: AtomicUsize::new(0),
        });
        Ok(Self { inner, addresses })
    }

    /// Where it listens, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The endpoint of one of its services; `None` when the configuration does not name it. The node closes when the last that was
    /// asked for is closed.
    pub fn agent(&self, service: u32) -> Option<Arc<NodeAgent>> {
        let feed = self.inner.core.services.get(&service)?;
        self.inner.agents.fetch_add(1, Ordering::AcqRel);
        Some(Arc::new(NodeAgent::new(
            Arc::clone(&self.inner),
            service,
            Arc::clone(feed),
        )))
    }

    /// How it is.
    pub async fn status(&self) -> NodeStatus {
        let core = &self.inner.core;
        let mut neighbours = Vec::new();
        for neighbour in &core.config.neighbours {
            let Some(peer) = core.peers.get(&neighbour.name) else {
                continue;
            };
            neighbours.push(NeighbourStatus {
                name: neighbour.name.clone(),
                state: peer.state(),
                waiting: peer.feed.count().await.ok(),
            });
        }
        NodeStatus {
            failing: core.store.failing(),
            stored: core.store.used(),
            most: core.config.limits.store,
            neighbours,
        }
    }

    /// How often `count` happened since it was opened.
    pub fn count(&self, count: Count) -> u64 {
        self.inner.core.counters.get(count)
    }

    /// All counters with their names.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.inner.core.counters.all()
    }

    /// Ends connections in order, and lets the store go.
    pub async fn close(&self) {
        self.inner.close().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.inner.core.stop.cancel();
    }
}

impl Inner {
    pub(crate) async fn agent_closed(&self) {
        if self.agents.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.close().await;
        }
    }

    async fn close(&self) {
        let core = &self.core;
        core.stop.cancel();
        core.tasks.close();
        drop(core.clock.timeout(PARTING, core.tasks.wait()).await);
        core.store.close().await;
    }
}

/// Opens the listening sockets; with the addresses that they have now.
async fn bind(config: &NodeConfig, tls: Vec<tls::Called>) -> Result<(Vec<Port>, Vec<SocketAddr>), OpenError> {
    let (mut ports, mut addresses) = (Vec::new(), Vec::new());
    for (listener, tls) in config.listeners.iter().zip(tls) {
        let bound = TcpListener::bind(listener.address).await;
        let bound = bound.and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, socket) = bound.map_err(|cause| OpenError::Listen {
            address: listener.address,
            cause,
        })?;
        addresses.push(address);
        ports.push(Port {
            socket,
            framing: listener.framing,
            tls,
            clients: listener.tls.as_ref().is_some_and(|it| it.clients.is_some()),
        });
    }
    Ok((ports, addresses))
}

fn core(
    config: NodeConfig,
    clock: Clock,
    store: Arc<store::Store>,
    last: u64,
    callers: Vec<tls::Caller>,
    keyring: Keyring,
) -> Arc<Core> {
    let feed = |place| Arc::new(Feed::new(place, Arc::clone(&store), clock.clone()));
    let services: HashMap<_, _> = config
        .services
        .iter()
        .map(|service| (*service, feed(Place::Service(*service))))
        .collect();
    let peers: HashMap<_, _> = config
        .neighbours
        .iter()
        .zip(callers)
        .map(|(it, tls)| {
            let feed = feed(Place::Neighbour(it.name.clone()));
            (it.name.clone(), Arc::new(Peer::new(it.clone(), feed, tls)))
        })
        .collect();
    // In KiB, because a semaphore counts no further than 32 bits.
    let inbound = usize::try_from(config.limits.inbound / 1024).unwrap_or(Semaphore::MAX_PERMITS);
    Arc::new(Core {
        admin: eid::ipn(config.number, 0),
        stamps: Stamps::new(last),
        counters: Counters::default(),
        keyring,
        services,
        peers,
        inbound: Arc::new(Semaphore::new(inbound.min(Semaphore::MAX_PERMITS))),
        sessions: Arc::new(Semaphore::new(config.limits.sessions)),
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
        config,
        clock,
        store,
    })
}
