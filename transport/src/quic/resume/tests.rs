//! The file, the book and what is known of gateways; handshakes are played in `crate::tests::resume`.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use lightpost_clock::{Clock, add};
use quinn::TokenStore;

use super::{
    Sessions,
    book::{Book, Entry, Token},
    journal::Journal,
    record::{Heard, Origin, Record},
    stage::{Draw, Kind, Script, Stage, draw},
    tokens::Tokens,
};

const NOW: u64 = 1_900_000_000;
const DAY: u64 = 86_400;

fn record(id: u64, parent: Option<Origin>, at: u64, tickets: u16) -> Record {
    let draws = vec![Draw {
        kind: Kind::Secret,
        octets: vec![7; 32],
    }];
    let heard = vec![Heard {
        at,
        octets: vec![9; 300],
        tickets,
    }];
    Record {
        id,
        gateway: "gw1.mars.example:443 by mars".into(),
        parent,
        name: "gw1.mars.example".into(),
        parameters: vec![1; 60],
        begun: at,
        group: Some(29),
        draws,
        heard,
        said: [3; 32],
    }
}

fn origin(record: u64, index: u16) -> Origin {
    Origin { record, index }
}

fn round_trip(millis: u64) -> Entry {
    Entry::RoundTrip {
        gateway: "gw1.mars.example:443 by mars".into(),
        at: NOW,
        millis,
    }
}

/// One of each.
fn all() -> Vec<Entry> {
    let heard = Heard {
        at: NOW,
        octets: vec![8; 50],
        tickets: 1,
    };
    let token = Token {
        gateway: "gw1.mars.example:443 by mars".into(),
        at: NOW,
        octets: vec![5; 90],
    };
    vec![
        Entry::Record(record(1, None, NOW, 2)),
        Entry::Heard { record: 1, heard },
        Entry::Used(origin(1, 0)),
        Entry::Record(record(2, Some(origin(1, 0)), NOW, 8)),
        round_trip(364_000),
        Entry::Token(token.clone()),
        Entry::Token(Token {
            octets: vec![6; 90],
            ..token.clone()
        }),
        Entry::TokenUsed {
            gateway: token.gateway,
            octets: vec![6; 90],
        },
    ]
}

fn written(file: &Path) -> Vec<u8> {
    let journal = Journal::open(file, NOW).unwrap();
    for entry in all() {
        journal.note(entry);
        journal.flush(NOW);
    }
    std::fs::read(file).unwrap()
}

fn shape(book: &mut Book) -> (usize, usize, usize, usize) {
    let Book {
        records,
        used,
        round_trips,
        tokens,
    } = book;
    (records.len(), used.len(), round_trips.len(), tokens.len())
}

#[test]
fn entries_are_read_as_they_were_written() {
    for entry in all() {
        let octets = entry.encode();
        assert!(Entry::decode(&octets) == Some(entry));
        for cut in 0..octets.len() {
            assert!(Entry::decode(&octets[..cut]).is_none(), "{cut}");
        }
        assert!(Entry::decode(&[octets, vec![0]].concat()).is_none());
    }
    assert!(Entry::decode(&u64::MAX.to_be_bytes()).is_none());
    // A length that no memory has.
    let absurd = [5u64.to_be_bytes(), (u64::MAX >> 1).to_be_bytes()].concat();
    assert!(Entry::decode(&absurd).is_none());
}

/// A crash, or a bad sector, at any place.
#[test]
fn a_file_that_is_cut_or_damaged_anywhere_opens() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sessions");
    let whole = written(&file);
    let open = |octets: &[u8]| {
        std::fs::write(&file, octets).unwrap();
        Journal::open(&file, NOW).map(|journal| journal.look(shape))
    };
    assert_eq!(open(&whole), Some((2, 1, 1, 1)));
    let mut before = (0, 0, 0, 0);
    for cut in (0..whole.len()).step_by(7) {
        let now = open(&whole[..cut]).unwrap();
        assert!(
            now.0 >= before.0 && now.2 >= before.2,
            "{cut}: {now:?} after {before:?}"
        );
        before = now;
    }
    for place in (0..whole.len()).step_by(11) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x40;
        let opened = open(&damaged);
        // In its name it is not ours any more.
        assert_eq!(opened.is_none(), place < 19, "{place}");
        // What comes after the damage is lost, what comes before is not.
        assert!(
            opened.is_none_or(|it| it.0 <= 2 && (place < 1_000 || it.0 >= 1)),
            "{place}"
        );
    }
}

