//! What a mail takes across space, told in virtual time by the shipped programs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    collections::HashSet,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use bench::{
    disruption, distance,
    distance::{FAR, MARS, MOON, SIZE, Story},
    in_virtual_time, loss,
    pair::{Distance, Pair, mail},
};
use lightpost_clock::Instant;
use lightpost_sim::net::{Filter, Way};

/// Timers tick in milliseconds: each of the few that a mail meets may be late by one.
const TICKS: Duration = Duration::from_millis(3);

/// Headers of UDP and IPv4.
const HEADERS: usize = 28;

/// What left Earth, each datagram once although copies of it may follow.
#[derive(Default)]
struct Departures {
    seen: HashSet<Vec<u8>>,
    /// When, and how many octets on the line.
    left: Vec<(Instant, usize)>,
}

impl Departures {
    fn watch(pair: &Pair) -> Arc<Mutex<Self>> {
        let departures = Arc::new(Mutex::new(Self::default()));
        let (watching, clock) = (departures.clone(), pair.clock.clone());
        let filter: Filter = Box::new(move |way, datagram| {
            let mut departures = watching.lock().unwrap();
            if way == Way::Up && departures.seen.insert(datagram.to_vec()) {
                departures.left.push((clock.instant(), datagram.len() + HEADERS));
            }
            true
        });
        pair.space.as_ref().unwrap().filter(Some(filter));
        departures
    }

    /// The octets that left until `end`.
    fn until(&self, end: Instant) -> u64 {
        let until = self.left.iter().filter(|(at, _)| *at <= end);
        until.map(|(_, octets)| *octets as u64).sum()
    }
}

/// Tells a story at every distance and holds its mail against one light time and a thousandth, and the time that its own octets, each of
/// them once, take to be sent.
fn in_one_light_time(story: Story) {
    for owlt in [MOON, MARS, FAR] {
        in_virtual_time(async {
            let mut pair = story.prepare(Distance::new(owlt)).await?;
            let (departures, start) = (Departures::watch(&pair), pair.clock.instant());
            let journey = pair.send(&mail(SIZE, 1)).await?;
            let octets = departures.lock().unwrap().until(start + journey.there() - owlt);
            let most = owlt.mul_f64(1.001) + pair.distance.sending(octets);
            assert!(octets > SIZE as u64, "{octets} octets left for the mail");
            assert!(
                journey.there() <= most,
                "{} at {owlt:?}: {:?}, {most:?} allowed for {octets} octets",
                story.name(),
                journey.there()
            );
            Ok(())
        })
        .unwrap();
    }
}

