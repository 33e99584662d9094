//! The one place that reads a clock or sleeps.
//!
//! Everything else takes `now` as an argument or is handed a [`Clock`], so that stories of days can be told in
//! milliseconds. `clippy.toml` bans the clocks of `std`, `tokio` and `jiff` outside this crate.
#![allow(clippy::disallowed_methods)]

mod hold;

use std::{future::Future, sync::Arc, time::Duration};

use jiff::Timestamp;
pub use tokio::time::{Instant, error::Elapsed};

use self::hold::Brake;
pub use self::hold::Hold;

/// How long a sleeper trusts the monotonic clock before it looks at the wall clock again: a host that was
/// suspended or whose clock was set finds its due mail at most this much late.
const RECHECK: Duration = Duration::from_secs(30);

/// A source of wall-clock time and of sleep. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System,
    /// Wall time derived from tokio's clock, which tests pause and advance.
    Runtime {
        base: Timestamp,
        start: Instant,
        brake: Arc<Brake>,
    },
}

impl Clock {
    /// The host's clock.
    pub fn system() -> Self {
        Self(Arc::new(Source::System))
    }

    /// A wall clock that reads `base` now and follows tokio's clock from here on, pauses included.
    pub fn runtime(base: Timestamp) -> Self {
        Self(Arc::new(Source::Runtime {
            base,
            start: Instant::now(),
            brake: Arc::default(),
        }))
    }

    /// The wall-clock time.
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Source::System => Timestamp::now(),
            Source::Runtime { base, start, .. } => add(*base, start.elapsed()),
        }
    }

    /// The monotonic time, for measuring spans within one process.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Keeps virtual time where it is until the guard is dropped, for those who wait for something that takes no part in it: a
    /// database's thread, a socket of the kernel. Nothing, at no cost, where time is real.
    pub fn hold(&self) -> Hold {
        match &*self.0 {
            Source::System => Hold::NONE,
            Source::Runtime { brake, .. } => brake.hold(),
        }
    }

    /// Sleeps for `span`.
    pub async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    /// Sleeps until the wall clock reads `at`; returns at once if it already does.
    pub async fn sleep_until(&self, at: Timestamp) {
        loop {
            let left = until(self.now(), at);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(RECHECK)).await;
        }
    }

    /// Runs `future` for at most `span`.
    ///
    /// # Errors
    /// [`Elapsed`] when `span` was over first; `future` is dropped.
    pub async fn timeout<F: Future>(&self, span: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(span, future).await
    }
}

/// `at + span`, at most the last representable time.
pub fn add(at: Timestamp, span: Duration) -> Timestamp {
    at.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// `at - span`, at least the first representable time.
pub fn sub(at: Timestamp, span: Duration) -> Timestamp {
    at.checked_sub(span).unwrap_or(Timestamp::MIN)
}

/// The time from `from` to `to`, zero when `to` is not later.
pub fn until(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn runtime_clock_follows_tokio() {
        let base: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::runtime(base);
        clock.sleep_until(add(base, Duration::from_secs(86_400))).await;
        assert_eq!(until(base, clock.now()), Duration::from_secs(86_400));
    }

    /// What another thread takes some time for.
    async fn slow_answer() {
        let (answer, answered) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            answer.send(()).unwrap();
        });
        answered.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn held_time_stands_still() {
        let base: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::runtime(base);
        let day = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(86_400)).await }
        });
        for _ in 0..3 {
            let (first, second) = (clock.hold(), clock.hold());
            slow_answer().await;
            drop(first);
            slow_answer().await;
            assert_eq!(clock.now(), base);
            drop(second);
        }
        // Nobody holds: the same wait takes until the next timer.
        slow_answer().await;
        assert_eq!(until(base, clock.now()), Duration::from_secs(86_400));
        day.await.unwrap();
    }

    #[test]
    fn holding_needs_no_runtime() {
        drop(Clock::system().hold());
        drop(Clock::runtime(Timestamp::UNIX_EPOCH).hold());
    }

    #[test]
    fn until_never_goes_negative() {
        let base: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(until(add(base, Duration::from_secs(1)), base), Duration::ZERO);
    }
}