#[test]
fn the_file_does_not_grow_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sessions");
    let journal = Journal::open(&file, NOW).unwrap();
    let mut largest = 0;
    for round in 0..200 {
        for millis in 0..100 {
            journal.note(round_trip(millis));
        }
        journal.note(Entry::Record(record(round + 1, None, NOW, 1)));
        journal.note(Entry::Used(origin(round + 1, 0)));
        journal.flush(NOW);
        largest = largest.max(std::fs::metadata(&file).unwrap().len());
    }
    assert!((500_000..1_200_000).contains(&largest), "{largest}");
}

#[test]
fn what_could_not_be_written_is_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("place");
    let file = place.join("sessions");
    let journal = Journal::open(&file, NOW).unwrap();
    for entry in all() {
        journal.note(entry);
    }
    journal.flush(NOW);
    assert!(!file.exists());
    std::fs::create_dir(&place).unwrap();
    journal.flush(NOW);
    let again = Journal::open(&file, NOW).unwrap();
    assert_eq!(again.look(shape), (2, 1, 1, 1));
}

#[test]
fn a_record_stays_as_long_as_a_ticket_hangs_on_it() {
    let mut book = Book::default();
    let kept = |book: &Book| book.records.keys().copied().collect::<Vec<_>>();
    book.apply(Entry::Record(record(1, None, NOW, 1)));
    book.apply(Entry::Used(origin(1, 0)));
    book.apply(Entry::Record(record(2, Some(origin(1, 0)), NOW + 10, 2)));
    book.apply(Entry::Record(record(3, None, NOW, 1)));
    // Its parent is gone.
    book.apply(Entry::Record(record(9, Some(origin(8, 0)), NOW, 1)));
    book.prune(NOW);
    assert_eq!(kept(&book), [1, 2, 3]);
    book.prune(NOW + DAY);
    assert_eq!(kept(&book), [1, 2]);
    book.apply(Entry::Used(origin(2, 0)));
    book.prune(NOW);
    assert_eq!(kept(&book), [1, 2]);
    book.apply(Entry::Used(origin(2, 1)));
    book.prune(NOW);
    assert!(book.records.is_empty() && book.used.is_empty());
}

#[test]
fn there_are_never_too_many_of_anything() {
    let mut book = Book::default();
    for number in 1..=1_000u64 {
        book.apply(Entry::Record(record(number, None, NOW, 8)));
        let gateway = format!("gw{number}");
        let octets = number.to_be_bytes().to_vec();
        for octets in [octets.clone(), octets.clone(), octets] {
            let (gateway, at) = (gateway.clone(), NOW);
            book.apply(Entry::Token(Token { gateway, at, octets }));
        }
        let (at, millis) = (NOW + number, 1);
        book.apply(Entry::RoundTrip { gateway, at, millis });
    }
    book.prune(NOW);
    assert_eq!(shape(&mut book), (128, 0, 256, 512));
    assert!(book.records.contains_key(&1_000));
    // A line of parents that is a circle ends, too.
    let mut book = Book::default();
    book.apply(Entry::Record(record(1, Some(origin(2, 0)), NOW, 8)));
    book.apply(Entry::Record(record(2, Some(origin(1, 0)), NOW, 8)));
    book.prune(NOW);
    assert!(book.records.is_empty());
}

fn clock(now: u64) -> Clock {
    let base = Timestamp::from_second(now.try_into().unwrap()).unwrap();
    Clock::runtime(base)
}

