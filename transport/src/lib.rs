//! Carries one exchange. A transport knows nothing of mail; on the gateway every transport feeds the same router.

pub mod bundle;
mod early;
pub mod exchange;
mod gate;
pub mod path;
pub mod quic;
pub mod tls;
pub mod ways;
pub mod web;

pub use early::{EarlyData, Handshake};
pub use exchange::{Carrier, Exchange, Failure, Late, News, Object, Outcome, PeerIdentity, Reply, Transport};
pub use path::Path;

#[cfg(test)]
mod tests;
