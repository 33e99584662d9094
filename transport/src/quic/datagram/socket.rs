//! A wire as a socket for quinn.
//!
//! quinn asks a connection's poller whether it may write, and then writes to the socket, which is shared by all connections. Only
//! the second call names the destination, and only the first one can let the connection wait. Both follow each other on one thread without
//! a pause (`quinn::connection::State::drive_transmit`), so the poller leaves word who is about to write, and the write tells that poller
//! which line it is on. An answer that belongs to no connection (a stateless reset, a refusal) comes without a poller and is
//! dropped when its line is full, as it would be at a full socket.

use std::{
    cell::RefCell,
    fmt,
    future::poll_fn,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use quinn::{
    AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::{
    State, Wire, canonical,
    line::{Datagram, Instant},
};

/// Octets of a full datagram on the link.
const FULL: f64 = 1248.0;

thread_local! {
    /// The poller whose connection writes next on this thread.
    static WRITER: RefCell<Option<Arc<Writer>>> = const { RefCell::new(None) };
}

/// Which line a connection writes to, once it has written.
#[derive(Debug, Default)]
struct Writer(Mutex<Option<usize>>);

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
    let sender = Sender {
        poller: socket.inner.clone().create_io_poller(),
        timer: socket.runtime.new_timer(socket.runtime.now()),
        socket: Arc::downgrade(&socket),
    };
    socket.runtime.spawn(Box::pin(sender.run()));
    socket
}

struct Socket {
    wire: Wire,
    inner: Arc<dyn AsyncUdpSocket>,
    runtime: Arc<dyn Runtime>,
    /// Datagrams that quinn may write at once.
    segments: usize,
    outgoing: Mutex<Outgoing>,
}

#[derive(Default)]
struct Outgoing {
    /// What the socket below did not take.
    stuck: Option<Batch>,
    /// The sender's.
    waker: Option<Waker>,
    /// When the sender wakes by itself.
    wakes: Option<Instant>,
}

/// Datagrams of one size for one destination; the last one may be shorter.
struct Batch {
    first: Datagram,
    contents: Bytes,
    segment: Option<usize>,
}

impl Batch {
    fn transmit(&self) -> Transmit<'_> {
        Transmit {
            destination: self.first.destination,
            ecn: self.first.ecn,
            contents: &self.contents,
            segment_size: self.segment,
            src_ip: self.first.source,
        }
    }
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
    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what may leave now. Errors of single datagrams are losses, as on any UDP socket.
    fn flush(&self, now: Instant) {
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
        let Some(line) = state.lines.get_mut(line) else {
            return;
        };
        for part in transmit.contents.chunks(size) {
            line.push(
                now,
                Datagram {
                    destination: transmit.destination,
                    source: transmit.src_ip,
                    ecn: transmit.ecn,
                    contents: Bytes::copy_from_slice(part),
                },
            );
        }
    }

    /// A line without a rate: quinn's pacer decided that this leaves now, and the repeats follow.
    fn pass(&self, line: usize, now: Instant, transmit: &Transmit<'_>) -> io::Result<()> {
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
        Box::pin(Poller {
            below: self.inner.clone().create_io_poller(),
            timer: Mutex::new(self.runtime.new_timer(self.runtime.now())),
            writer: Arc::default(),
            socket: self,
        })
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let writer = WRITER.take();
        let now = self.runtime.now();
        let mut state = self.wire.state();
        let line = state.line(transmit.destination);
        if let Some(writer) = writer {
            *writer.0.lock().unwrap_or_else(PoisonError::into_inner) = line;
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

/// When the next datagram of any line may leave.
fn next(state: &State) -> Option<Instant> {
    state.lines.iter().filter_map(|line| line.next()).min()
}

/// What leaves now, as much of it at once as the socket below takes.
fn next_batch(state: &mut State, now: Instant, most: usize) -> Option<Batch> {
    for index in 0..state.lines.len() {
        let Some(first) = take(state, index, now) else {
            continue;
        };
        let size = first.contents.len();
        let mut contents = BytesMut::new();
        let mut count = 1;
        while count < most
            && let Some(line) = state.lines.get(index)
            && line.continues(now, &first)
            && let Some(more) = take(state, index, now)
        {
            if count == 1 {
                contents.extend_from_slice(&first.contents);
            }
            count += 1;
            contents.extend_from_slice(&more.contents);
            if more.contents.len() < size {
                break;
            }
        }
        return Some(Batch {
            segment: (count > 1).then_some(size),
            contents: if count > 1 {
                contents.freeze()
            } else {
                first.contents.clone()
            },
            first,
        });
    }
    None
}

/// The next datagram of a line, past the repeats that the peer's address must not be sent.
fn take(state: &mut State, index: usize, now: Instant) -> Option<Datagram> {
    let State {
        lines, amplification, ..
    } = state;
    let allows = |datagram: &Datagram| match amplification {
        Some(sums) => sums.allows(canonical(datagram.destination), datagram.contents.len() as u64),
        None => true,
    };
    let datagram = lines.get_mut(index)?.take(now, allows)?;
    account(state, &datagram);
    Some(datagram)
}

fn account(state: &mut State, datagram: &Datagram) {
    if let Some(sums) = &mut state.amplification {
        sums.sent(canonical(datagram.destination), datagram.contents.len() as u64);
    }
}

/// A connection's place in the queue of writers.
struct Poller {
    socket: Arc<Socket>,
    writer: Arc<Writer>,
    below: Pin<Box<dyn UdpPoller>>,
    timer: Mutex<Pin<Box<dyn AsyncTimer>>>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("writer", &self.writer).finish()
    }
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let line = *this.writer.0.lock().unwrap_or_else(PoisonError::into_inner);
        let paced = {
            let state = this.socket.wire.state();
            let line = line.and_then(|line| state.lines.get(line));
            line.filter(|line| line.options().rate.is_some())
                .map(|line| line.wait(this.socket.runtime.now()))
        };
        match paced {
            Some(wait) if !wait.is_zero() => {
                let timer = this.timer.get_mut().unwrap_or_else(PoisonError::into_inner);
                timer.as_mut().reset(this.socket.runtime.now() + wait);
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                // Its timer was up already: let others run, then look again.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(_) => {}
            None => std::task::ready!(this.below.as_mut().poll_writable(cx))?,
        }
        WRITER.set(Some(this.writer.clone()));
        Poll::Ready(Ok(()))
    }
}

/// Sends what waits on a socket's lines when its time comes.
struct Sender {
    socket: Weak<Socket>,
    poller: Pin<Box<dyn UdpPoller>>,
    timer: Pin<Box<dyn AsyncTimer>>,
}

impl Sender {
    async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// Ready when the socket is gone.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(socket) = self.socket.upgrade() else {
                return Poll::Ready(());
            };
            let now = socket.runtime.now();
            socket.outgoing().waker = None;
            socket.flush(now);
            let mut outgoing = socket.outgoing();
            outgoing.waker = Some(cx.waker().clone());
            if outgoing.stuck.is_some() {
                match self.poller.as_mut().poll_writable(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(error)) => {
                        tracing::debug!(%error, "the socket cannot be written to");
                        outgoing.stuck = None;
                        continue;
                    }
                }
            }
            outgoing.wakes = next(&socket.wire.state());
            let Some(next) = outgoing.wakes else {
                return Poll::Pending;
            };
            self.timer.as_mut().reset(next);
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
