//! Requests over real sockets on loopback, on each of the carriers.

mod certificates;
mod crowd;
mod dial;
mod excess;
mod flight;
mod http;
mod quic;
mod restart;
mod resume;
mod resumption;
mod siege;
mod support;
mod throughput;
mod truncated;
