//! The task that sends what waits on a socket's lines when its time comes.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use quinn::{AsyncTimer, UdpPoller};

use super::{batch::next, socket::Socket};

/// Sends what waits on a socket's lines when its time comes.
pub(super) struct Sender {
    socket: Weak<Socket>,
    poller: Pin<Box<dyn UdpPoller>>,
    timer: Pin<Box<dyn AsyncTimer>>,
}

impl Sender {
    pub(super) fn new(socket: &Arc<Socket>) -> Self {
        Self {
            poller: socket.inner.clone().create_io_poller(),
            timer: socket.runtime.new_timer(socket.runtime.now()),
            socket: Arc::downgrade(socket),
        }
    }

    pub(super) async fn run(mut self) {
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
