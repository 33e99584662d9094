use std::time::Duration;

use lightpost_clock::{Clock, add, sub};
use lightpost_mail::lines::BodyFacts;
use lightpost_queue::{MessageView, StoredReply, Submission, schedule::Notices, sqlite::SqliteStore};

use super::{delays::Delays, *};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn header_sections_end_at_the_first_empty_line() {
    for (octets, end) in [
        (&b"A: b\r\nC: d\r\n\r\nbody\r\n\r\n"[..], Some(12)),
        (b"\r\nbody", Some(0)),
        (b"A: b\r\n", None),
        (b"", None),
    ] {
        assert_eq!(end_of_headers(octets), end);
    }
}

struct World {
    clock: Clock,
    store: Arc<dyn Store>,
    notices: Notices,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let store = SqliteStore::open(&folder.path().join("q.db"), clock.clone()).await;
        Self {
            clock,
            store: Arc::new(store.unwrap()),
            notices: Notices::derive(DAY * 5, HOUR, Duration::ZERO),
            _folder: folder,
        }
    }

    fn delays(&self) -> Delays<impl Fn(&str, u64) -> Option<Notices> + use<>> {
        let reporter = Reporter {
            store: self.store.clone(),
            name: "relay.earth.example".into(),
            from: Address::parse("MAILER-DAEMON@relay.earth.example").unwrap(),
            postmaster: Address::parse("postmaster@earth.example").unwrap(),
            lifetime: DAY,
        };
        let notices = self.notices;
        Delays::new(reporter, self.clock.clone(), HOUR, move |destination: &str, _| {
            (destination != "unknown.example").then_some(notices)
        })
    }

    /// A mail that was accepted `ago`.
    async fn put(&self, ago: Duration, sender: &str, recipients: &[&str]) -> Ulid {
        let accepted = sub(self.clock.now(), ago);
        let sender: Sender = sender.parse().unwrap();
        let recipients = recipients.iter().map(|text| {
            let recipient: lightpost_mail::Recipient = text.parse().unwrap();
            let wants = dsn::wanted(&sender, &recipient, Action::Delayed);
            let by = dsn::notice_by(&sender, &recipient, accepted);
            NewRecipient {
                notice: self.notices.first(accepted, wants, by),
                destination: recipient.address.destination(),
                recipient,
                due: add(self.clock.now(), HOUR),
                expires: add(accepted, DAY * 5),
            }
        });
        let recipients = recipients.collect();
        let body = b"Subject: hello\r\n\r\nbody\r\n";
        let message = NewMessage {
            id: new_id(accepted),
            sender,
            recipients,
            body: NewBody::Inline(Bytes::from_static(body)),
            facts: BodyFacts {
                size: body.len() as u64,
                ..BodyFacts::default()
            },
            priority: 0,
            origin: "test".into(),
            origin_id: None,
            upstream: None,
            accepted,
            hold: None,
            notes: Vec::new(),
        };
        let id = message.id;
        let submission = Submission {
            key: None,
            reply: StoredReply::default(),
            messages: vec![message],
            charges: Vec::new(),
        };
        self.store.enqueue(submission).await.unwrap();
        id
    }

    async fn notifications(&self) -> Vec<(MessageView, String)> {
        let filter = lightpost_queue::Filter {
            destination: Some(LOCAL.to_owned()),
            limit: 1000,
            ..lightpost_queue::Filter::default()
        };
        let claim = lightpost_queue::Claim {
            owner: "test",
            destination: LOCAL,
            now: self.clock.now(),
            until: add(self.clock.now(), HOUR),
            limit: 1000,
        };
        let bodies = self.store.claim(claim).await.unwrap();
        let views = self.store.list(filter).await.unwrap();
        let mut all = Vec::new();
        for view in views {
            if let Some(claimed) = bodies.iter().find(|claimed| claimed.id == view.id) {
                let octets = self.store.read_body(claimed.body, 0).await.unwrap();
                all.push((view, String::from_utf8_lossy(&octets).into_owned()));
            }
        }
        all
    }

    async fn next(&self) -> Option<Duration> {
        let next = self.store.next_notice().await.unwrap()?;
        Some(lightpost_clock::until(self.clock.now(), next))
    }
}

/// Just over the four hours after which a notice comes.
const LATE: Duration = Duration::from_secs(4 * 3600 + 1);

