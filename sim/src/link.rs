//! One direction of a link as a pure state machine: no socket, no clock, no chance of its own.
//!
//! A packet first waits until those before it are sent (a queue, bounded in octets), is then sent at the link's rate, and
//! arrives one light time after its last bit left. What gets lost, gets lost under way: it takes its time on the link all the
//! same. Times are spans since the link's start, so that wall clocks and simulated ones can drive it.

use std::{ops::Range, time::Duration};

use rand::{Rng, RngExt};

/// How one direction behaves.
#[derive(Clone, Debug)]
pub struct DirectionOptions {
    /// One-way light time.
    pub owlt: Duration,
    /// Bits per second; `None` sends in no time.
    pub rate: Option<u64>,
    /// Which part of the packets is lost under way, 0 to 1.
    pub loss: f64,
    /// Which part arrives twice, 0 to 1.
    pub duplicates: f64,
    /// Which part arrives late, by up to [`DirectionOptions::late_by`], 0 to 1: later packets overtake it.
    pub late: f64,
    /// The most that a late packet is late by.
    pub late_by: Duration,
    /// Most octets that wait to be sent; what does not fit is dropped.
    pub queue: u64,
    /// When the link is down, in spans since its start: what would have left then is lost.
    pub outages: Vec<Range<Duration>>,
    /// When sending stops, in spans since the link's start: what waits then is kept and sent afterwards, by a relay with
    /// storage. In order, and none within another.
    pub pauses: Vec<Range<Duration>>,
}

impl Default for DirectionOptions {
    /// No delay, no limit, no loss.
    fn default() -> Self {
        Self {
            owlt: Duration::ZERO,
            rate: None,
            loss: 0.0,
            duplicates: 0.0,
            late: 0.0,
            late_by: Duration::ZERO,
            queue: u64::MAX,
            outages: Vec::new(),
            pauses: Vec::new(),
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives then; where nothing is late or twice, never before one that was pushed earlier.
    Deliver(Duration),
    /// It arrives at both times.
    Twice(Duration, Duration),
    /// It is lost under way.
    Lost,
    /// The queue is full.
    Dropped,
}

impl Fate {
    /// When it arrives: never, once or twice.
    pub fn arrivals(self) -> impl Iterator<Item = Duration> {
        let (first, second) = match self {
            Self::Deliver(at) => (Some(at), None),
            Self::Twice(at, again) => (Some(at), Some(again)),
            Self::Lost | Self::Dropped => (None, None),
        };
        first.into_iter().chain(second)
    }
}

/// What one direction has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionStats {
    /// Packets that arrived at its near end.
    pub packets: u64,
    /// Their octets, without UDP and IP headers.
    pub octets: u64,
    /// Packets that left its far end.
    pub delivered: u64,
    /// Packets lost under way, as asked.
    pub lost: u64,
    /// Packets dropped by a full queue or by the system.
    pub dropped: u64,
}

/// What a link has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// From clients to the target.
    pub up: DirectionStats,
    /// From the target to clients.
    pub down: DirectionStats,
}

/// One direction of a link.
///
/// Call [`Direction::push`] with times that never go back.
#[derive(Clone, Debug)]
pub struct Direction {
    options: DirectionOptions,
    /// When the last bit of what was pushed so far has left.
    busy_until: Duration,
}

impl Direction {
    /// An idle link.
    pub fn new(options: DirectionOptions) -> Self {
        Self {
            options,
            busy_until: Duration::ZERO,
        }
    }

    /// Behaves otherwise from now on; what was pushed so far keeps its time.
    pub fn change(&mut self, options: DirectionOptions) {
        self.options = options;
    }

    /// Takes a packet of `size` octets. Four random numbers are drawn for each, whatever becomes of it, so that the same seed
    /// loses the same packets at any rate.
    pub fn push(&mut self, now: Duration, size: usize, rng: &mut impl Rng) -> Fate {
        let mut chance = || rng.random::<f64>();
        let (lost, twice, late, lateness) = (chance(), chance(), chance(), chance());
        let size = size as u64;
        if self.waiting(now).saturating_add(size) > self.options.queue {
            return Fate::Dropped;
        }
        let left = self.leaves(self.busy_until.max(now), self.time_to_send(size));
        self.busy_until = left;
        let options = &self.options;
        if lost < options.loss || options.outages.iter().any(|outage| outage.contains(&left)) {
            return Fate::Lost;
        }
        let at = left + options.owlt;
        let late_by = options.late_by.mul_f64(lateness);
        match (twice < options.duplicates, late < options.late) {
            (false, false) => Fate::Deliver(at),
            (false, true) => Fate::Deliver(at + late_by),
            (true, false) => Fate::Twice(at, at),
            (true, true) => Fate::Twice(at, at + late_by),
        }
    }

