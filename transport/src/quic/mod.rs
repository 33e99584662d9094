//! HTTP/3 on a QUIC stack profiled for deep space.

pub mod client;
pub mod listener;
pub mod profile;
