//! Holds of hours, and what comes after them.

use std::time::Duration;

use http::StatusCode;
use lightpost_sim::{link::DirectionOptions, net::Way};
use lightpost_transport::{Failure, Outcome, Path, quic::datagram::Policy};

use super::world::*;

const SIX_HOURS: Duration = Duration::from_secs(6 * 3600);

/// A link that is closed for six hours while the second mail is sent.
fn held(path: &Path) -> DirectionOptions {
    let closed = Duration::from_secs(760);
    DirectionOptions {
        pauses: std::iter::once(closed..closed + SIX_HOURS).collect(),
        ..link(path)
    }
}

/// Loses what established connections send from Earth within a second after their first `passing` datagrams.
fn lose_the_tail(world: &World, passing: usize) {
    let (space, mut count, mut since) = (world.space.clone(), 0, None);
    let lost = world.space.clone();
    space.filter(Some(Box::new(move |way, datagram| {
        if way == Way::Down || datagram.first().is_some_and(|first| first & 0x80 != 0) {
            return true;
        }
        count += 1;
        if count <= passing {
            return true;
        }
        let now = lost.elapsed();
        now > *since.get_or_insert(now) + Duration::from_secs(1)
    })));
}

/// A mail of 8 MiB with a hold of six hours in it, and one of 4 KiB after it whose tail is lost: how much longer than ideal the
/// first took, and the light times of the second.
fn after_a_hold(policy: Option<Policy>, hedge: bool) -> (f64, f64) {
    let papers = Papers::new();
    virtually(async || {
        let mut path = mars();
        path.outage_max = SIX_HOURS;
        path.redundancy = policy;
        path.quic.hedge = Some(hedge);
        let mut world = World::new(&papers, path.clone(), held(&path), 1);
        world.mail(4096).await;
        let (large, _) = world.mail(8 << 20).await;
        let ideal = 249.1 + SIX_HOURS.as_secs_f64();
        let stats = world.space.stats();
        lose_the_tail(&world, 3);
        let (small, reply) = world.mail(4096).await;
        eprintln!(
            "{policy:?}, hedge {hedge}: large {:.3} of ideal, small {small:.3}, its reply {reply:.3}; {:?}; up {:?}",
            large * MARS.as_secs_f64() / ideal,
            world.client.hedges(),
            stats.up,
        );
        (large * MARS.as_secs_f64() / ideal, small)
    })
}

#[test]
fn a_lost_tail_after_a_hold_of_hours_costs_no_more_than_one_elsewhere() {
    let (large, small) = after_a_hold(None, true);
    assert!(large < 1.01, "{large}");
    assert!(small < 3.2, "{small}");
}

#[test]
fn hedging_alone_does_it_as_well() {
    let (large, small) = after_a_hold(Some(Policy::None), true);
    assert!(large < 1.01, "{large}");
    assert!(small < 3.2, "{small}");
}

#[test]
fn without_it_quinn_takes_hours() {
    let (large, small) = after_a_hold(Some(Policy::None), false);
    assert!(large < 1.01, "{large}");
    assert!(small > 50.0, "{small}");
}

#[test]
fn mails_under_way_in_an_outage_are_not_all_sent_again() {
    let papers = Papers::new();
    virtually(async || {
        let mut path = mars();
        path.outage_max = SIX_HOURS;
        let mut world = World::new(&papers, path.clone(), held(&path), 1);
        world.mail(4096).await;
        // In the middle of the hold.
        world.wait(Duration::from_secs(1_000)).await;
        let before = world.space.stats();
        let times = world.mails(100, 4096).await;
        let last = times.into_iter().max().unwrap() + Duration::from_secs(1);
        let end = Duration::from_secs(760) + SIX_HOURS + MARS + Duration::from_secs(20);
        assert!(last < end, "{last:?}, the hold and the light: {end:?}");
        let (hedges, sent) = (world.client.hedges(), world.space.stats());
        let octets = sent.up.octets - before.up.octets;
        eprintln!("{hedges:?}, {octets} octets for 100 mails of 4096");
        assert!(hedges.repeated <= 1, "{hedges:?}");
        assert!(octets < 100 * 4_900, "{octets}");
    });
}

/// The first copy of a mail is answered so late that a second one is out by then.
#[test]
fn what_is_said_of_one_copy_is_not_the_answer_while_the_other_may_be_stored() {
    const LATE: Duration = Duration::from_secs(300);
    let papers = Papers::new();
    let cases = [
        ((LATE, 503), (Duration::ZERO, 202), Some(202)),
        ((LATE, 403), (Duration::ZERO, 202), Some(202)),
        ((LATE, 403), (Duration::ZERO, 503), None),
        ((LATE * 3, 503), (Duration::ZERO, 401), None),
        ((LATE * 3, 202), (Duration::ZERO, 403), Some(202)),
        ((LATE, 422), (LATE, 503), Some(422)),
    ];
    for (first, second, expected) in cases {
        virtually(async || {
            let mut path = mars();
            path.quic.hedge = Some(true);
            let mut world = World::new(&papers, path.clone(), link(&path), 1);
            world.mail(4096).await;
            let answers =
                [first, second].map(|(after, status)| (after, StatusCode::from_u16(status).unwrap()));
            world.answers.lock().unwrap().extend(answers);
            let outcome = send(&world.client, &world.clock, 4096).await;
            assert_eq!(world.client.hedges().repeated, 1);
            let status = match &outcome {
                Outcome::Replied(reply) => Some(reply.status.as_u16()),
                Outcome::Failed(Failure::Interrupted { .. }) => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(status, expected, "{first:?}, {second:?}: {outcome:?}");
        });
    }
}
