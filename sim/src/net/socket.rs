//! A socket on a shore.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};

use super::{Shared, Way};

/// Octets that wait for a slow reader, as in a large socket buffer; more are dropped.
const WAITING_MAX: usize = 64 << 20;

/// A datagram under way.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) way: Way,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) octets: Bytes,
}

/// A bound socket; its address is free again when it is dropped.
pub(super) struct Socket {
    shared: Arc<Shared>,
    outward: Way,
    address: SocketAddr,
    unplugged: AtomicBool,
    inbox: Mutex<Inbox>,
}

#[derive(Default)]
struct Inbox {
    arrived: VecDeque<Datagram>,
    octets: usize,
    reader: Option<Waker>,
}

impl Socket {
    pub(super) fn new(shared: Arc<Shared>, outward: Way, address: SocketAddr) -> Self {
        Self {
            shared,
            outward,
            address,
            unplugged: AtomicBool::new(false),
            inbox: Mutex::default(),
        }
    }

    /// Takes what arrives; whether there was room.
    pub(super) fn take(&self, datagram: Datagram) -> bool {
        let mut inbox = self.inbox();
        if datagram.way == self.outward || inbox.octets + datagram.octets.len() > WAITING_MAX {
            return false;
        }
        inbox.octets += datagram.octets.len();
        inbox.arrived.push_back(datagram);
        if let Some(reader) = inbox.reader.take() {
            reader.wake();
        }
        true
    }

    /// Whether it sends that way.
    pub(super) fn is_of(&self, outward: Way) -> bool {
        self.outward == outward
    }

    /// Sends nothing from now on.
    pub(super) fn unplug(&self) {
        self.unplugged.store(true, Ordering::Relaxed);
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.address).finish()
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.unplugged.load(Ordering::Relaxed) {
            return Ok(());
        }
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for octets in transmit.contents.chunks(segment) {
            let datagram = Datagram {
                way: self.outward,
                from: self.address,
                to: transmit.destination,
                ecn: transmit.ecn,
                octets: Bytes::copy_from_slice(octets),
            };
            self.shared.send(self.outward, datagram);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox();
        let mut read = 0;
        for (buffer, meta) in bufs.iter_mut().zip(meta) {
            let Some(datagram) = inbox.arrived.pop_front() else {
                break;
            };
            inbox.octets -= datagram.octets.len();
            let len = datagram.octets.len().min(buffer.len());
            for (to, from) in buffer.iter_mut().zip(&datagram.octets) {
                *to = *from;
            }
            *meta = RecvMeta {
                addr: datagram.from,
                len,
                stride: len,
                ecn: datagram.ecn,
                dst_ip: Some(datagram.to.ip()),
            };
            read += 1;
        }
        if read > 0 {
            return Poll::Ready(Ok(read));
        }
        inbox.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// A socket takes whatever it is given: what does not fit is the link's to drop.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
