//! What strangers and peers do that they must not: one line tells of the first, and one a minute of those that follow, so that neither
//! a single one goes unseen nor a flood fills the log.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use lightpost_clock::Clock;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::sync::Notify;

/// From one line to the next.
const PAUSE: Duration = Duration::from_secs(60);
/// Octets of a cause that are told: a peer has a say in it.
const CAUSE: usize = 200;
/// The fixed bit, which every packet of QUIC has (RFC 9000 section 17) where it is not greased (RFC 9287).
const FIXED_BIT: u8 = 0x40;

/// The faults that were not told yet.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    untold: Mutex<Untold>,
    noted: Notify,
}

#[derive(Debug, Default)]
struct Untold {
    count: u64,
    first: Option<(SocketAddr, String)>,
}

impl Faults {
    /// Notes one of `peer`.
    pub(crate) fn note(&self, peer: SocketAddr, cause: &str) {
        let mut untold = self.untold();
        untold.count += 1;
        if untold.count == 1 {
            let cause = cause.chars().take(CAUSE).collect::<String>();
            untold.first = Some((peer, cause.escape_debug().to_string()));
            self.noted.notify_one();
        }
    }

    /// Tells of them until it is dropped.
    pub(crate) async fn tell(&self, clock: &Clock) {
        loop {
            self.noted.notified().await;
            let Untold { count, first } = std::mem::take(&mut *self.untold());
            if let Some((peer, cause)) = first {
                tracing::info!(count, %peer, cause, "what came was not what it has to be; the first of them");
            }
            clock.sleep(PAUSE).await;
        }
    }

    fn untold(&self) -> MutexGuard<'_, Untold> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that notes datagrams which no QUIC packet begins; QUIC drops them without a word.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) socket: Arc<dyn AsyncUdpSocket>,
    pub(crate) faults: Arc<Faults>,
    /// Whether peers may clear the fixed bit, so that a packet cannot be told by it.
    pub(crate) greased: bool,
}

impl AsyncUdpSocket for Watched {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = std::task::ready!(self.socket.poll_recv(cx, bufs, meta))?;
        for (octets, meta) in bufs.iter().zip(meta.iter()).take(received) {
            if !self.greased && octets.first().is_some_and(|first| first & FIXED_BIT == 0) {
                self.faults.note(meta.addr, "a datagram that is not of QUIC");
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
