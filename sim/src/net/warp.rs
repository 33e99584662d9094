//! The kernel's sockets for programs whose time runs faster than the host's.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use lightpost_clock::Clock;
use lightpost_transport::quic::net::{Kernel, Net};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

/// UDP of the kernel, and timers of a clock made by [`Clock::warp`].
#[derive(Clone, Debug)]
pub struct WarpedKernel(Clock);

impl WarpedKernel {
    /// With the time of `clock`.
    pub fn new(clock: Clock) -> Self {
        Self(clock)
    }
}

impl Net for WarpedKernel {
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Kernel.bind(address)
    }

    fn bind_any(&self) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Kernel.bind_any()
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.clone())
    }
}

impl Runtime for WarpedKernel {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer {
            sleep: sleep(&self.0, at),
            clock: self.0.clone(),
            at,
        })
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        self.0.instant().into_std()
    }
}

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

fn sleep(clock: &Clock, at: Instant) -> Sleep {
    let (clock, left) = (
        clock.clone(),
        at.saturating_duration_since(clock.instant().into_std()),
    );
    Box::pin(async move { clock.sleep(left).await })
}

struct Timer {
    clock: Clock,
    at: Instant,
    sleep: Sleep,
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timer").field(&self.at).finish()
    }
}

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.at = at;
        self.sleep = sleep(&self.clock, at);
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if self.clock.instant().into_std() >= self.at {
                return Poll::Ready(());
            }
            // The host's timers are coarse: a sleep may end a little early by this clock.
            let again = sleep(&self.clock, self.at);
            self.sleep = again;
        }
    }
}
