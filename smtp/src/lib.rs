//! SMTP (RFC 5321) and LMTP (RFC 2033) on the wire.

pub mod reply;
pub mod send;

pub use reply::Reply;
