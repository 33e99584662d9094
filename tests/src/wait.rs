//! Waiting for an event with a deadline; the only place of the tests that looks at a clock.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// Polls `condition` until it holds or `limit` is over; says which of the two.
#[must_use]
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let watch = Watch::start();
    loop {
        if condition() {
            return true;
        }
        if watch.elapsed() > limit {
            return false;
        }
        pause(Duration::from_millis(20));
    }
}

/// Polls `condition` until it holds; fails the test with `what` when that takes longer than `limit`.
#[track_caller]
pub fn until(what: &str, limit: Duration, condition: impl FnMut() -> bool) {
    assert!(holds_within(limit, condition), "not within {limit:?}: {what}");
}

/// Polls `probe` until it finds something; fails the test with `what` when that takes longer than `limit`.
#[track_caller]
pub fn until_some<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    until(what, limit, || {
        found = probe();
        found.is_some()
    });
    found.unwrap()
}

/// Whether something accepts TCP connections on `address`.
pub fn listens(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// A stop-watch.
#[derive(Clone, Copy, Debug)]
pub struct Watch(Instant);

impl Watch {
    /// Starts now.
    #[expect(clippy::disallowed_methods, reason = "real processes live in real time")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Lets `duration` pass: between two looks at a condition, or until a moment that a seed chose. Never to let things settle.
#[expect(clippy::disallowed_methods, reason = "real processes live in real time")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