#[tokio::test]
async fn one_notice_tells_of_all_late_recipients_once() {
    let world = World::new().await;
    let id = world
        .put(
            LATE,
            "<ann@earth.example> ENVID=7 RET=FULL",
            &[
                "<b@moon.example>",
                "<c@moon.example> NOTIFY=DELAY",
                "<d@moon.example> NOTIFY=NEVER",
                "<e@moon.example> NOTIFY=FAILURE",
            ],
        )
        .await;
    let delays = world.delays();
    assert_eq!(delays.round().await.unwrap(), 1);
    assert_eq!(delays.round().await.unwrap(), 0);
    let told = world.notifications().await;
    let [(view, text)] = told.as_slice() else {
        panic!("{told:#?}");
    };
    assert_eq!(
        (view.sender.as_str(), view.origin_id.clone()),
        ("", Some(id.to_string()))
    );
    assert_eq!(view.recipients[0].address, "ann@earth.example");
    for part in [
        "Final-Recipient: rfc822; b@moon.example",
        "Final-Recipient: rfc822; c@moon.example",
        "Action: delayed",
        "Will-Retry-Until:",
        "Original-Envelope-Id: 7",
        "Content-Type: text/rfc822-headers",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(
        !text.contains("d@moon.example") && !text.contains("e@moon.example"),
        "{text}"
    );
    assert_eq!(world.next().await, None);
}

#[tokio::test]
async fn who_did_not_ask_hears_of_one_mail_and_who_did_of_each() {
    let world = World::new().await;
    for number in 0..20 {
        let one = format!("<b{number}@moon.example>");
        world.put(LATE, "<ann@earth.example>", &[&one]).await;
        let other = format!("<c{number}@moon.example> NOTIFY=DELAY,FAILURE");
        world.put(LATE, "<eve@earth.example>", &[&other]).await;
    }
    world
        .put(LATE, "<ann@earth.example>", &["<b@mars.example>"])
        .await;
    let delays = world.delays();
    while delays.round().await.unwrap() > 0 {}
    let told = world.notifications().await;
    let of = |sender: &str| {
        told.iter()
            .filter(|(view, _)| view.recipients[0].address == sender)
            .count()
    };
    // One for each destination.
    assert_eq!((of("ann@earth.example"), of("eve@earth.example")), (2, 20));
    // The others are looked at again: they may still be there when those that were told of have arrived.
    let next = world.next().await.unwrap();
    assert!(next > HOUR * 3 && next <= HOUR * 4, "{next:?}");
}

#[tokio::test]
async fn who_was_told_in_the_life_before_is_not_told_again() {
    let world = World::new().await;
    world
        .put(LATE, "<ann@earth.example>", &["<b@moon.example>"])
        .await;
    world.delays().round().await.unwrap();
    assert_eq!(world.notifications().await.len(), 1);
    for sender in ["<ann@earth.example> ENVID=2", "<eve@earth.example>"] {
        world.put(LATE, sender, &["<c@moon.example>"]).await;
    }
    // Another process, as far as its memory goes.
    let delays = world.delays();
    while delays.round().await.unwrap() > 0 {}
    let told = world.notifications().await;
    let told: Vec<_> = told
        .iter()
        .map(|(view, _)| view.recipients[0].address.as_str())
        .collect();
    assert_eq!(told, ["eve@earth.example"]);
}

#[tokio::test]
async fn after_a_long_stop_notices_wait_for_an_exchange_and_are_spread() {
    let world = World::new().await;
    for number in 0..200 {
        let one = format!("<b{number}@moon.example> NOTIFY=DELAY");
        world.put(DAY, "<ann@earth.example>", &[&one]).await;
    }
    let delays = world.delays();
    while delays.round().await.unwrap() > 0 {}
    assert!(world.notifications().await.is_empty());
    let now = world.clock.now();
    let at = |hours: u32| add(now, HOUR * hours);
    let late = async |hours| world.store.late(at(hours), 1000).await.unwrap().messages.len();
    assert_eq!(late(0).await, 0);
    assert_eq!(
        world
            .store
            .late(add(now, HOUR - Duration::from_secs(1)), 1000)
            .await
            .unwrap()
            .messages
            .len(),
        0
    );
    // Four hours for 200 of them: no hour has none or all.
    let counts = [late(2).await, late(3).await, late(4).await, late(6).await];
    assert_eq!(counts[3], 200);
    assert!(
        counts.is_sorted() && counts[0] > 0 && counts[2] < 200,
        "{counts:?}"
    );
}

#[tokio::test]
async fn a_time_that_the_sender_set_is_told_of_whatever_notify_says_but_never() {
    let world = World::new().await;
    let ago = Duration::from_secs(101);
    let one = world
        .put(
            ago,
            "<ann@earth.example> BY=100;N",
            &["<b@moon.example> NOTIFY=FAILURE"],
        )
        .await;
    world
        .put(
            ago,
            "<ann@earth.example> BY=100;N",
            &["<b@moon.example> NOTIFY=NEVER"],
        )
        .await;
    world
        .put(
            ago,
            "<ann@earth.example> BY=100;R",
            &["<b@moon.example> NOTIFY=FAILURE"],
        )
        .await;
    world.put(ago, "<> BY=100;N", &["<b@moon.example>"]).await;
    let delays = world.delays();
    while delays.round().await.unwrap() > 0 {}
    let told = world.notifications().await;
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told[0].0.origin_id, Some(one.to_string()));
    assert!(
        told[0].1.contains("Deliver-By-Date: ") && told[0].1.contains("Status: 4.4.7"),
        "{}",
        told[0].1
    );
    assert_eq!(world.next().await, None);
}

#[tokio::test]
async fn what_nobody_can_be_told_of_is_not_looked_at_again() {
    let world = World::new().await;
    world
        .put(LATE, "<ann@earth.example>", &["<b@unknown.example>"])
        .await;
    let delays = world.delays();
    while delays.round().await.unwrap() > 0 {}
    assert!(world.notifications().await.is_empty());
    assert_eq!(world.next().await, None);
}

#[tokio::test]
async fn a_notice_is_repeated_where_the_operator_says_so() {
    let mut world = World::new().await;
    world.notices.again = Some(HOUR);
    world
        .put(LATE, "<ann@earth.example>", &["<b@moon.example>"])
        .await;
    world.delays().round().await.unwrap();
    assert_eq!(world.notifications().await.len(), 1);
    let next = world.next().await.unwrap();
    assert!(next <= HOUR && next > HOUR / 2, "{next:?}");
}
