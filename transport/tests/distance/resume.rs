//! Requests in the first flight, when the connection is lost and when this process was restarted.

use std::time::Duration;

use lightpost_sim::net::Way;

use super::world::{MARS, Papers, World, link, mars, virtually};

const HOUR: Duration = Duration::from_secs(3_600);

/// A mail and what it took to arrive, with 20 ms for its octets on the line.
async fn light_times(world: &mut World, expected: f64) {
    let (there, back) = world.mail(4096).await;
    assert!((there - expected).abs() < 0.002, "{there} instead of {expected}");
    assert!((back - expected - 1.0).abs() < 0.002, "{back}");
}

/// Light is as long under way as the figures say, or takes twice that: the round trip is measured.
#[test]
fn after_restarts_a_mail_takes_one_light_time() {
    let papers = Papers::new();
    for (configured, actual) in [(MARS, MARS), (MARS, MARS * 2), (Duration::from_secs(1_342), MARS)] {
        let mut path = mars();
        path.one_way_min = configured.min(actual);
        path.one_way_max = configured.max(actual);
        let mut line = link(&path);
        line.owlt = actual;
        virtually(async || {
            let mut world = World::new(&papers, path, line, 1);
            world.path.one_way_max = actual;
            light_times(&mut world, 3.0).await;
            for _ in 0..4 {
                world.wait(3 * HOUR).await;
                world.restart().await;
                light_times(&mut world, 1.0).await;
            }
        });
    }
}

/// The planets move between two mails: light takes five minutes more or less one way, and nobody has measured it yet. Whether the path's
/// figures allow for that or not, the first mail after a restart takes one light time.
#[test]
fn after_the_light_time_changed_a_mail_takes_one_light_time() {
    const CHANGE: Duration = Duration::from_secs(300);
    let papers = Papers::new();
    for foreseen in [true, false] {
        let mut path = mars();
        path.one_way_max = if foreseen { MARS + CHANGE } else { MARS };
        let mut line = link(&path);
        line.owlt = MARS;
        virtually(async || {
            let mut world = World::new(&papers, path, line, 1);
            let mut owlt = MARS;
            world.path.one_way_max = owlt;
            light_times(&mut world, 3.0).await;
            for _ in 0..4 {
                world.wait(3 * HOUR).await;
                owlt = if owlt == MARS { MARS + CHANGE } else { MARS };
                for way in [Way::Up, Way::Down] {
                    world.space.change(way, |options| options.owlt = owlt);
                }
                world.path.one_way_max = owlt;
                world.restart().await;
                let (there, _) = world.mail(4096).await;
                assert!((there - 1.0).abs() < 0.002, "{there}, foreseen: {foreseen}");
            }
        });
    }
}

/// Half a day after the last handshake the next mail fetches new tickets beside it; without them the third restart would be cold.
#[test]
fn a_connection_that_is_kept_for_days_is_resumed_after_a_restart() {
    let papers = Papers::new();
    virtually(async || {
        let path = mars();
        let line = link(&path);
        let mut world = World::new(&papers, path, line, 1);
        light_times(&mut world, 3.0).await;
        for _ in 0..6 {
            world.wait(10 * HOUR).await;
            light_times(&mut world, 1.0).await;
        }
        world.wait(10 * HOUR).await;
        world.restart().await;
        light_times(&mut world, 1.0).await;
        // Nothing is sent merely to keep it.
        world.wait(HOUR).await;
        let before = world.space.stats();
        world.wait(20 * HOUR).await;
        assert_eq!(world.space.stats(), before);
        // A day without any mail: the session has run out with the connection.
        world.wait(6 * HOUR).await;
        world.restart().await;
        light_times(&mut world, 3.0).await;
    });
}

/// A first flight that is held for hours comes with an age that nobody believes; the request is sent again at once.
#[test]
fn a_first_flight_that_was_held_arrives_all_the_same() {
    let papers = Papers::new();
    virtually(async || {
        let mut path = mars();
        path.outage_max = 8 * HOUR;
        let mut line = link(&path);
        line.pauses = vec![2 * HOUR..8 * HOUR];
        let mut world = World::new(&papers, path, line, 1);
        light_times(&mut world, 3.0).await;
        world.wait(2 * HOUR).await;
        world.restart().await;
        let start = world.space.elapsed();
        let (there, _) = world.mail(4096).await;
        let after_the_hold = there - world.light(8 * HOUR - start);
        assert!((0.99..3.1).contains(&after_the_hold), "{after_the_hold}");
    });
}
