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
    /// The host's time, so many times faster.
    Warp {
        base: Timestamp,
        anchor: Timestamp,
        start: Instant,
        factor: u32,
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

    /// A clock that runs `factor` times as fast as the host's and read `base` when the host's read `anchor`: several processes that
    /// are given the same share one time. A day of it may pass in a minute; what a disk or a processor needs takes as much longer.
    pub fn warp(base: Timestamp, anchor: Timestamp, factor: u32) -> Self {
        Self(Arc::new(Source::Warp {
            base,
            anchor,
            start: Instant::now(),
            factor: factor.max(1),
        }))
    }

    /// The wall-clock time.
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Source::System => Timestamp::now(),
            Source::Runtime { base, start, .. } => add(*base, start.elapsed()),
            Source::Warp {
                base, anchor, factor, ..
            } => add(*base, until(*anchor, Timestamp::now()) * *factor),
        }
    }

    /// The monotonic time, for measuring spans within one process.
    pub fn instant(&self) -> Instant {
        match &*self.0 {
            Source::System | Source::Runtime { .. } => Instant::now(),
            Source::Warp { start, factor, .. } => *start + start.elapsed() * *factor,
        }
    }

    /// How long `span` takes by the host's clock, or by tokio's where that is followed.
    pub fn real(&self, span: Duration) -> Duration {
        match &*self.0 {
            Source::System | Source::Runtime { .. } => span,
            Source::Warp { factor, .. } => span / *factor,
        }
    }

    /// Keeps virtual time where it is until the guard is dropped, for those who wait for something that takes no part in it: a
    /// database's thread, a socket of the kernel. Nothing, at no cost, where time is real.
    pub fn hold(&self) -> Hold {
        match &*self.0 {
            Source::System | Source::Warp { .. } => Hold::NONE,
            Source::Runtime { brake, .. } => brake.hold(),
        }
    }

    /// Sleeps for `span`.
    pub async fn sleep(&self, span: Duration) {
        tokio::time::sleep(self.real(span)).await;
    }

    /// Sleeps until the wall clock reads `at`; returns at once if it already does.
    pub async fn sleep_until(&self, at: Timestamp) {
        loop {
            let left = until(self.now(), at);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(self.real(left).min(RECHECK)).await;
        }
    }

    /// Runs `future` for at most `span`.
    ///
    /// # Errors
    /// [`Elapsed`] when `span` was over first; `future` is dropped.
    pub async fn timeout<F: Future>(&self, span: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(self.real(span), future).await
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

    #[tokio::test(start_paused = true)]
    async fn warped_time_runs_faster() {
        let base: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::warp(base, Timestamp::now(), 1_000);
        assert!(until(base, clock.now()) < Duration::from_secs(3_600));
        // Tokio's clock is paused here, and shows what is asked of it.
        let (real, warped) = (Instant::now(), clock.instant());
        clock.sleep(Duration::from_secs(86_400)).await;
        let passed = real.elapsed();
        assert!(passed >= Duration::from_millis(86_400) && passed < Duration::from_millis(86_410));
        assert_eq!(clock.instant().duration_since(warped), passed * 1_000);
        let silence = std::future::pending::<()>();
        assert!(clock.timeout(Duration::from_secs(1_000), silence).await.is_err());
        assert!(real.elapsed() < passed + Duration::from_millis(1_010));
    }

    #[test]
    fn until_never_goes_negative() {
        let base: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(until(add(base, Duration::from_secs(1)), base), Duration::ZERO);
    }
}
