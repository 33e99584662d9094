//! HTTP/3 on a QUIC stack profiled for deep space.

pub mod client;
pub mod congestion;
pub mod datagram;
pub mod flight;
pub mod hedge;
pub mod listener;
pub mod net;
pub mod profile;
pub mod tickets;

mod accepting;
mod body;
mod dial;
mod faults;
mod frames;
mod halves;
mod reset;
pub(crate) mod resume;
mod serving;
mod session;
mod socket;
mod streams;
mod turns;
pub(crate) mod unidirectional;
