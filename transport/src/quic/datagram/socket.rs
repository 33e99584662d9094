//! A wire as a socket for quinn.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use quinn::{
    AsyncUdpSocket, Runtime, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::{
    State, Wire,
    batch::{Batch, account, admits, next, next_batch},
    canonical,
    line::{Datagram, Instant},
    sender::Sender,
    writer::{Poller, Writer},
};

/// Octets of a full datagram on the link.
const FULL: f64 = 1248.0;

/// Wraps `inner` and starts what sends what waits.
pub(super) fn wrap(
    wire: Wire,
    inner: Arc<dyn AsyncUdpSocket>,
    runtime: Arc<dyn Runtime>,
) -> Arc<dyn AsyncUdpSocket> {
    let segments = segments(&wire.state());
    let socket = Arc::new(Socket {
        outgoing: Mutex::default(),
        segments: segments.clamp(1, inner.max_transmit_segments()),
        wire,
        inner,
        runtime,
    });
    let sender = Sender::new(&socket);
    socket.runtime.spawn(Box::pin(sender.run()));
    socket
}

pub(super) struct Socket {
    pub(super) wire: Wire,
    pub(super) inner: Arc<dyn AsyncUdpSocket>,
    pub(super) runtime: Arc<dyn Runtime>,
    /// Datagrams that quinn may write at once.
    segments: usize,
    outgoing: Mutex<Outgoing>,
}

#[derive(Default)]
pub(super) struct Outgoing {
    /// What the socket below did not take.
    pub(super) stuck: Option<Batch>,
    /// The sender's.
    pub(super) waker: Option<Waker>,
    /// When the sender wakes by itself.
    pub(super) wakes: Option<Instant>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("inner", &self.inner).finish()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The sender ends when it finds nobody.
        if let Some(waker) = self.outgoing().waker.take() {
            waker.wake();
        }
    }
}

impl Socket {
    pub(super) fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what may leave now. Errors of single datagrams are losses, as on any UDP socket.
    pub(super) fn flush(&self, now: Instant) {
        let mut outgoing = self.outgoing();
        loop {
            let batch = match outgoing.stuck.take() {
                Some(batch) => batch,
                None => match next_batch(&mut self.wire.state(), now, self.inner.max_transmit_segments()) {
                    Some(batch) => batch,
                    None => break,
                },
            };
            match self.inner.try_send(&batch.transmit()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    outgoing.stuck = Some(batch);
                    break;
                }
                Err(error) => tracing::debug!(%error, to = %batch.first.destination, "datagram not sent"),
                Ok(()) => {}
            }
        }
        let next = next(&self.wire.state());
        let later = outgoing
            .wakes
            .is_none_or(|wakes| next.is_some_and(|next| next < wakes));
        if (outgoing.stuck.is_some() || (next.is_some() && later))
            && let Some(waker) = outgoing.waker.take()
        {
            waker.wake();
        }
    }

    /// Lets a line take what quinn writes, in datagrams.
    fn queue(&self, state: &mut State, line: usize, now: Instant, transmit: &Transmit<'_>) {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for part in transmit.contents.chunks(size) {
            if !admits(state, transmit.destination, part.len()) {
                continue;
            }
            let datagram = Datagram {
                destination: transmit.destination,
                source: transmit.src_ip,
                ecn: transmit.ecn,
                contents: Bytes::copy_from_slice(part),
            };
            account(state, &datagram);
            if let Some(line) = state.lines.get_mut(line) {
                line.push(now, datagram);
            }
        }
    }

    /// A line without a rate: quinn's pacer decided that this leaves now, and the repeats follow.
    fn pass(&self, line: usize, now: Instant, transmit: &Transmit<'_>) -> io::Result<()> {
        // All of it or nothing: what belongs to a handshake is small.
        if !admits(
            &mut self.wire.state(),
            transmit.destination,
            transmit.contents.len(),
        ) {
            return Ok(());
        }
        self.inner.try_send(transmit)?;
        let mut state = self.wire.state();
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for part in transmit.contents.chunks(size) {
            let datagram = Datagram {
                destination: transmit.destination,
                source: transmit.src_ip,
                ecn: transmit.ecn,
                contents: Bytes::copy_from_slice(part),
            };
            account(&mut state, &datagram);
            if let Some(line) = state.lines.get_mut(line) {
                line.left(now, datagram);
            }
        }
        drop(state);
        self.flush(now);
        Ok(())
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller::new(self))
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let writer = Writer::current();
        let now = self.runtime.now();
        let mut state = self.wire.state();
        let line = state.line(transmit.destination);
        if let Some(writer) = writer {
            writer.is_on(line);
        }
        let Some(index) = line else {
            drop(state);
            return self.inner.try_send(transmit);
        };
        let Some(line) = state
            .lines
            .get(index)
            .filter(|line| line.options().rate.is_some())
        else {
            drop(state);
            return self.pass(index, now, transmit);
        };
        if !line.wait(now).is_zero() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.queue(&mut state, index, now, transmit);
        drop(state);
        self.flush(now);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = std::task::ready!(self.inner.poll_recv(cx, bufs, meta))?;
        if let Some(amplification) = &mut self.wire.state().amplification {
            for meta in meta.iter().take(received) {
                amplification.received(canonical(meta.addr), meta.len as u64);
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.segments
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// How many full datagrams even the slowest line sends before writers have to wait.
fn segments(state: &State) -> usize {
    let lines = state.lines.iter().map(|line| line.options());
    let rates = lines.filter_map(|options| Some(options.rate? * options.hold.as_secs_f64()));
    rates
        .map(|bits| (bits / 8.0 / FULL) as usize)
        .min()
        .unwrap_or(usize::MAX)
}
