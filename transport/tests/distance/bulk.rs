//! A large mail at the path's rate.

use std::time::Duration;

use lightpost_config::Rate;
use lightpost_sim::link::DirectionOptions;
use lightpost_transport::{Path, quic::hedge::HedgeCounters};

use super::world::*;

#[test]
fn a_large_mail_takes_its_time_on_the_line_and_no_queue_beyond() {
    let papers = Papers::new();
    virtually(async || {
        let tight = DirectionOptions {
            // Ten packets: quinn's own pacer would lose what does not fit.
            queue: 12_800,
            ..link(&mars())
        };
        let mut world = World::new(&papers, mars(), tight, 1);
        world.mail(4096).await;
        let (arrived, _) = world.mail(20 << 20).await;
        let seconds = arrived * MARS.as_secs_f64();
        let stats = world.space.stats();
        eprintln!("{seconds} s, {stats:?}");
        assert_eq!(stats.up.dropped + stats.down.dropped, 0);
        // 182 s and 167.8 s of sending, headers of QUIC, UDP and IP on top.
        assert!(seconds < 350.0 * 1.03, "{seconds}");
    });
}

#[test]
fn many_small_mails_at_once_arrive_one_behind_the_other_and_once() {
    let papers = Papers::new();
    virtually(async || {
        let mut world = World::new(&papers, mars(), link(&mars()), 1);
        world.mail(4096).await;
        let start = world.space.elapsed();
        let times = world.mails(300, 4096).await;
        let last = times.into_iter().max().unwrap() - start;
        let ideal = MARS + mars().rate_up.time_for(300 * 4096);
        eprintln!("{last:?} of {ideal:?}");
        assert!(last < ideal + Duration::from_secs(2), "{last:?} of {ideal:?}");
        assert_eq!(world.client.hedges(), HedgeCounters::default());
    });
}

#[test]
fn large_mails_at_once_arrive_one_after_the_other() {
    let papers = Papers::new();
    let moon = Path {
        one_way_min: Duration::from_millis(1_300),
        one_way_max: Duration::from_millis(1_300),
        rate_up: Rate(2e7),
        rate_down: Rate(2e7),
        ..mars()
    };
    // All of them are kept by the connection, which holds 91 MB there; a part of them is, where it holds 16 MB.
    for (path, count, size) in [(mars(), 10, 2_000_000), (moon, 8, 5_000_000)] {
        virtually(async || {
            let mut world = World::new(&papers, path.clone(), link(&path), 1);
            world.mail(4096).await;
            let start = world.space.elapsed();
            let times = world.mails(count, size).await;
            for (number, at) in (1..).zip(times) {
                let ideal = path.one_way_max + path.rate_up.time_for(number * size as u64);
                let arrived = at - start;
                eprintln!("{number} of {size}: {arrived:?} of {ideal:?}");
                assert!(
                    arrived < ideal.mul_f64(1.06),
                    "{number}: {arrived:?} of {ideal:?}"
                );
            }
        });
    }
}

#[test]
fn short_passes_are_used_to_the_full() {
    let papers = Papers::new();
    virtually(async || {
        // A minute every six hours: at most 7.5 MB each.
        let mut path = mars();
        path.outage_max = Duration::from_secs(6 * 3600);
        let pass = |number: u64| Duration::from_secs(1_000 + number * 6 * 3600);
        let passes = DirectionOptions {
            pauses: (0..10)
                .map(|number| pass(number)..pass(number + 1) - Duration::from_secs(60))
                .collect(),
            ..link(&path)
        };
        let mut world = World::new(&papers, path, passes, 1);
        world.mail(4096).await;
        world.clock.sleep(pass(0) - world.space.elapsed()).await;
        let before = world.space.stats().up;
        let (arrived, _) = world.mail(20 << 20).await;
        let at = world.space.elapsed() - pass(0);
        let sent = world.space.stats().up.octets - before.octets;
        let resent = sent as f64 / 21_573_971.0 - 1.0;
        eprintln!(
            "{arrived} light times, replied {at:?}, {:.3}% resent, {:?}",
            resent * 100.0,
            world.client.hedges()
        );
        // Three passes: the mail has 172.6 s on the line with its headers.
        let ideal = 3.0 * 6.0 * 3600.0 - 60.0 + 52.6 + MARS.as_secs_f64();
        let seconds = arrived * MARS.as_secs_f64();
        assert!(seconds < ideal * 1.01, "{seconds} of {ideal}");
        assert!(resent < 0.01, "{resent}");
    });
}
