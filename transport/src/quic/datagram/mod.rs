//! What happens to datagrams between QUIC and the network: paced to the path's rate, and repeated where a loss would cost
//! light times.
//!
//! quinn's own pacer sends 1.25 times the window in each smoothed round trip. After a hold of hours the smoothed round trip is
//! ruined for the rest of the connection, and a queue at the link that cannot take the surplus loses so much of it that the
//! connection dies. So with the controller [`super::congestion::FixedRate`] the pacer is off, and a [`Wire`] holds the rate
//! instead: a decorator of the socket that quinn writes to.
//!
//! A wire has a line for each path. A line takes what is written until 50 ms of it wait; then it lets writers wait, as a full
//! socket would. What leaves, leaves at the path's rate, the headers of UDP and IP counted. Repeats ([`Redundancy`]) take part in
//! the same rate.
//!
//! The lines themselves ([`line`]) know neither sockets nor clocks. The socket ([`socket`]) asks quinn's [`quinn::Runtime`] for both,
//! so that all of it lives in virtual time as well.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quinn::{AsyncUdpSocket, Runtime};

mod amplification;
mod batch;
mod line;
mod redundancy;
mod sender;
mod socket;
#[cfg(test)]
mod tests;
mod writer;

pub use line::{LineCounters, LineOptions};
pub use redundancy::{Policy, Redundancy};

use amplification::Amplification;
use line::Line;

/// Destinations that are known to lead over a line; more than any outbox has gateways.
const ROUTES: usize = 4096;

/// The lines of an endpoint. Cheap to clone; each clone is the same wire.
#[derive(Clone, Debug)]
pub struct Wire(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    lines: Vec<Line>,
    names: Vec<String>,
    routes: HashMap<SocketAddr, usize>,
    /// The line of destinations that have no route.
    default: Option<usize>,
    /// For those who answer strangers.
    amplification: Option<Amplification>,
}

impl Wire {
    /// A wire for an endpoint that opens connections: each destination goes over the line that [`Wire::route`] says; others go
    /// as they are.
    pub fn outgoing(lines: impl IntoIterator<Item = (String, LineOptions)>) -> Self {
        let (names, lines) = lines
            .into_iter()
            .map(|(name, options)| (name, Line::new(options)))
            .unzip();
        Self::new(State {
            lines,
            names,
            routes: HashMap::new(),
            default: None,
            amplification: None,
        })
    }

    /// A wire for an endpoint that is called: all of it goes over one line. Neither a repeat nor, during a handshake ([`Wire::doubt`]),
    /// anything makes the sum of what an address is sent more than three times what came from it (RFC 9000 section 8.1).
    pub fn incoming(options: LineOptions) -> Self {
        Self::new(State {
            lines: vec![Line::new(options)],
            names: vec![String::new()],
            routes: HashMap::new(),
            default: Some(0),
            amplification: options.redundancy.repeats().then(Amplification::default),
        })
    }

    fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// What is sent to `destination` takes the line `name` from now on.
    pub fn route(&self, destination: SocketAddr, name: &str) {
        let mut state = self.state();
        let Some(line) = state.names.iter().position(|known| known == name) else {
            return;
        };
        if state.routes.len() >= ROUTES {
            state.routes.clear();
        }
        state.routes.insert(canonical(destination), line);
    }

    /// A handshake begins from an address that is not known to be real.
    pub(crate) fn doubt(&self, address: SocketAddr) {
        if let Some(sums) = &mut self.state().amplification {
            sums.doubt(canonical(address));
        }
    }

    /// An address is known to be real: of a token that it was given, or since a handshake is complete.
    pub(crate) fn validated(&self, address: SocketAddr) {
        if let Some(sums) = &mut self.state().amplification {
            sums.validated(canonical(address));
        }
    }

    /// `socket`, with this wire behind it.
    pub fn wrap(
        &self,
        socket: Arc<dyn AsyncUdpSocket>,
        runtime: &Arc<dyn Runtime>,
    ) -> Arc<dyn AsyncUdpSocket> {
        if self.state().lines.iter().all(|line| line.options().is_plain()) {
            return socket;
        }
        socket::wrap(self.clone(), socket, runtime.clone())
    }

    /// What went over all lines so far.
    pub fn counters(&self) -> LineCounters {
        let state = self.state();
        state
            .lines
            .iter()
            .fold(LineCounters::default(), |sum, line| LineCounters {
                sent: sum.sent + line.counters.sent,
                sent_octets: sum.sent_octets + line.counters.sent_octets,
                repeated: sum.repeated + line.counters.repeated,
                repeated_octets: sum.repeated_octets + line.counters.repeated_octets,
                dropped: sum.dropped + line.counters.dropped,
            })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The line to `destination`, where it has one that does anything.
    fn line(&self, destination: SocketAddr) -> Option<usize> {
        let routed = match self.routes.is_empty() {
            true => None,
            false => self.routes.get(&canonical(destination)).copied(),
        };
        let line = routed.or(self.default)?;
        self.lines
            .get(line)
            .filter(|line| !line.options().is_plain())
            .map(|_| line)
    }
}

/// The same address whatever the socket's family and its scope.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
