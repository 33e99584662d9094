//! SMTP (RFC 5321) and LMTP (RFC 2033) on the wire.
//!
//! Sending: [`send::Session`] is one connection that carries many mails, one after the other; [`pool::Pool`] keeps sessions to one
//! server and replaces those that the server has closed meanwhile. Receiving: [`receive`].

pub mod capabilities;
pub mod pool;
pub mod receive;
pub mod reply;
pub mod send;
mod tls;
mod wire;

pub use capabilities::Capabilities;
pub use pool::Pool;
pub use reply::Reply;
