use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::lines::tests::{chunk_sizes, octet_soup};

/// Objects of lines that are often right and often not.
fn object() -> impl Strategy<Value = Vec<u8>> {
    const LINES: &[&[u8]] = &[
        b"EHLO x",
        b"MAIL FROM:<a@b>",
        b"mail from:<> SIZE=3",
        b"MAIL FROM:<a@b> X=1",
        b"RCPT TO:<c@d>",
        b"RCPT TO:<c>",
        b"RCPT TO:<\xff@d>",
        b"DATA",
        b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA",
        b"MAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA",
        b".",
        b"..",
        b"RSET",
        b"QUIT",
        b"a line that is too long for the limits of this test, by far",
        b"",
    ];
    const ENDS: &[&[u8]] = &[
        b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\n", b"\r", b"",
    ];
    let (line, end) = (select(LINES), select(ENDS));
    (vec((line, end), 0..12), octet_soup()).prop_map(|(lines, soup)| {
        let mut object: Vec<u8> = lines
            .iter()
            .flat_map(|(line, end)| [*line, *end].concat())
            .collect();
        object.extend(soup);
        object
    })
}

fn small_limits() -> Limits {
    Limits {
        command_line: 40,
        recipients: 2,
        transactions: 2,
        body: 30,
    }
}

/// Events that count: those of an unfinished transaction may depend on the chunking.
fn settled(events: &[Event]) -> &[Event] {
    let end = events
        .iter()
        .rposition(|event| matches!(event, Event::End | Event::Quit | Event::Envelope(_)))
        .map_or(0, |position| position + 1);
    &events[..end]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn every_chunking_gives_the_same(object in object(), sizes in chunk_sizes()) {
        for line_ends in [LineEnds::Crlf, LineEnds::Detect] {
            for limits in [Limits::default(), small_limits()] {
                let (events, result) = decode(line_ends, limits, &object, &[usize::MAX]);
                let (other_events, other_result) = decode(line_ends, limits, &object, &sizes);
                prop_assert_eq!(&result, &other_result);
                prop_assert_eq!(settled(&events), settled(&other_events));
                if let Err(error) = result {
                    prop_assert!(error.offset <= object.len() as u64);
                }
            }
        }
    }
}

#[test]
fn large_bodies_come_in_bounded_pieces() {
    let line = [b"x".repeat(70), b"\r\n".to_vec()].concat();
    let mut object = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n".to_vec();
    object.extend(line.repeat(10_000));
    object.extend(b".\r\n");
    let mut decoder = Decoder::new(LineEnds::Crlf, Limits::default());
    let mut events = Vec::new();
    decoder.push(&object, &mut events).unwrap();
    decoder.finish(&mut events).unwrap();
    let mut total = 0;
    for event in events {
        if let Event::Body(octets) = event {
            assert!(octets.len() <= PIECE && octets.capacity() <= 2 * PIECE + 2);
            total += octets.len();
        }
    }
    assert_eq!(total, 720_000);
}
