//! Lines as lists of times, and a wire under quinn's calls.

use std::{net::SocketAddr, time::Duration};

use quinn::{Runtime, TokioRuntime};

use super::{
    LineOptions, Policy, Redundancy,
    line::{Datagram, Instant, Line},
};

mod lines;
mod sockets;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn start() -> Instant {
    TokioRuntime.now()
}

fn to(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 443))
}

fn redundancy(policy: Policy) -> Redundancy {
    Redundancy {
        policy,
        copies: 2,
        gap: ms(20),
        small: 2_500,
    }
}

/// 1,000 octets take 8 ms.
fn options(policy: Policy) -> LineOptions {
    LineOptions {
        rate: Some(1e6),
        hold: ms(50),
        redundancy: redundancy(policy),
    }
}
