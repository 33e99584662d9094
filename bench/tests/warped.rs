//! Both programs as processes of their own live a Mars day in about a minute, with outages, loss and kills.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{collections::BTreeMap, time::Duration};

use bench::{
    pair::Distance,
    warped::{Apart, Role, Warp},
};
use lightpost_clock::until;
use lightpost_sim::link::DirectionOptions;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// A day of Mars passes in a good minute.
const FACTOR: u32 = 1_400;
/// 24 h 39 min 35 s.
const MARS_DAY: Duration = Duration::from_secs(88_775);
const OWLT: Duration = Duration::from_secs(182);
const HOUR: Duration = Duration::from_secs(3_600);

fn link() -> DirectionOptions {
    DirectionOptions {
        owlt: OWLT,
        rate: Some(1_000_000),
        loss: 0.01,
        duplicates: 0.01,
        queue: 16 << 20,
        // Mars sets behind the relay's horizon; later the relay itself fails.
        pauses: vec![HOUR * 3..HOUR * 5, HOUR * 9..HOUR * 13],
        outages: vec![HOUR * 18..HOUR * 19],
        ..DirectionOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mars_day_with_outages_and_kills_loses_nothing() {
    let distance = Distance {
        outage: HOUR * 4,
        ..Distance::new(OWLT)
    };
    let program = env!("CARGO_BIN_EXE_bench").into();
    let mut apart = Apart::start(program, Warp::new(FACTOR), &distance, (link(), link()))
        .await
        .unwrap();
    let mut rng = StdRng::seed_from_u64(3);
    let (start, mut acknowledged, mut gateway_kills) = (apart.clock.now(), 0, 0);
    while until(start, apart.clock.now()) < MARS_DAY {
        acknowledged += 1;
        apart
            .hand_in(acknowledged, rng.random_range(1..20_000), 400)
            .await
            .unwrap();
        let wait = Duration::from_secs(rng.random_range(60..1_800));
        apart.clock.sleep(wait).await;
        if rng.random_bool(0.2) {
            apart.restart(Role::Client).unwrap();
        }
        if rng.random_bool(0.2) {
            gateway_kills += 1;
            apart.restart(Role::Server).unwrap();
        }
    }
    let mut delivered = BTreeMap::new();
    while delivered.len() < acknowledged as usize {
        let next = apart.next_delivered(HOUR * 24).await;
        let Some(number) = next else {
            let missing: Vec<_> = (1..=acknowledged)
                .filter(|it| !delivered.contains_key(it))
                .collect();
            panic!(
                "{missing:?} of {acknowledged} did not arrive; {:?}",
                apart.carried()
            );
        };
        *delivered.entry(number).or_insert(0u32) += 1;
    }
    // At the gateway each is there exactly once; a copy can only come from a kill between the far server's reply to the final
    // dot and its note in the database.
    apart.audit(1..=acknowledged).await.unwrap();
    let copies: u32 = delivered.values().map(|times| times - 1).sum();
    println!(
        "{acknowledged} mails, {gateway_kills} kills of the gateway, {copies} copies, {:?}",
        apart.carried()
    );
    assert!(acknowledged >= 50, "{acknowledged} mails are too few to tell");
    assert!(
        copies <= gateway_kills,
        "{copies} copies, {gateway_kills} kills: {delivered:?}"
    );
}
