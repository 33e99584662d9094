//! Mails that share a line: what is small or urgent does not wait behind what is large.

use std::time::Duration;

use lightpost_transport::Outcome;

use super::world::*;

#[test]
fn ten_small_mails_do_not_wait_for_the_large_one_before_them() {
    const LARGE: usize = 50_000_000;
    let papers = Papers::new();
    virtually(async || {
        let mut world = World::new(&papers, mars(), link(&mars()), 1);
        world.mail(4096).await;
        let (client, clock) = (world.client.clone(), world.clock.clone());
        let begun = world.space.elapsed();
        let large = tokio::spawn(async move { send(&client, &clock, LARGE).await });
        world.wait(Duration::from_secs(30)).await;
        let start = world.space.elapsed();
        let times = world.mails(10, 4096).await;
        let last = times.into_iter().max().unwrap() - start;
        let alone = MARS + mars().rate_up.time_for(10 * 4096);
        eprintln!("{last:?}, {alone:?} without the large one");
        assert!(last < alone + Duration::from_secs(1), "{last:?} of {alone:?}");
        assert!(!large.is_finished());
        assert!(matches!(large.await.unwrap(), Outcome::Replied(_)));
        let arrived = world.arrived(LARGE).await - begun;
        let ideal = MARS + mars().rate_up.time_for(LARGE as u64);
        eprintln!("the large one: {arrived:?} of {ideal:?}");
        assert!(arrived < ideal.mul_f64(1.05), "{arrived:?} of {ideal:?}");
    });
}

/// Two mails of 4 MiB that leave together, the second one with a priority; when they were at the gateway.
fn two(priority: i8) -> (Duration, Duration) {
    const SIZE: usize = 4 << 20;
    let papers = Papers::new();
    virtually(async || {
        let mut world = World::new(&papers, mars(), link(&mars()), 1);
        world.mail(4096).await;
        let start = world.space.elapsed();
        let (first, second) = tokio::join!(
            send_with(&world.client, &world.clock, SIZE, 0),
            send_with(&world.client, &world.clock, SIZE + 1, priority),
        );
        assert!(matches!(
            (first, second),
            (Outcome::Replied(_), Outcome::Replied(_))
        ));
        let mut times = [SIZE, SIZE + 1].map(|_| Duration::ZERO);
        while let Ok(arrival) = world.arrivals.try_recv() {
            times[arrival.octets - SIZE] = arrival.at - start;
        }
        (times[0], times[1])
    })
}

#[test]
fn an_urgent_mail_has_the_line_for_itself() {
    let alone = MARS + mars().rate_up.time_for(4 << 20);
    let both = MARS + mars().rate_up.time_for(8 << 20);
    let (first, second) = two(6);
    eprintln!("urgent {second:?} of {alone:?}, the other {first:?} of {both:?}");
    assert!(second < alone.mul_f64(1.03), "{second:?} of {alone:?}");
    assert!(first < both.mul_f64(1.03), "{first:?} of {both:?}");
    // Equals go one after the other.
    let (first, second) = two(0);
    eprintln!("equals {first:?} of {alone:?} and {second:?} of {both:?}");
    assert!(first < alone.mul_f64(1.03), "{first:?} of {alone:?}");
    assert!(second < both.mul_f64(1.03), "{second:?} of {both:?}");
}