    /// Octets that wait or are being sent.
    pub fn waiting(&self, now: Duration) -> u64 {
        let Some(rate) = self.options.rate else {
            return 0;
        };
        let paused: Duration = self
            .options
            .pauses
            .iter()
            .map(|pause| {
                pause
                    .end
                    .min(self.busy_until)
                    .saturating_sub(pause.start.max(now))
            })
            .sum();
        let left = self.busy_until.saturating_sub(now).saturating_sub(paused);
        let bits = left.as_nanos() * u128::from(rate) / 1_000_000_000;
        u64::try_from(bits.div_ceil(8)).unwrap_or(u64::MAX)
    }

    /// When what takes `span` to send has left, begun at `from`.
    fn leaves(&self, from: Duration, span: Duration) -> Duration {
        let mut left = from + span;
        for pause in &self.options.pauses {
            if pause.end > from && (pause.start < left || pause.start <= from) {
                // What is not sent before the pause is sent behind it.
                left += pause.end - pause.start.max(from);
            }
        }
        left
    }

    fn time_to_send(&self, size: u64) -> Duration {
        // A rate of nothing would never end: one bit per second is slow enough.
        self.options.rate.map_or(Duration::ZERO, |rate| {
            let nanos = u128::from(size) * 8 * 1_000_000_000 / u128::from(rate.max(1));
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn rng() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    #[test]
    fn light_time_alone() {
        let options = DirectionOptions {
            owlt: ms(8_000),
            ..DirectionOptions::default()
        };
        let mut link = Direction::new(options);
        for now in [0, 0, 5] {
            assert_eq!(
                link.push(ms(now), 1500, &mut rng()),
                Fate::Deliver(ms(8_000 + now))
            );
        }
    }

    #[test]
    fn packets_wait_for_each_other() {
        // 1,000 octets take 8 ms.
        let options = DirectionOptions {
            owlt: ms(100),
            rate: Some(1_000_000),
            queue: 2_500,
            ..DirectionOptions::default()
        };
        let mut link = Direction::new(options);
        let cases = [
            (0, 1_000, Fate::Deliver(ms(108))),
            (0, 1_000, Fate::Deliver(ms(116))),
            (0, 1_000, Fate::Dropped),
            (0, 500, Fate::Deliver(ms(120))),
            // 12 ms of what waited are sent.
            (12, 1_500, Fate::Deliver(ms(132))),
            (12, 1, Fate::Dropped),
            (1_000, 1_000, Fate::Deliver(ms(1_108))),
        ];
        for (now, size, fate) in cases {
            assert_eq!(link.push(ms(now), size, &mut rng()), fate, "{now} {size}");
        }
    }

    #[test]
    fn outages() {
        let options = DirectionOptions {
            owlt: ms(100),
            outages: vec![ms(10)..ms(20)],
            ..DirectionOptions::default()
        };
        let mut link = Direction::new(options);
        for (now, fate) in [
            (9, Fate::Deliver(ms(109))),
            (10, Fate::Lost),
            (19, Fate::Lost),
            (20, Fate::Deliver(ms(120))),
        ] {
            assert_eq!(link.push(ms(now), 1, &mut rng()), fate, "{now}");
        }
    }

    #[test]
    fn pauses_keep_what_waits() {
        // 1,000 octets take 8 ms.
        let options = DirectionOptions {
            owlt: ms(100),
            rate: Some(1_000_000),
            queue: 3_000,
            pauses: vec![ms(10)..ms(1_000), ms(1_004)..ms(2_000)],
            ..DirectionOptions::default()
        };
        let mut link = Direction::new(options);
        let cases = [
            (0, 1_000, Fate::Deliver(ms(108))),
            // 2 ms of it before the first pause, 4 ms behind it, 2 ms behind the second.
            (0, 1_000, Fate::Deliver(ms(2_102))),
            (20, 1_000, Fate::Deliver(ms(2_110))),
            (20, 1_251, Fate::Dropped),
            (20, 1_250, Fate::Deliver(ms(2_120))),
            (1_500, 2_000, Fate::Dropped),
            (2_500, 1_000, Fate::Deliver(ms(2_608))),
        ];
        for (now, size, fate) in cases {
            assert_eq!(link.push(ms(now), size, &mut rng()), fate, "{now} {size}");
        }
    }

    #[test]
    fn without_a_rate_pauses_hold_all_the_same() {
        let mut link = Direction::new(DirectionOptions {
            pauses: vec![ms(10)..ms(20)],
            ..DirectionOptions::default()
        });
        for (now, at) in [(9, 9), (10, 20), (19, 20), (20, 20)] {
            assert_eq!(link.push(ms(now), 1, &mut rng()), Fate::Deliver(ms(at)), "{now}");
        }
    }

    #[test]
    fn duplicates_and_late_packets() {
        let options = DirectionOptions {
            owlt: ms(100),
            duplicates: 0.2,
            late: 0.1,
            late_by: ms(50),
            ..DirectionOptions::default()
        };
        let mut link = Direction::new(options);
        let mut rng = rng();
        let (mut twice, mut late) = (0, 0);
        for _ in 0..10_000 {
            let fate = link.push(Duration::ZERO, 100, &mut rng);
            let arrivals: Vec<_> = fate.arrivals().collect();
            twice += usize::from(arrivals.len() == 2);
            late += usize::from(arrivals.last().is_some_and(|at| *at > ms(100)));
            assert!(
                arrivals.iter().all(|at| (ms(100)..ms(150)).contains(at)),
                "{fate:?}"
            );
        }
        assert!((1_800..2_200).contains(&twice), "{twice}");
        assert!((850..1_150).contains(&late), "{late}");
    }

    /// Which of 10,000 packets a link loses.
    fn losses(loss: f64, rate: Option<u64>, seed: u64) -> Vec<usize> {
        let mut link = Direction::new(DirectionOptions {
            loss,
            rate,
            ..DirectionOptions::default()
        });
        let mut rng = StdRng::seed_from_u64(seed);
        (0..10_000)
            .filter(|_| link.push(Duration::ZERO, 100, &mut rng) == Fate::Lost)
            .collect()
    }

    #[test]
    fn losses_follow_seed_and_share() {
        assert_eq!(losses(0.0, None, 1).len(), 0);
        assert_eq!(losses(1.0, None, 1).len(), 10_000);
        let lost = losses(0.1, None, 7);
        assert!((900..1_100).contains(&lost.len()), "{}", lost.len());
        assert_eq!(lost, losses(0.1, Some(1_000), 7));
        assert_ne!(lost, losses(0.1, None, 8));
    }

    proptest! {
        /// In order, never before the light time, and never faster than the rate.
        #[test]
        fn first_in_first_out(
            packets in prop::collection::vec((0u64..50, 1usize..2_000), 1..100),
            rate in 1_000u64..100_000_000,
            queue in 1_000u64..100_000,
        ) {
            let owlt = ms(1_000);
            let mut link = Direction::new(DirectionOptions { owlt, rate: Some(rate), queue, ..DirectionOptions::default() });
            let (mut now, mut last, mut sent) = (Duration::ZERO, Duration::ZERO, 0u64);
            for (gap, size) in packets {
                now += ms(gap);
                match link.push(now, size, &mut rng()) {
                    Fate::Deliver(at) => {
                        sent += size as u64;
                        prop_assert!(at >= last && at >= now + owlt);
                        let least = sent as f64 * 8.0 / rate as f64;
                        prop_assert!((at - owlt).as_secs_f64() + 1e-6 * sent as f64 >= least);
                        prop_assert!(link.waiting(now) <= queue + 1);
                        last = at;
                    }
                    Fate::Dropped => prop_assert!(link.waiting(now) + size as u64 > queue),
                    Fate::Lost | Fate::Twice(..) => prop_assert!(false, "nothing is lost or doubled here"),
                }
            }
        }
    }
}
