//! A deep-space link for UDP, in user space and in real time.
//!
//! Clients talk to the link's own address; each gets a socket of its own towards the target, so that the target tells them
//! apart and its answers find their way back. Both directions are a [`Direction`](crate::link::Direction) each, shared by all clients. What is under
//! way waits in a thread per direction: timers of the asynchronous runtime tick in milliseconds, which is as much as the
//! light takes across 300 km.

mod line;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use lightpost_clock::{Clock, Instant};
use socket2::SockRef;
use tokio::{net::UdpSocket, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::line::{Line, Route};
use crate::link::DirectionOptions;
pub use crate::link::{DirectionStats, LinkStats};

/// Most clients at a time; beyond it the one that was silent longest is forgotten.
const CLIENTS_MAX: usize = 256;
/// Largest UDP payload.
const PACKET_MAX: usize = 65_535;
/// Asked of the system for every socket, as far as it grants it: a burst must not be lost before it reaches the link.
const SOCKET_BUFFER: usize = 8 * 1024 * 1024;

/// How a link behaves.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// One-way light time.
    pub owlt: Duration,
    /// Bits per second from clients to the target; `None` is without limit.
    pub rate_up: Option<u64>,
    /// Bits per second from the target to clients.
    pub rate_down: Option<u64>,
    /// Which part of the packets is lost, in both directions, 0 to 1.
    pub loss: f64,
    /// Most octets that wait for a busy link, per direction.
    pub queue: u64,
    /// What is lost follows from it.
    pub seed: u64,
}

impl Default for LinkOptions {
    /// A cable: no delay, no limit, no loss; a queue of 16 MiB.
    fn default() -> Self {
        Self {
            owlt: Duration::ZERO,
            rate_up: None,
            rate_down: None,
            loss: 0.0,
            queue: 16 * 1024 * 1024,
            seed: 0,
        }
    }
}

impl LinkOptions {
    fn direction(&self, rate: Option<u64>) -> DirectionOptions {
        DirectionOptions {
            owlt: self.owlt,
            rate,
            loss: self.loss,
            queue: self.queue,
            ..DirectionOptions::default()
        }
    }
}

/// A running link; dropping it stops it, with what is under way.
#[derive(Debug)]
pub struct UdpLink {
    address: SocketAddr,
    up: Arc<Line>,
    down: Arc<Line>,
    _stop: DropGuard,
}

impl UdpLink {
    /// Listens on `listen` (port 0 takes a free one) and forwards to `target` and back. Time is real: a paused clock does not
    /// stop it.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(
        listen: SocketAddr,
        target: SocketAddr,
        options: LinkOptions,
        clock: Clock,
    ) -> io::Result<Self> {
        let (up, down) = (
            options.direction(options.rate_up),
            options.direction(options.rate_down),
        );
        Self::start_with(listen, target, (up, down), options.seed, clock).await
    }

    /// As [`UdpLink::start`], with all that a direction can do, from clients to the target and back.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start_with(
        listen: SocketAddr,
        target: SocketAddr,
        (up, down): (DirectionOptions, DirectionOptions),
        seed: u64,
        clock: Clock,
    ) -> io::Result<Self> {
        let socket = Arc::new(bind(listen).await?);
        let address = socket.local_addr()?;
        let up = Arc::new(Line::start(up, seed, clock.clone())?);
        // Another seed, so that the two directions do not lose the same packets.
        let down = Arc::new(Line::start(down, seed.wrapping_add(1), clock.clone())?);
        let stop = CancellationToken::new();
        let forwarder = Forwarder {
            socket,
            target,
            up: Arc::clone(&up),
            down: Arc::clone(&down),
            clock,
            flows: HashMap::new(),
            readers: JoinSet::new(),
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(forwarder.run()));
        Ok(Self {
            address,
            up,
            down,
            _stop: stop.drop_guard(),
        })
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was carried so far.
    pub fn stats(&self) -> LinkStats {
        LinkStats {
            up: self.up.stats(),
            down: self.down.stats(),
        }
    }
}

impl Drop for UdpLink {
    fn drop(&mut self) {
        self.up.stop();
        self.down.stop();
    }
}

/// A client's way to the target.
struct Flow {
    socket: Arc<UdpSocket>,
    reader: tokio::task::AbortHandle,
    used: Instant,
}

struct Forwarder {
    socket: Arc<UdpSocket>,
    target: SocketAddr,
    up: Arc<Line>,
    down: Arc<Line>,
    clock: Clock,
    flows: HashMap<SocketAddr, Flow>,
    readers: JoinSet<()>,
}

impl Forwarder {
    async fn run(mut self) {
        let mut packet = vec![0; PACKET_MAX];
        loop {
            // Errors belong to packets sent earlier (ICMP); there is nobody to tell.
            let Ok((size, client)) = self.socket.recv_from(&mut packet).await else {
                continue;
            };
            match self.flow(client).await {
                Ok(socket) => self
                    .up
                    .push(packet.get(..size).unwrap_or_default(), Route::Target(socket)),
                Err(error) => tracing::warn!(%client, %error, "no way to the target"),
            }
        }
    }

    async fn flow(&mut self, client: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        let used = self.clock.instant();
        if let Some(flow) = self.flows.get_mut(&client) {
            flow.used = used;
            return Ok(Arc::clone(&flow.socket));
        }
        if self.flows.len() >= CLIENTS_MAX
            && let Some(oldest) = self
                .flows
                .iter()
                .min_by_key(|(_, flow)| flow.used)
                .map(|(client, _)| *client)
            && let Some(flow) = self.flows.remove(&oldest)
        {
            flow.reader.abort();
        }
        while self.readers.try_join_next().is_some() {}
        let any = match self.target {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = Arc::new(bind(any).await?);
        socket.connect(self.target).await?;
        let back = Route::Client(Arc::clone(&self.socket), client);
        let reader = self
            .readers
            .spawn(read_back(Arc::clone(&socket), back, Arc::clone(&self.down)));
        let flow = Flow {
            socket: Arc::clone(&socket),
            reader,
            used,
        };
        self.flows.insert(client, flow);
        Ok(socket)
    }
}

async fn read_back(socket: Arc<UdpSocket>, back: Route, down: Arc<Line>) {
    let mut packet = vec![0; PACKET_MAX];
    loop {
        // The target may not listen yet: that error is the ICMP for an earlier packet.
        if let Ok(size) = socket.recv(&mut packet).await {
            down.push(packet.get(..size).unwrap_or_default(), back.clone());
        }
    }
}

async fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address).await?;
    let reference = SockRef::from(&socket);
    // As much as the system allows; less is no error.
    let _ = reference.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = reference.set_send_buffer_size(SOCKET_BUFFER);
    Ok(socket)
}
