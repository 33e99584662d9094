use bytes::Bytes;

use super::*;

/// 1,000 octets with their headers, marked.
fn datagram(mark: u8) -> Datagram {
    Datagram {
        destination: to(1),
        source: None,
        ecn: None,
        contents: Bytes::from(vec![mark; 972]),
    }
}

/// When which datagram leaves, in milliseconds, until nothing waits.
fn run(line: &mut Line, start: Instant) -> Vec<(u64, u8)> {
    let mut left = Vec::new();
    while let Some(at) = line.next() {
        let at = at.max(start);
        while let Some(datagram) = line.take(at, |_| true) {
            left.push(((at - start).as_millis() as u64, datagram.contents[0]));
        }
    }
    left
}

fn times(options: LineOptions, marks: impl IntoIterator<Item = u8>) -> Vec<(u64, u8)> {
    let (mut line, start) = (Line::new(options), start());
    for mark in marks {
        line.push(start, datagram(mark));
    }
    run(&mut line, start)
}

#[test]
fn what_waits_leaves_at_the_rate() {
    let left = times(options(Policy::None), 0..5);
    assert_eq!(left, [(0, 0), (8, 1), (16, 2), (24, 3), (32, 4)]);
}

#[test]
fn late_timers_are_made_up_for_and_silence_is_no_credit() {
    let (mut line, start) = (Line::new(options(Policy::None)), start());
    let take = |line: &mut Line, at: u64| {
        let taken = std::iter::from_fn(|| line.take(start + ms(at), |_| true));
        taken.count()
    };
    for mark in 0..100 {
        line.push(start, datagram(mark));
    }
    assert_eq!(take(&mut line, 0), 1);
    // 7 ms late: the next one follows 1 ms later, not 8.
    assert_eq!(take(&mut line, 15), 1);
    assert_eq!(take(&mut line, 16), 1);
    // A second late: no more than 10 ms of it count.
    assert_eq!(take(&mut line, 1_016), 2);
    while line.next().is_some() {
        let at = line.next().unwrap();
        line.take(at, |_| true);
    }
    let at = start + Duration::from_secs(60);
    line.push(at, datagram(0));
    line.push(at, datagram(1));
    assert_eq!(take(&mut line, 60_000), 1);
}

#[test]
fn writers_wait_while_more_than_fifty_milliseconds_wait() {
    let (mut line, start) = (Line::new(options(Policy::None)), start());
    for count in 0..8 {
        let expected = (ms(8) * count).saturating_sub(ms(50));
        assert_eq!(line.wait(start), expected, "{count}");
        line.push(start, datagram(0));
    }
    line.take(start, |_| true);
    assert_eq!(line.wait(start + ms(8)), ms(6));
    assert_eq!(line.wait(start + ms(1)), ms(13));
    let unpaced = Line::new(LineOptions {
        rate: None,
        ..options(Policy::None)
    });
    assert_eq!(unpaced.wait(start), Duration::ZERO);
}

#[test]
fn all_is_repeated_after_the_gap_and_at_half_the_rate() {
    let left = times(options(Policy::All), 0..3);
    assert_eq!(
        left,
        [(0, 0), (8, 1), (16, 2), (24, 0), (32, 1), (40, 2)],
        "the first repeat is due after 20 ms, when the line sends for 4 ms more"
    );
    let left = times(options(Policy::All), 0..100);
    let firsts = left.iter().position(|(_, mark)| *mark == 99).unwrap();
    assert!(firsts > 180, "{firsts}");
    assert_eq!(left.len(), 200);
}

#[test]
fn small_mails_are_repeated_at_once_and_large_ones_at_their_end() {
    // 2,500 octets count as small: two datagrams; a third one when the allowance has grown for 32 ms.
    let left = times(options(Policy::Small), 0..6);
    let expected = [
        (0, 0),
        (8, 1),
        (16, 2),
        (24, 3),
        (32, 4),
        (40, 5),
        (48, 0),
        (56, 1),
        (64, 4),
        (72, 2),
        (80, 3),
        (88, 5),
    ];
    assert_eq!(left, expected, "first all of it once");
    // Of a large one the last datagrams, and an eighth of those before.
    let left = times(options(Policy::Small), 0..120);
    let twice: Vec<u8> = (0..120)
        .filter(|mark| left.iter().filter(|(_, left)| left == mark).count() == 2)
        .collect();
    assert!((80..90).contains(&twice.len()), "{}", twice.len());
    assert!(twice.ends_with(&(60..120).collect::<Vec<u8>>()), "{twice:?}");
}

#[test]
fn a_steady_stream_of_small_mails_is_repeated_for_an_eighth_of_the_rate() {
    let (mut line, start) = (Line::new(options(Policy::Small)), start());
    // Always something waits, for ten seconds.
    let mut at = start;
    while at < start + Duration::from_secs(10) {
        line.push(at, datagram(0));
        line.push(at, datagram(0));
        while line.take(at, |_| true).is_some() {}
        at += ms(8);
    }
    let share = line.counters.repeated as f64 / line.counters.sent as f64;
    assert!((0.1..0.16).contains(&share), "{share}");
}

#[test]
fn without_a_rate_quiet_means_a_gap_without_datagrams() {
    let options = LineOptions {
        rate: None,
        redundancy: Redundancy {
            small: 0,
            ..redundancy(Policy::Small)
        },
        ..options(Policy::Small)
    };
    let (mut line, start) = (Line::new(options), start());
    for (at, mark) in [(0, 0), (15, 1), (30, 2)] {
        line.left(start + ms(at), datagram(mark));
    }
    assert_eq!(line.next(), Some(start + ms(50)));
    assert_eq!(run(&mut line, start), [(50, 0), (50, 1), (50, 2)]);
}

#[test]
fn every_copy_has_its_gap_and_memory_is_bounded() {
    let mut three = options(Policy::All);
    three.redundancy.copies = 3;
    assert_eq!(times(three, 0..1), [(0, 0), (20, 0), (40, 0)]);
    let (mut line, start) = (Line::new(options(Policy::All)), start());
    for _ in 0..5_000 {
        line.left(start, datagram(0));
    }
    let refused = line.counters.dropped;
    assert_eq!(refused, 5_000 - 1_024);
    assert!(line.take(start + ms(20), |_| false).is_none());
    assert_eq!(line.counters.dropped, 5_000);
    assert_eq!(line.counters.repeated, 0);
}
