//! A network of datagrams in memory, for QUIC on tokio's paused clock: days pass in milliseconds, and the same seed loses the
//! same datagrams again.
//!
//! A [`Space`] has two shores, Earth and the far side, and a [`Direction`] each way between them. What binds a socket
//! through [`Space::earth`] talks to what binds one through [`Space::far`]. Datagrams are handed over by a task that sleeps until
//! the next is due; tokio's timers tick in milliseconds, so that none arrives early and none more than one millisecond late.

mod socket;
#[cfg(test)]
mod tests;
mod warp;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use lightpost_clock::{Clock, Instant};
use lightpost_transport::quic::net::Net;
use quinn::AsyncUdpSocket;
use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::socket::{Datagram, Socket};
pub use self::warp::WarpedKernel;
use crate::{
    due::Due,
    link::{Direction, DirectionOptions, DirectionStats, Fate, LinkStats},
};

/// The first port that is given to whoever asks for any.
const FIRST_PORT: u16 = 49_152;

/// The way of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From Earth to the far side.
    Up,
    /// From the far side to Earth.
    Down,
}

/// Looks at every datagram that a socket sends and says whether the link may have it.
pub type Filter = Box<dyn FnMut(Way, &[u8]) -> bool + Send>;

/// Deep space between two shores. Cheap to clone; what is under way is lost when the last clone is gone.
#[derive(Clone)]
pub struct Space {
    shared: Arc<Shared>,
    _stop: Arc<DropGuard>,
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

struct Shared {
    clock: Clock,
    start: Instant,
    state: Mutex<State>,
    /// Something new is due.
    sooner: Notify,
}

struct State {
    lines: [Line; 2],
    sockets: HashMap<SocketAddr, Weak<Socket>>,
    under_way: BinaryHeap<Reverse<Due<Datagram>>>,
    count: u64,
    next_port: u16,
    filter: Option<Filter>,
}

struct Line {
    options: DirectionOptions,
    direction: Direction,
    rng: StdRng,
    stats: DirectionStats,
}

impl Line {
    fn new(options: DirectionOptions, seed: u64) -> Self {
        Self {
            direction: Direction::new(options.clone()),
            options,
            rng: StdRng::seed_from_u64(seed),
            stats: DirectionStats::default(),
        }
    }
}

impl Space {
    /// A space with a direction each way; spans in its options count from now. Needs a runtime.
    pub fn new(up: DirectionOptions, down: DirectionOptions, seed: u64, clock: Clock) -> Self {
        let shared = Arc::new(Shared {
            start: clock.instant(),
            clock,
            state: Mutex::new(State {
                // Another seed, so that the two directions do not lose the same datagrams.
                lines: [Line::new(up, seed), Line::new(down, !seed)],
                sockets: HashMap::new(),
                under_way: BinaryHeap::new(),
                count: 0,
                next_port: FIRST_PORT,
                filter: None,
            }),
            sooner: Notify::new(),
        });
        let stop = CancellationToken::new();
        let running = Arc::clone(&shared);
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(async move { running.run().await }),
        );
        Self {
            shared,
            _stop: Arc::new(stop.drop_guard()),
        }
    }

    /// Both ways alike.
    pub fn even(options: DirectionOptions, seed: u64, clock: Clock) -> Self {
        Self::new(options.clone(), options, seed, clock)
    }

    /// The network as programs on Earth have it.
    pub fn earth(&self) -> Shore {
        self.shore(Way::Up)
    }

    /// The network as programs on the far side have it.
    pub fn far(&self) -> Shore {
        self.shore(Way::Down)
    }

    fn shore(&self, outward: Way) -> Shore {
        Shore {
            space: self.clone(),
            outward,
        }
    }

    /// The time since its start, by which outages and pauses are told.
    pub fn elapsed(&self) -> Duration {
        self.shared.elapsed()
    }

    /// What was carried so far.
    pub fn stats(&self) -> LinkStats {
        let state = self.shared.lock();
        let [up, down] = &state.lines;
        LinkStats {
            up: up.stats,
            down: down.stats,
        }
    }

    /// Changes how a direction behaves from now on; what is under way, or waits, is not touched.
    pub fn change(&self, way: Way, change: impl FnOnce(&mut DirectionOptions)) {
        let mut state = self.shared.lock();
        let line = &mut state.lines[way as usize];
        change(&mut line.options);
        line.direction.change(line.options.clone());
    }