#[tokio::test(start_paused = true)]
async fn tokens_outlive_a_restart_and_serve_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sessions");
    let tokens = |sessions: &Arc<Sessions>| Tokens::new(sessions.clone(), "gw1".into());
    let tls = config();
    let first = Sessions::open(Some(&file), clock(NOW));
    for token in ["one", "two", "three"] {
        tokens(&first).insert("gw1", token.into());
    }
    tokens(&first).insert("gw1", vec![0; 5_000].into());
    assert_eq!(tokens(&first).take("gw1").unwrap(), "three");
    first.flush().await;
    let second = Sessions::open(Some(&file), clock(NOW + DAY));
    second.rehydrate(&tls);
    assert_eq!(tokens(&second).take("gw1").unwrap(), "two");
    assert_eq!(tokens(&second).take("gw1"), None);
    second.flush().await;
    let third = Sessions::open(Some(&file), clock(NOW + DAY));
    third.rehydrate(&tls);
    assert_eq!(tokens(&third).take("gw1"), None);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_gives_token_after_token_is_not_listened_to() {
    let sessions = Sessions::open(None, clock(NOW));
    let tokens = Tokens::new(sessions.clone(), "gw1".into());
    for number in 1..=20u8 {
        tokens.insert("gw1", vec![number].into());
    }
    assert_eq!(tokens.take("gw1").unwrap(), [8].as_slice());
    // Another connection's are taken again.
    let tokens = Tokens::new(sessions, "gw1".into());
    tokens.insert("gw1", vec![21].into());
    assert_eq!(tokens.take("gw1").unwrap(), [21].as_slice());
}

fn config() -> Arc<rustls::ClientConfig> {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(super::provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Arc::new(config)
}

/// A handshake that waited for an outage, or was repaired, says nothing about the light time.
#[tokio::test(start_paused = true)]
async fn a_round_trip_grows_no_faster_than_planets_part() {
    let clock = clock(NOW);
    let sessions = Sessions::open(None, clock.clone());
    let seconds = |sessions: &Arc<Sessions>| sessions.round_trip("gw1").unwrap().as_secs_f64();
    sessions.measured("gw1", Duration::from_secs(20_000));
    sessions.measured("gw1", Duration::from_secs(364));
    assert_eq!(seconds(&sessions), 364.0);
    sessions.measured("gw1", Duration::from_secs(20_000));
    assert_eq!(seconds(&sessions), 369.0);
    clock.sleep(Duration::from_secs(10 * DAY)).await;
    sessions.measured("gw1", Duration::from_secs(20_000));
    let grown = seconds(&sessions);
    assert!((540.0..560.0).contains(&grown), "{grown}");
    sessions.measured("gw1", Duration::from_secs(363));
    assert_eq!(seconds(&sessions), 363.0);
    assert!(add(Timestamp::UNIX_EPOCH, Duration::from_secs(NOW)) < clock.now());
}

#[test]
fn a_replay_that_leaves_the_script_draws_nothing() {
    let made = || Some(vec![1, 2, 3]);
    let (drawn, stage) = Stage::new(NOW, Script::Live(Vec::new())).run(|| draw(Kind::Share, made));
    assert_eq!(drawn, made());
    let Script::Live(draws) = stage.unwrap().script else {
        panic!("no longer live");
    };
    let never = || -> Option<Vec<u8>> { panic!("drawn anew") };
    let script = || Script::Replay(draws.clone().into());
    let (drawn, _) = Stage::new(NOW, script()).run(|| {
        let first = draw(Kind::Share, never);
        (first, draw(Kind::Share, never))
    });
    assert_eq!(drawn, (made(), None));
    let (drawn, _) = Stage::new(NOW, script()).run(|| draw(Kind::Random, never));
    assert_eq!(drawn, None);
    // Off the stage, and after it, chance is chance.
    assert_eq!(draw(Kind::Random, made), made());
}
