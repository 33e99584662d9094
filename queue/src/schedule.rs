//! When to try again and when to give up: pure functions of policy, history and now.

use std::time::Duration;

use jiff::Timestamp;
use lightpost_clock::{add, sub, until};

/// No first wait is shorter: a far side that refuses for now needs some time of its own.
const FIRST_MIN: Duration = Duration::from_secs(30);
/// What a far side may take to answer beside the light time: processing, queues, retransmissions of small losses.
const PROCESSING: Duration = Duration::from_secs(60);
/// The longest wait on a path without light time and outages.
const LONGEST_MIN: Duration = Duration::from_secs(30 * 60);
/// How long mail is tried at least: the five days of RFC 5321 section 4.5.4.1.
const LIFETIME_MIN: Duration = Duration::from_secs(5 * 24 * 60 * 60);
/// How long mail is tried before its sender hears of a delay, as a part of the lifetime.
const NOTICE_PART: u32 = 30;
/// By how much a notice may come late before something has stood still, as a part of the time after which it comes; and at least.
const SLACK_PART: u32 = 8;
const SLACK_MIN: Duration = Duration::from_secs(5);

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
}

/// When senders hear that mail is late (RFC 3461 section 4.1, `DELAY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notices {
    /// How long a mail waits before its sender hears of it; for ever when `None`.
    pub after: Option<Duration>,
    /// How long it waits on before he hears of it again; he does not when `None`.
    pub again: Option<Duration>,
    /// How long one exchange takes from its start to its reply, with the longest outage in it.
    pub exchange: Duration,
    /// How long a mail that leaves now is on its way at least.
    pub travel: Duration,
}

impl Notices {
    /// What follows from a path: a sender hears of a delay after a thirtieth of the lifetime (4 h of five days), and not before an
    /// exchange, the longest outage in it, can have ended: what light and orbit explain is no delay.
    pub fn derive(lifetime: Duration, exchange: Duration, travel: Duration) -> Self {
        Self {
            after: Some((lifetime / NOTICE_PART).max(exchange)),
            again: None,
            exchange,
            travel,
        }
    }

    /// When the sender of a mail that is accepted at `accepted` first hears of a delay: if he `wants` to, and when the time `by` that he
    /// set is over on arrival.
    pub fn first(&self, accepted: Timestamp, wants: bool, by: Option<Timestamp>) -> Option<Timestamp> {
        let after = self.after.filter(|_| wants).map(|after| add(accepted, after));
        let by = by.map(|by| self.leaves_by(by).max(accepted));
        after.into_iter().chain(by).min()
    }

    /// When he hears of it next, after `now`.
    pub fn next(&self, now: Timestamp, wants: bool, by: Option<Timestamp>) -> Option<Timestamp> {
        let again = self.again.filter(|_| wants).map(|again| add(now, again));
        let by = by.map(|by| self.leaves_by(by)).filter(|by| *by > now);
        again.into_iter().chain(by).min()
    }

    /// Until when a mail has to have left that is to be there at `by`.
    pub fn leaves_by(&self, by: Timestamp) -> Timestamp {
        sub(by, self.travel)
    }

    /// Whether a notice that was due at `due` comes so late that the program must have stood still: then mail that leaves now is no
    /// longer late in the sense of the notice.
    pub fn is_stale(&self, due: Timestamp, now: Timestamp) -> bool {
        let slack = self.after.unwrap_or_default() / SLACK_PART;
        until(due, now) > slack.max(SLACK_MIN)
    }

    /// When a stale notice is looked at again: once an exchange has had the time to end, and then spread over as long as notices take
    /// to come, so that they do not come at once. `draw` is any number, different for each mail.
    pub fn postponed(&self, now: Timestamp, draw: u32) -> Timestamp {
        let span = self.after.unwrap_or(self.exchange);
        let share = span.as_secs_f64() * (f64::from(draw) / f64::from(u32::MAX));
        let share = Duration::try_from_secs_f64(share).unwrap_or(span);
        add(add(now, self.exchange), share)
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
    fn a_delay_is_told_when_the_path_does_not_explain_it() {
        let cases = [
            ("loopback", 0, 0, 4 * HOUR + 20),
            ("Moon", 2, 0, 4 * HOUR + 24),
            ("Moon, no contact for a day", 2, DAY, 2 * DAY + 72),
            ("Mars, far", 22 * MINUTE, 0, 4 * HOUR + 44 * MINUTE + 20),
            (
                "Mars, conjunction",
                22 * MINUTE,
                14 * DAY,
                28 * DAY + 132 * MINUTE + 60,
            ),
        ];
        for (name, owlt, outage, wanted) in cases {
            let policy = Policy::derive(seconds(owlt), seconds(outage));
            let notices = Notices::derive(policy.lifetime, policy.reply, seconds(owlt));
            let first = notices.first(start(), true, None).unwrap();
            assert_eq!(until(start(), first).as_secs(), wanted, "{name}");
            assert_eq!(notices.first(start(), false, None), None);
            assert_eq!(notices.next(first, true, None), None, "{name}: once");
        }
    }

    #[test]
    fn a_time_that_the_sender_set_is_told_of() {
        let notices = Notices {
            again: Some(seconds(HOUR)),
            ..Notices::derive(seconds(5 * DAY), seconds(HOUR), seconds(600))
        };
        let by = |after| Some(add(start(), seconds(after)));
        let passed = |at: Option<Timestamp>| at.map(|at| until(start(), at).as_secs());
        // It has to have left ten minutes before.
        assert_eq!(passed(notices.first(start(), true, by(3600))), Some(3000));
        assert_eq!(passed(notices.first(start(), false, by(3600))), Some(3000));
        assert_eq!(passed(notices.first(start(), true, by(60))), Some(0));
        assert_eq!(passed(notices.first(start(), true, by(5 * DAY))), Some(4 * HOUR));
        let now = add(start(), seconds(4 * HOUR));
        assert_eq!(passed(notices.next(now, false, by(5 * DAY))), Some(5 * DAY - 600));
        assert_eq!(passed(notices.next(now, true, by(5 * DAY))), Some(5 * HOUR));
        assert_eq!(passed(notices.next(now, true, by(60))), Some(5 * HOUR));
        assert_eq!(passed(notices.next(now, false, by(60))), None);
    }

    #[test]
    fn stale_notices_are_spread() {
        let notices = Notices::derive(seconds(5 * DAY), seconds(HOUR), seconds(600));
        let now = add(start(), seconds(DAY));
        assert!(!notices.is_stale(now, now));
        assert!(!notices.is_stale(now, start()));
        assert!(!notices.is_stale(add(start(), seconds(DAY - 1700)), now));
        assert!(notices.is_stale(start(), now));
        let spread = |draw| until(now, notices.postponed(now, draw)).as_secs();
        assert_eq!(
            [0, u32::MAX / 2, u32::MAX].map(spread),
            [HOUR, 3 * HOUR - 1, 5 * HOUR]
        );
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
            let notices = Notices::derive(policy.lifetime, policy.reply, seconds(owlt));
            prop_assert!(notices.first(start(), true, Some(expires)).is_some());
            prop_assert!(notices.postponed(start(), attempts) >= start());
            prop_assert!(policy.reply >= seconds(owlt));
        }
    }
}