/// Tells a story at every distance and holds its mail against `light_times` and the time that its octets take to be sent; the
/// reply may take one light time more.
fn within(story: Story, light_times: f64) {
    for owlt in [MOON, MARS, FAR] {
        in_virtual_time(async {
            let mut pair = story.prepare(Distance::new(owlt)).await?;
            let before = pair.carried();
            let journey = pair.send(&mail(SIZE, 1)).await?;
            let after = pair.carried();
            let octets = after.up.octets + after.down.octets - before.up.octets - before.down.octets;
            let sending = pair.distance.sending(octets) + TICKS;
            let most = owlt.mul_f64(light_times) + sending;
            let (there, back) = (journey.there(), journey.there_and_back());
            let name = story.name();
            assert!(
                there >= owlt.mul_f64(light_times.floor()),
                "{name}: {there:?} is faster than light"
            );
            assert!(there <= most, "{name} at {owlt:?}: {there:?}, {most:?} allowed");
            assert!(
                back <= most + owlt.mul_f64(1.001) + TICKS,
                "{name} at {owlt:?}: reply after {back:?}"
            );
            pair.settle().await;
            assert_eq!(after.up.dropped, 0, "{name}: {:?}", pair.carried());
            assert!(pair.mailbox.count() >= 1, "the far mail server has it");
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn a_first_mail_takes_three_light_times() {
    within(Story::Cold, 3.0);
}

#[test]
fn the_next_takes_one() {
    within(Story::Warm, 1.001);
    in_one_light_time(Story::Warm);
}

#[test]
fn half_a_day_of_silence_costs_nothing() {
    within(Story::Idle, 1.001);
    in_one_light_time(Story::Idle);
}

#[test]
fn a_lost_connection_costs_nothing() {
    within(Story::Resumed, 1.001);
    in_one_light_time(Story::Resumed);
}

#[test]
fn a_restart_in_good_order_costs_nothing() {
    within(Story::Stopped, 1.001);
    in_one_light_time(Story::Stopped);
}

#[test]
fn a_kill_of_the_agent_costs_nothing() {
    within(Story::RestartClient, 1.001);
    in_one_light_time(Story::RestartClient);
}

#[test]
fn a_restart_of_the_gateway_costs_nothing() {
    within(Story::RestartGateway, 1.001);
    in_one_light_time(Story::RestartGateway);
}

#[test]
fn a_kill_of_the_gateway_costs_a_round_trip() {
    within(Story::GatewayKilled, 3.001);
}

#[test]
fn a_kill_of_both_costs_nothing() {
    within(Story::RestartBoth, 1.001);
    in_one_light_time(Story::RestartBoth);
}

#[test]
fn one_datagram_in_a_hundred_lost_costs_no_light_time() {
    for (story, light_times) in [(Story::Warm, 1.0), (Story::Resumed, 1.0), (Story::Cold, 3.0)] {
        let row = loss::row(story, 0.01, 24).unwrap();
        // 0.001 light times are 22 KiB of serialisation.
        assert!(row.max_owlt < light_times + 0.001, "{row:?}");
    }
}

/// Holds a transfer against what physics allows, within a hundredth, and its octets against those of a clean link.
fn as_fast_as_possible(octets: usize, pauses: &[Range<Duration>]) {
    let (clean, clean_octets) = disruption::large(octets, Vec::new()).unwrap();
    let (ours, sent) = disruption::large(octets, pauses.to_vec()).unwrap();
    let paused = disruption::ideal(octets, pauses) - disruption::ideal(octets, &[]);
    assert!(ours >= clean + paused - MARS, "{ours:?} is faster than light");
    let allowed = disruption::ideal(octets, pauses).mul_f64(1.01);
    assert!(ours <= allowed, "{ours:?}, {allowed:?} allowed");
    let again = sent.saturating_sub(clean_octets) as f64 / clean_octets as f64;
    assert!(again < 0.01, "{:.1} % sent again", again * 100.0);
}

#[test]
fn an_outage_of_six_hours_costs_six_hours() {
    let start = Duration::from_secs(10);
    as_fast_as_possible(3 << 20, &[start..start + disruption::OUTAGE]);
}

#[test]
fn passes_of_a_minute_every_six_hours_are_used() {
    as_fast_as_possible(10 << 20, &disruption::passes());
}

#[test]
fn after_an_outage_a_lost_tail_is_repaired_within_five_light_times() {
    for pauses in [disruption::one_outage(), disruption::passes()] {
        let (took, distance) = disruption::tail_lost_after(2 << 20, pauses).unwrap();
        let took = distance.in_owlt(took);
        assert!(took > 1.1, "{took}: its tail was not lost");
        assert!(took <= 5.0, "{took} light times");
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in [3, 4] {
        let (first, again) = (
            loss::once(Story::Warm, 0.1, seed).unwrap(),
            loss::once(Story::Warm, 0.1, seed).unwrap(),
        );
        // Keys and signatures are random, and with them the length of a handshake by some octets.
        let apart = MARS.mul_f64((first.0 - again.0).abs());
        assert!(apart <= TICKS, "{first:?} and {again:?}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_both_ends_are_killed() {
    in_virtual_time(async {
        let mut pair = Pair::start(Distance::new(MARS)).await?;
        let mut numbers = Vec::new();
        for round in 0..6u32 {
            numbers.push(pair.hand_in(&mail(SIZE, u64::from(round))).await?);
            // At another point of the exchange each time.
            pair.clock.sleep(MARS.mul_f64(0.3 + 0.7 * f64::from(round))).await;
            if round % 3 != 1 {
                pair.kill_client().await;
            }
            if round % 3 != 0 {
                pair.kill_server().await;
                pair.start_server().await?;
            }
            if round % 3 != 1 {
                pair.start_client().await?;
            }
        }
        for number in &numbers {
            // `journey` finds each exactly once at the gateway.
            pair.journey(*number, Duration::from_secs(5 * 86_400)).await?;
        }
        pair.settle().await;
        let delivered = usize::try_from(pair.mailbox.count()).unwrap();
        // A kill between the final dot and its note in the database repeats that delivery, never less than once.
        assert!(
            delivered >= numbers.len() && delivered <= numbers.len() + 4,
            "{delivered}"
        );
        Ok(())
    })
    .unwrap();
}

/// quinn as it is shipped reaches the Moon and never Mars; that is what ours is measured beside.
#[test]
fn plain_quic_gives_up_at_mars() {
    let moon = distance::quinn_default(Distance::new(MOON)).unwrap();
    assert!(
        moon.gateway_owlt.is_some_and(|took| (3.0..3.2).contains(&took)),
        "{moon:?}"
    );
    let mars = distance::quinn_default(Distance::new(MARS)).unwrap();
    assert_eq!(mars.gateway_owlt, None);
}
