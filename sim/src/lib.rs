//! Deep space on one machine, for `lightpost demo`, the benches and the tests: a mailbox server that takes everything, a
//! link with light time, rate and loss, a name server and throw-away certificates. Nothing here is for production.

pub mod dns;
mod due;
pub mod link;
pub mod net;
pub mod pki;
pub mod sink;
pub mod tcp;
pub mod udp;

pub use dns::Dns;
pub use net::Space;
pub use pki::Pki;
pub use sink::Sink;
pub use tcp::TcpLink;
pub use udp::UdpLink;