    /// Draws as a new space of `seed` would, whatever was sent before: how many datagrams a handshake took is itself a matter of chance.
    pub fn reseed(&self, seed: u64) {
        let mut state = self.shared.lock();
        for (line, seed) in state.lines.iter_mut().zip([seed, !seed]) {
            line.rng = StdRng::seed_from_u64(seed);
        }
    }

    /// Looks at every datagram from now on; those that `filter` refuses are lost before they are on the link. `None` ends it.
    pub fn filter(&self, filter: Option<Filter>) {
        self.shared.lock().filter = filter;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed(&self) -> Duration {
        self.clock.instant().duration_since(self.start)
    }

    /// Takes a datagram at the shore.
    fn send(&self, way: Way, datagram: Datagram) {
        let now = self.elapsed();
        let mut state = self.lock();
        let state = &mut *state;
        let line = &mut state.lines[way as usize];
        let size = datagram.octets.len();
        line.stats.packets += 1;
        line.stats.octets += size as u64;
        let passes = state
            .filter
            .as_mut()
            .is_none_or(|filter| filter(way, &datagram.octets));
        if !passes {
            line.stats.lost += 1;
            return;
        }
        let fate = line.direction.push(now, size, &mut line.rng);
        match fate {
            Fate::Lost => line.stats.lost += 1,
            Fate::Dropped => line.stats.dropped += 1,
            Fate::Deliver(_) | Fate::Twice(..) => {}
        }
        for at in fate.arrivals() {
            state.count += 1;
            state
                .under_way
                .push(Reverse(Due::new(at, state.count, datagram.clone())));
        }
        self.sooner.notify_one();
    }

    /// Hands over what is due, for ever.
    async fn run(&self) {
        loop {
            match self.deliver() {
                None => self.sooner.notified().await,
                Some(next) => {
                    let left = next.saturating_sub(self.elapsed());
                    tokio::select! {
                        () = self.sooner.notified() => {}
                        () = self.clock.sleep(left) => {}
                    }
                }
            }
        }
    }

    /// Hands over what is due; when the next will be.
    fn deliver(&self) -> Option<Duration> {
        let now = self.elapsed();
        let mut state = self.lock();
        let state = &mut *state;
        loop {
            let Reverse(next) = state.under_way.peek()?;
            if next.at > now {
                return Some(next.at);
            }
            let Reverse(Due { what: datagram, .. }) = state.under_way.pop()?;
            let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), datagram.to.port());
            let socket = [datagram.to, everywhere]
                .iter()
                .find_map(|address| state.sockets.get(address)?.upgrade());
            let stats = &mut state.lines[datagram.way as usize].stats;
            match socket {
                Some(socket) if socket.take(datagram) => stats.delivered += 1,
                // Nobody listens there any more, or too slowly.
                _ => stats.dropped += 1,
            }
        }
    }

    fn bind(self: &Arc<Self>, outward: Way, address: SocketAddr) -> io::Result<Arc<Socket>> {
        let mut state = self.lock();
        state.sockets.retain(|_, socket| socket.strong_count() > 0);
        let address = if address.port() == 0 {
            let mut port = state.next_port;
            while state.sockets.contains_key(&SocketAddr::new(address.ip(), port)) {
                port = port.checked_add(1).ok_or(io::ErrorKind::AddrInUse)?;
            }
            state.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            SocketAddr::new(address.ip(), port)
        } else {
            address
        };
        if state.sockets.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let socket = Arc::new(Socket::new(Arc::clone(self), outward, address));
        state.sockets.insert(address, Arc::downgrade(&socket));
        Ok(socket)
    }
}

/// One side of a [`Space`].
#[derive(Clone, Debug)]
pub struct Shore {
    space: Space,
    outward: Way,
}

impl Shore {
    /// Cuts every socket of this side off, as when its process was killed: nothing comes or goes any more, and its address is free.
    pub fn unplug(&self) {
        let mut state = self.space.shared.lock();
        let outward = self.outward;
        state.sockets.retain(|_, socket| {
            let ours = socket.upgrade().filter(|socket| socket.is_of(outward));
            ours.inspect(|socket| socket.unplug()).is_none()
        });
    }

    /// An address for whoever needs none in particular.
    fn any(&self) -> SocketAddr {
        let last = match self.outward {
            Way::Up => 1,
            Way::Down => 2,
        };
        // Addresses for documentation (RFC 5737).
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 0)
    }
}

impl Net for Shore {
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(self.space.shared.bind(self.outward, address)?)
    }

    fn bind_any(&self) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.bind(self.any())
    }
}
