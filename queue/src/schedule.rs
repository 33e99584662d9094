//! When to try again and when to give up: pure functions of policy, history and now.

use std::time::Duration;

use jiff::Timestamp;
use lightpost_clock::{add, until};

/// No first wait is shorter: a far side that refuses for now needs some time of its own.
const FIRST_MIN: Duration = Duration::from_secs(30);
/// What a far side may take to answer beside the light time: processing, queues, retransmissions of small losses.
const PROCESSING: Duration = Duration::from_secs(60);
/// The longest wait on a path without light time and outages.
const LONGEST_MIN: Duration = Duration::from_secs(30 * 60);
/// How long mail is tried at least: the five days of RFC 5321 section 4.5.4.1.
const LIFETIME_MIN: Duration = Duration::from_secs(5 * 24 * 60 * 60);
/// How long mail is tried before a sender who asked for it hears of a delay, as a part of the lifetime.
const NOTICE_PART: u32 = 30;

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
    /// The policy of a path with the given longest one-way light time and longest outage (no contact at all).
    ///
    /// - `first`: one round trip, at least 30 s. Trying faster than an answer can come back teaches nothing.
    /// - `longest`: eight round trips, at least 30 min, and no longer than a quarter of the longest outage where that is
    ///   more: contact that returns is used soon.
    /// - `reply`: three round trips (the request, a loss repaired, the reply), the longest outage once on each way, and a
    ///   minute for the far side. A repeat before that would only load the link.
    /// - `lifetime`: five days (RFC 5321 section 4.5.4.1) beside all of it: ten full waits for a reply pass before a mail
    ///   is given up where those take longer.
    pub fn derive(one_way_max: Duration, outage_max: Duration) -> Self {
        let round_trip = one_way_max.saturating_mul(2);
        let first = round_trip.max(FIRST_MIN);
        let reply = round_trip
            .saturating_mul(3)
            .saturating_add(outage_max.saturating_mul(2))
            .saturating_add(PROCESSING);
        Self {
            first,
            longest: round_trip.saturating_mul(8).max(LONGEST_MIN).max(outage_max / 4),
            factor: 2.0,
            lifetime: LIFETIME_MIN.saturating_add(reply.saturating_mul(10)),
            reply,
        }
    }

    /// The wait after `attempts` failed attempts (1 or more).
    pub fn wait(&self, attempts: u32) -> Duration {
        let exponent = i32::try_from(attempts.saturating_sub(1).min(1000)).unwrap_or(1000);
        let factor = self.factor.max(1.0).powi(exponent);
        Duration::try_from_secs_f64(self.first.as_secs_f64() * factor)
            .unwrap_or(self.longest)
            .min(self.longest)
    }

    /// When to try again after the `attempts`th failed attempt, at `now`: not later than `expires`, so that the end of a
    /// lifetime is seen in time. `None` once it is over.
    pub fn next(&self, attempts: u32, now: Timestamp, expires: Timestamp) -> Option<Timestamp> {
        (now < expires).then(|| add(now, self.wait(attempts)).min(expires))
    }

    /// When a mail that is accepted at `now` is given up.
    pub fn expires(&self, now: Timestamp) -> Timestamp {
        add(now, self.lifetime)
    }

    /// Until when the reply to an exchange that leaves at `now` is awaited.
    pub fn reply_until(&self, now: Timestamp) -> Timestamp {
        add(now, self.reply)
    }

    /// When a sender who asked for it (`NOTIFY=DELAY`, RFC 3461 section 4.1) hears that a mail is late: after a thirtieth of
    /// its lifetime (4 h of five days), not before a reply can have come.
    pub fn delay_notice(&self, accepted: Timestamp, expires: Timestamp) -> Timestamp {
        let lifetime = until(accepted, expires);
        add(accepted, (lifetime / NOTICE_PART).max(self.reply)).min(expires)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn start() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn waits_as_lists_of_numbers() {
        let cases: [(&str, u64, u64, [u64; 8]); 4] = [
            ("loopback", 0, 0, [30, 60, 120, 240, 480, 960, 1800, 1800]),
            ("Moon", 2, 0, [30, 60, 120, 240, 480, 960, 1800, 1800]),
            (
                "Mars, far",
                22 * MINUTE,
                0,
                [2640, 5280, 10_560, 21_120, 21_120, 21_120, 21_120, 21_120],
            ),
            (
                "Mars, conjunction",
                22 * MINUTE,
                14 * DAY,
                [2640, 5280, 10_560, 21_120, 42_240, 84_480, 168_960, 302_400],
            ),
        ];
        for (name, owlt, outage, wanted) in cases {
            let policy = Policy::derive(seconds(owlt), seconds(outage));
            let waits: Vec<u64> = (1..=8).map(|attempts| policy.wait(attempts).as_secs()).collect();
            assert_eq!(waits, wanted, "{name}");
        }
    }

    #[test]
    fn a_reply_has_time_to_come() {
        let cases = [
            (0, 0, 60),
            (8, 0, 108),
            (22 * MINUTE, 0, 132 * MINUTE + 60),
            (22 * MINUTE, 14 * DAY, 28 * DAY + 132 * MINUTE + 60),
        ];
        for (owlt, outage, wanted) in cases {
            let policy = Policy::derive(seconds(owlt), seconds(outage));
            assert_eq!(policy.reply.as_secs(), wanted, "{owlt} {outage}");
            assert_eq!(
                policy.lifetime.as_secs(),
                5 * DAY + 10 * wanted,
                "{owlt} {outage}"
            );
        }
    }

    #[test]
    fn the_last_attempt_is_at_the_end() {
        let policy = Policy::derive(seconds(8), seconds(0));
        let expires = add(start(), seconds(100));
        let mut now = start();
        let mut times = Vec::new();
        for attempts in 1.. {
            let Some(next) = policy.next(attempts, now, expires) else {
                break;
            };
            times.push(until(start(), next).as_secs());
            now = next;
        }
        assert_eq!(times, [30, 90, 100]);
    }

    #[test]
    fn a_delay_is_told_in_time() {
        let policy = Policy::derive(seconds(8), seconds(0));
        let notice = |lifetime| {
            until(
                start(),
                policy.delay_notice(start(), add(start(), seconds(lifetime))),
            )
            .as_secs()
        };
        assert_eq!(notice(5 * DAY), 4 * HOUR);
        assert_eq!(notice(HOUR), 120);
        assert_eq!(notice(50), 50);
    }

    proptest! {
        #[test]
        fn nothing_overflows(owlt: u64, outage: u64, attempts: u32, factor: f64) {
            let policy = Policy { factor, ..Policy::derive(seconds(owlt), seconds(outage)) };
            let wait = policy.wait(attempts);
            prop_assert!(wait <= policy.longest);
            prop_assert!(policy.wait(attempts.saturating_add(1)) >= wait);
            let expires = policy.expires(start());
            prop_assert!(policy.next(attempts, start(), expires).is_some_and(|next| next <= expires));
            prop_assert!(policy.delay_notice(start(), expires) <= expires);
            prop_assert!(policy.reply >= seconds(owlt));
        }
    }
}
