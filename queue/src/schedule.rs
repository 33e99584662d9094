//! When to try again and when to give up: pure functions of policy, history and now.

use std::time::Duration;

use jiff::Timestamp;
use lightpost_clock::add;

/// A path's retry policy, derived from its light time unless configured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// The wait after the first failed attempt.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// By how much each wait is longer than the one before.
    pub factor: f64,
    /// How long a mail is tried.
    pub lifetime: Duration,
    /// How long a reply is awaited after an exchange has left.
    pub reply: Duration,
}

impl Policy {
    /// The wait after `attempts` failed attempts (1 or more).
    pub fn wait(&self, attempts: u32) -> Duration {
        let factor = self
            .factor
            .max(1.0)
            .powi(attempts.saturating_sub(1).min(1000) as i32);
        Duration::try_from_secs_f64(self.first.as_secs_f64() * factor)
            .unwrap_or(self.longest)
            .min(self.longest)
    }

    /// When to try again after the `attempts`th failed attempt, at `now`; `None` when that would be after `expires` and `now` is already past it.
    pub fn next(&self, attempts: u32, now: Timestamp, expires: Timestamp) -> Option<Timestamp> {
        (now < expires).then(|| add(now, self.wait(attempts)).min(expires))
    }
}
