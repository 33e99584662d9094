//! Where datagrams go: the kernel's UDP, or a network that a bench or a test brings.
//!
//! Clock and datagrams are all that is exchanged between the shipped programs and what measures them; everything above a
//! [`Net`] is the same code.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use quinn::{AsyncUdpSocket, Runtime, TimeSource, TokioRuntime};
use rustls::time_provider::TimeProvider;

use super::socket;

/// A network of datagrams and the time that its timers follow.
pub trait Net: fmt::Debug + Send + Sync + 'static {
    /// A socket on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// A client's socket on a free port, for all the address families there are.
    ///
    /// # Errors
    /// When there is none.
    fn bind_any(&self) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// What spawns QUIC's tasks and keeps its timers; by default tokio's, which follows a paused clock, too.
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(TokioRuntime)
    }
}

/// The kernel's UDP, with room for what arrives while we are busy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl Net for Kernel {
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket::bind(address)?)
    }

    fn bind_any(&self) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket::any()?)
    }
}

/// QUIC's wall clock, by which it dates address-validation tokens: the same as TLS has.
pub(crate) struct TlsTime(pub(crate) Arc<dyn TimeProvider>);

impl TimeSource for TlsTime {
    fn now(&self) -> SystemTime {
        let since = self.0.current_time().map_or(0, |time| time.as_secs());
        SystemTime::UNIX_EPOCH + Duration::from_secs(since)
    }
}
