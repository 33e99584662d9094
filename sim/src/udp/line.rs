//! What is under way in one direction.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use lightpost_clock::{Clock, Instant};
use rand::{SeedableRng, rngs::StdRng};
use socket2::SockRef;
use tokio::net::UdpSocket;

use super::DirectionStats;
use crate::{
    due::Due,
    link::{Direction, DirectionOptions, Fate},
};

/// Most octets under way in one direction, for the sake of memory: 8 light seconds at 250 Mbit/s.
const UNDER_WAY_MAX: u64 = 256 * 1024 * 1024;

/// Where a packet leaves the link.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// On a socket that is connected to the target.
    Target(Arc<UdpSocket>),
    /// On the socket that the client knows, to the client.
    Client(Arc<UdpSocket>, SocketAddr),
}

impl Route {
    /// Sends past the runtime: it takes a socket for busy until it has looked at it once, which would lose the first packet
    /// of a client.
    fn send(&self, packet: &[u8]) -> io::Result<usize> {
        match self {
            Self::Target(socket) => SockRef::from(&**socket).send(packet),
            Self::Client(socket, client) => SockRef::from(&**socket).send_to(packet, &(*client).into()),
        }
    }
}

#[derive(Debug)]
struct Packet {
    octets: Box<[u8]>,
    route: Route,
}

#[derive(Debug, Default)]
struct Counters {
    packets: AtomicU64,
    octets: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
    dropped: AtomicU64,
    under_way: AtomicU64,
}

/// The state that decides about packets, and the way to the thread that holds them; gone once stopped.
#[derive(Debug)]
struct Entry {
    direction: Direction,
    rng: StdRng,
    /// The thread waits on its other end; dropping it ends the wait.
    packets: mpsc::Sender<(Duration, Packet)>,
}

/// One direction with the thread that delivers.
#[derive(Debug)]
pub(super) struct Line {
    clock: Clock,
    start: Instant,
    entry: Mutex<Option<Entry>>,
    counters: Arc<Counters>,
}

impl Line {
    pub(super) fn start(options: DirectionOptions, seed: u64, clock: Clock) -> io::Result<Self> {
        let start = clock.instant();
        let counters = Arc::new(Counters::default());
        let (packets, under_way) = mpsc::channel();
        let exit = Exit {
            clock: clock.clone(),
            start,
            counters: Arc::clone(&counters),
        };
        thread::Builder::new()
            .name("light-time".to_owned())
            .spawn(move || exit.run(&under_way))?;
        let entry = Entry {
            direction: Direction::new(options),
            rng: StdRng::seed_from_u64(seed),
            packets,
        };
        Ok(Self {
            clock,
            start,
            entry: Mutex::new(Some(entry)),
            counters,
        })
    }

    /// Takes a packet at the near end.
    pub(super) fn push(&self, octets: &[u8], route: Route) {
        let size = octets.len() as u64;
        self.counters.packets.fetch_add(1, Relaxed);
        self.counters.octets.fetch_add(size, Relaxed);
        let mut entry = self.entry.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = &mut *entry else {
            return;
        };
        let now = self.clock.instant().duration_since(self.start);
        let fate = entry.direction.push(now, octets.len(), &mut entry.rng);
        match fate {
            Fate::Lost => drop(self.counters.lost.fetch_add(1, Relaxed)),
            Fate::Dropped => drop(self.counters.dropped.fetch_add(1, Relaxed)),
            Fate::Deliver(_) | Fate::Twice(..) => {}
        }
        for at in fate.arrivals() {
            if self.counters.under_way.load(Relaxed) + size > UNDER_WAY_MAX {
                self.counters.dropped.fetch_add(1, Relaxed);
                continue;
            }
            self.counters.under_way.fetch_add(size, Relaxed);
            let packet = Packet {
                octets: octets.into(),
                route: route.clone(),
            };
            // Fails only when the thread is gone, and then nobody waits for it.
            let _ = entry.packets.send((at, packet));
        }
    }

    /// Ends the thread; what is under way is lost.
    pub(super) fn stop(&self) {
        self.entry.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn stats(&self) -> DirectionStats {
        DirectionStats {
            packets: self.counters.packets.load(Relaxed),
            octets: self.counters.octets.load(Relaxed),
            delivered: self.counters.delivered.load(Relaxed),
            lost: self.counters.lost.load(Relaxed),
            dropped: self.counters.dropped.load(Relaxed),
        }
    }
}

/// The far end.
struct Exit {
    clock: Clock,
    start: Instant,
    counters: Arc<Counters>,
}

impl Exit {
    /// Delivers each packet in its time, until the near end is gone.
    fn run(&self, arriving: &mpsc::Receiver<(Duration, Packet)>) {
        let mut under_way = BinaryHeap::new();
        let mut count = 0;
        loop {
            let now = self.clock.instant().duration_since(self.start);
            let next = match under_way.peek() {
                None => arriving.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some(Reverse(Due { at, .. })) => {
                    arriving.recv_timeout(self.clock.real(at.saturating_sub(now)))
                }
            };
            match next {
                Ok((at, packet)) => {
                    count += 1;
                    under_way.push(Reverse(Due::new(at, count, packet)));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if let Some(Reverse(due)) = under_way.pop() {
                        self.deliver(&due.what);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn deliver(&self, packet: &Packet) {
        self.counters
            .under_way
            .fetch_sub(packet.octets.len() as u64, Relaxed);
        let counter = match packet.route.send(&packet.octets) {
            Ok(_) => &self.counters.delivered,
            Err(_) => &self.counters.dropped,
        };
        counter.fetch_add(1, Relaxed);
    }
}
