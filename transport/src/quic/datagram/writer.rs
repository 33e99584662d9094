//! Connections that write to a socket with lines.
//!
//! quinn asks a connection's poller whether it may write, and then writes to the socket, which is shared by all connections. Only
//! the second call names the destination, and only the first one can let the connection wait. Both follow each other on one thread without
//! a pause (`quinn::connection::State::drive_transmit`), so the poller leaves word who is about to write, and the write tells that poller
//! which line it is on. An answer that belongs to no connection (a stateless reset, a refusal) comes without a poller and is
//! dropped when its line is full, as it would be at a full socket.

use std::{
    cell::RefCell,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use quinn::{AsyncTimer, UdpPoller};

use super::socket::Socket;

thread_local! {
    /// The poller whose connection writes next on this thread.
    static WRITER: RefCell<Option<Arc<Writer>>> = const { RefCell::new(None) };
}

/// Which line a connection writes to, once it has written.
#[derive(Debug, Default)]
pub(super) struct Writer(Mutex<Option<usize>>);

impl Writer {
    /// Who writes now, when it is a connection.
    pub(super) fn current() -> Option<Arc<Self>> {
        WRITER.take()
    }

    /// It writes to `line`.
    pub(super) fn is_on(&self, line: Option<usize>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }

    fn line(&self) -> Option<usize> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the queue of writers.
pub(super) struct Poller {
    socket: Arc<Socket>,
    writer: Arc<Writer>,
    below: Pin<Box<dyn UdpPoller>>,
    timer: Mutex<Pin<Box<dyn AsyncTimer>>>,
}

impl Poller {
    pub(super) fn new(socket: Arc<Socket>) -> Self {
        Self {
            below: socket.inner.clone().create_io_poller(),
            timer: Mutex::new(socket.runtime.new_timer(socket.runtime.now())),
            writer: Arc::default(),
            socket,
        }
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("writer", &self.writer).finish()
    }
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let line = this.writer.line();
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
