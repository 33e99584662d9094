mod scripted;

use std::net::SocketAddr;

use jiff::Timestamp;
use lightpost_clock::add;
use lightpost_mail::{
    Address, Recipient, ReversePath, Sender,
    envelope::{Notify as NotifyParameter, RcptParameters},
    lines::{BareLineEnds, BodyFacts, Canonicaliser},
};
use lightpost_queue::{
    LOCAL, MessageView, NewBody, NewMessage, NewRecipient, Status, StoredReply, Submission, WaitReason,
    sqlite::SqliteStore,
};
use lightpost_sim::sink::{Received, Sink, SinkOptions};
use lightpost_smtp::send::Protocol;
use tokio::{net::TcpListener, sync::mpsc};
use ulid::Ulid;

use self::scripted::{Script, scripted};
use super::*;

/// Everything in these tests happens within this time or not at all.
const SOON: Duration = Duration::from_secs(20);
const BODY: &str = "Subject: hello\r\n\r\n.\r\n..dots\r\nbody\r\n";

struct World {
    config: Arc<Config>,
    store: Arc<dyn Store>,
    clock: Clock,
    onward: Option<Onward>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new(servers: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), "").unwrap();
        let text = format!(
            "name = \"gw1.moon.example\"\ndatabase = \"inbox.db\"\n[listen]\nhttps = \"127.0.0.1:0\"\ncertificate = \"cert.pem\"\n\
             key = \"cert.pem\"\nclient_trust = \"cert.pem\"\n[accept]\ndomains = [\"moon.example\"]\n[[peer]]\n\
             name = \"relay.earth.example\"\n{servers}"
        );
        let config = Arc::new(Config::from_text(&folder.path().join("server.toml"), &text).unwrap());
        let clock = Clock::system();
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(&config.database, clock.clone()).await.unwrap());
        Self {
            config,
            store,
            clock,
            onward: None,
            _folder: folder,
        }
    }

    fn start(&mut self) {
        self.onward = Some(start(self.config.clone(), self.store.clone(), self.clock.clone()).unwrap());
    }

    async fn enqueue(&self, sender: &str, recipients: Vec<Recipient>, expires: Timestamp) -> Ulid {
        let now = self.clock.now();
        let path = match sender {
            "" => ReversePath::Null,
            address => ReversePath::Address(Address::parse(address).unwrap()),
        };
        let id = crate::new_id(now);
        let message = NewMessage {
            id,
            sender: Sender::new(path),
            recipients: recipients
                .into_iter()
                .map(|recipient| NewRecipient {
                    destination: recipient.address.destination(),
                    recipient,
                    due: now,
                    expires,
                    notice: None,
                })
                .collect(),
            body: NewBody::Inline(BODY.into()),
            facts: facts(BODY.as_bytes()),
            priority: 0,
            origin: "test".into(),
            origin_id: None,
            upstream: None,
            accepted: now,
            hold: None,
            notes: Vec::new(),
        };
        let submission = Submission {
            key: None,
            reply: StoredReply::default(),
            messages: vec![message],
            charges: Vec::new(),
        };
        self.store.enqueue(submission).await.unwrap();
        id
    }

    fn later(&self) -> Timestamp {
        add(self.clock.now(), Duration::from_secs(3600))
    }

    /// Waits until the message is as `wanted`.
    async fn until(&self, id: Ulid, wanted: impl Fn(&MessageView) -> bool) -> MessageView {
        let mut last = None;
        for _ in 0..SOON.as_millis() / 10 {
            let view = self.store.message(id).await.unwrap().unwrap();
            if wanted(&view) {
                return view;
            }
            last = Some(view);
            self.clock.sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {last:#?}");
    }

    async fn next(&self, mails: &mut mpsc::Receiver<Arc<Received>>) -> Arc<Received> {
        self.clock.timeout(SOON, mails.recv()).await.unwrap().unwrap()
    }
}

fn facts(body: &[u8]) -> BodyFacts {
    let mut machine = Canonicaliser::new(BareLineEnds::Normalise);
    let mut out = Vec::new();
    machine.push(body, &mut out).unwrap();
    machine.finish(&mut out).unwrap()
}

fn to(addresses: &[&str]) -> Vec<Recipient> {
    addresses
        .iter()
        .map(|address| Recipient::new(Address::parse(address).unwrap()))
        .collect()
}

fn all(status: Status) -> impl Fn(&MessageView) -> bool {
    move |view| view.recipients.iter().all(|recipient| recipient.status == status)
}

async fn sink(protocol: Protocol) -> Sink {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = SinkOptions {
        protocol,
        ..SinkOptions::default()
    };
    Sink::start(listener, options, Clock::system()).unwrap()
}

fn local(address: SocketAddr, protocol: &str) -> String {
    format!(
        "[local]\naddress = \"{address}\"\nprotocol = \"{protocol}\"\nretry_first = \"50ms\"\nretry_longest = \"100ms\"\n"
    )
}

#[tokio::test]
async fn a_mail_arrives_octet_by_octet_and_the_reply_is_kept() {
    for (protocol, name) in [(Protocol::Smtp, "smtp"), (Protocol::Lmtp, "lmtp")] {
        let sink = sink(protocol).await;
        let mut mails = sink.subscribe(10);
        let mut world = World::new(&local(sink.address(), name)).await;
        let id = world
            .enqueue("a@earth.example", to(&["bob@moon.example"]), world.later())
            .await;
        world.start();
        let mail = world.next(&mut mails).await;
        assert_eq!(mail.body, BODY.as_bytes());
        assert_eq!(mail.sender.path.to_string(), "a@earth.example");
        let view = world.until(id, all(Status::Delivered)).await;
        let recipient = &view.recipients[0];
        assert!(
            recipient.detail.as_deref().unwrap().starts_with("250"),
            "{recipient:?}"
        );
        assert!(
            recipient
                .remote
                .as_deref()
                .unwrap()
                .contains(&sink.address().to_string())
        );
        world.onward.take().unwrap().stop().await;
    }
}

#[tokio::test]
async fn each_recipient_has_its_own_outcome_and_refusal_is_notified() {
    let sink = sink(Protocol::Smtp).await;
    let mut mails = sink.subscribe(10);
    let mut world = World::new(&local(sink.address(), "smtp")).await;
    let recipients = to(&["bob@moon.example", "refuse@moon.example", "later@moon.example"]);
    let id = world
        .enqueue("alice@earth.example", recipients, world.later())
        .await;
    world.start();
    let first = world.next(&mut mails).await;
    assert_eq!(first.recipients, to(&["bob@moon.example"]));
    let notification = world.next(&mut mails).await;
    assert!(notification.sender.path.is_null());
    assert_eq!(notification.recipients, to(&["alice@earth.example"]));
    let text = String::from_utf8_lossy(&notification.body).into_owned();
    for part in [
        "Auto-Submitted: auto-replied",
        "Final-Recipient: rfc822;refuse@moon.example",
        "Action: failed",
        "Status: 5.1.1",
        "no such user here",
        "Subject: hello\r\n",
    ] {
        assert!(
            text.replace("; ", ";").contains(&part.replace("; ", ";")),
            "{part}\n{text}"
        );
    }
    assert!(!text.contains("bob@moon.example") && !text.contains("..dots"));
    let view = world
        .until(id, |view| {
            view.recipients[2].attempts >= 2 && view.recipients[2].status == Status::Queued
        })
        .await;
    assert_eq!(view.recipients[0].status, Status::Delivered);
    assert_eq!(view.recipients[1].status, Status::Failed);
    assert_eq!(view.recipients[2].reason, Some(WaitReason::Deferred));
    world.onward.take().unwrap().stop().await;
}

#[tokio::test]
async fn the_postmaster_is_told_of_mail_without_a_sender() {
    let sink = sink(Protocol::Smtp).await;
    let mut mails = sink.subscribe(10);
    let servers = local(sink.address(), "smtp") + "postmaster = \"ops@moon.example\"\n";
    let mut world = World::new(&servers).await;
    world
        .enqueue("", to(&["refuse@moon.example"]), world.later())
        .await;
    world.start();
    let told = world.next(&mut mails).await;
    assert!(told.sender.path.is_null());
    assert_eq!(told.recipients, to(&["ops@moon.example"]));
    let text = String::from_utf8_lossy(&told.body).into_owned();
    assert!(
        text.contains("refuse@moon.example") && text.contains("Subject: hello\r\n"),
        "{text}"
    );
}

#[tokio::test]
async fn nobody_is_notified_about_a_notification_that_cannot_reach_the_postmaster() {
    let sink = sink(Protocol::Smtp).await;
    let servers = local(sink.address(), "smtp") + "postmaster = \"refuse@moon.example\"\n";
    let mut world = World::new(&servers).await;
    let refused = world
        .enqueue("", to(&["refuse@moon.example"]), world.later())
        .await;
    world.start();
    world.until(refused, all(Status::Failed)).await;
    // Notifications are stored with the outcome: one would be there by now.
    assert_eq!(world.store.totals().await.unwrap().messages, 0);
    assert_eq!(sink.count(), 0);
}

#[tokio::test]
async fn a_lifetime_ends_with_a_notification() {
    let sink = sink(Protocol::Smtp).await;
    let mut mails = sink.subscribe(10);
    let mut world = World::new(&local(sink.address(), "smtp")).await;
    let soon = add(world.clock.now(), Duration::from_millis(200));
    let id = world
        .enqueue("alice@earth.example", to(&["later@moon.example"]), soon)
        .await;
    world.start();
    let notification = world.next(&mut mails).await;
    let text = String::from_utf8_lossy(&notification.body).into_owned();
    assert!(
        text.contains("Status: 4.4.7") && text.contains("try again later"),
        "{text}"
    );
    let view = world.until(id, all(Status::Expired)).await;
    assert!(view.recipients[0].attempts >= 1);
}

#[tokio::test]
async fn success_is_reported_where_the_server_does_not_report_it() {
    let mut recipient = to(&["bob@moon.example"]).remove(0);
    recipient.parameters = RcptParameters {
        notify: Some(NotifyParameter::On {
            success: true,
            failure: false,
            delay: false,
        }),
        orcpt: None,
    };
    let (address, mut seen) = scripted(vec![Script::plain(), Script::plain()]).await;
    let mut world = World::new(&local(address, "smtp")).await;
    world
        .enqueue("alice@earth.example", vec![recipient], world.later())
        .await;
    world.start();
    let original = world.clock.timeout(SOON, seen.recv()).await.unwrap().unwrap();
    assert!(!original.contains("NOTIFY"), "{original}");
    let notification = world.clock.timeout(SOON, seen.recv()).await.unwrap().unwrap();
    assert!(notification.contains("Action: relayed"), "{notification}");
    assert!(
        notification.contains("RCPT TO:<alice@earth.example>"),
        "{notification}"
    );
}

#[tokio::test]
async fn mail_waits_while_the_server_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut world = World::new(&local(address, "smtp")).await;
    let id = world
        .enqueue("a@earth.example", to(&["bob@moon.example"]), world.later())
        .await;
    world.start();
    let view = world
        .until(id, |view| {
            view.recipients[0].attempts >= 2 && view.recipients[0].status == Status::Queued
        })
        .await;
    assert_eq!(view.recipients[0].reason, Some(WaitReason::Unreachable));
    let listener = TcpListener::bind(address).await.unwrap();
    let sink = Sink::start(listener, SinkOptions::default(), world.clock.clone()).unwrap();
    world.until(id, all(Status::Delivered)).await;
    assert_eq!(sink.count(), 1);
}

#[tokio::test]
async fn mail_for_a_server_that_is_down_is_not_touched() {
    let sink = sink(Protocol::Smtp).await;
    let servers = format!(
        "{}[[onward]]\ndomain = \"far.moon.example\"\naddress = \"127.0.0.1:9\"\nretry_first = \"1h\"\nretry_longest = \"1h\"\n",
        local(sink.address(), "smtp"),
    );
    let mut world = World::new(&servers).await;
    world.start();
    let far = world.onward.as_ref().unwrap().shared.lines[1].clone();
    assert!(far.room() > 16);
    far.failed(world.clock.now(), "nobody listens");
    assert_eq!(far.room(), 16);
    let waiting = world
        .enqueue("a@earth.example", to(&["eve@far.moon.example"]), world.later())
        .await;
    for _ in 0..3 {
        let near = world
            .enqueue("a@earth.example", to(&["bob@moon.example"]), world.later())
            .await;
        world.until(near, all(Status::Delivered)).await;
    }
    let view = world.store.message(waiting).await.unwrap().unwrap();
    assert_eq!(view.recipients[0].attempts, 0, "{view:#?}");
    assert_eq!(view.recipients[0].status, Status::Queued);
    far.works();
    world
        .until(waiting, |view| view.recipients[0].attempts == 1)
        .await;
}

#[tokio::test]
async fn a_place_is_given_back_whatever_ends_the_work() {
    let sink = sink(Protocol::Smtp).await;
    let mut world = World::new(&local(sink.address(), "smtp")).await;
    world.start();
    let shared = world.onward.as_ref().unwrap().shared.clone();
    let line = shared.lines[0].clone();
    let (room, recipient) = (line.room(), RecipientId(7));
    shared.flight().insert(recipient);
    let place = place::Place::take(shared.clone(), line.clone(), vec![recipient]);
    assert_eq!(line.room(), room - 1);
    let work = async move {
        let _place = place;
        panic!("as a delivery might");
    };
    assert_eq!(survived("test", work).await, Err(()));
    assert_eq!(line.room(), room);
    assert!(shared.flight().is_empty());
}

#[tokio::test]
async fn a_cut_behind_the_final_dot_is_repeated_and_said() {
    let (address, mut seen) = scripted(vec![Script::cut(), Script::plain()]).await;
    let mut world = World::new(&local(address, "smtp")).await;
    let id = world
        .enqueue("a@earth.example", to(&["bob@moon.example"]), world.later())
        .await;
    world.start();
    let first = world.clock.timeout(SOON, seen.recv()).await.unwrap().unwrap();
    let second = world.clock.timeout(SOON, seen.recv()).await.unwrap().unwrap();
    assert!(first.contains("..dots") && second.contains("..dots"));
    let view = world.until(id, all(Status::Delivered)).await;
    let told = view
        .history
        .iter()
        .any(|event| event.detail.contains("may deliver it twice"));
    assert!(told, "{view:#?}");
}

#[tokio::test]
async fn recipients_of_two_servers_go_two_ways() {
    let (near, far) = (sink(Protocol::Smtp).await, sink(Protocol::Lmtp).await);
    let (mut at_near, mut at_far) = (near.subscribe(10), far.subscribe(10));
    let servers = format!(
        "{}[[onward]]\ndomain = \"*.far.moon.example\"\naddress = \"{}\"\nprotocol = \"lmtp\"\n",
        local(near.address(), "smtp"),
        far.address()
    );
    let mut world = World::new(&servers).await;
    let id = world
        .enqueue(
            "a@earth.example",
            to(&["bob@moon.example", "eve@a.far.moon.example"]),
            world.later(),
        )
        .await;
    world.start();
    assert_eq!(
        world.next(&mut at_near).await.recipients,
        to(&["bob@moon.example"])
    );
    assert_eq!(
        world.next(&mut at_far).await.recipients,
        to(&["eve@a.far.moon.example"])
    );
    world.until(id, all(Status::Delivered)).await;
    assert_eq!((near.count(), far.count()), (1, 1));
}

#[tokio::test]
async fn notifications_take_their_own_server() {
    let (local_server, sender) = (sink(Protocol::Lmtp).await, sink(Protocol::Smtp).await);
    let mut notified = sender.subscribe(10);
    let servers = format!(
        "{}[notify]\naddress = \"{}\"\n",
        local(local_server.address(), "lmtp"),
        sender.address()
    );
    let mut world = World::new(&servers).await;
    world
        .enqueue("alice@earth.example", to(&["refuse@moon.example"]), world.later())
        .await;
    world.start();
    assert_eq!(
        world.next(&mut notified).await.recipients,
        to(&["alice@earth.example"])
    );
    assert_eq!(local_server.count(), 0);
    assert_eq!(world.config.onward.choose(LOCAL), 1);
}

#[tokio::test]
async fn what_the_last_run_had_leased_is_delivered() {
    let sink = sink(Protocol::Smtp).await;
    let mut world = World::new(&local(sink.address(), "smtp")).await;
    let id = world
        .enqueue("a@earth.example", to(&["bob@moon.example"]), world.later())
        .await;
    let claim = lightpost_queue::Claim {
        owner: OWNER,
        destination: "moon.example",
        now: world.clock.now(),
        until: world.later(),
        limit: 10,
    };
    assert_eq!(world.store.claim(claim).await.unwrap().len(), 1);
    let again = world.store.recover(OWNER, world.clock.now()).await.unwrap();
    assert_eq!(again, 1);
    world.start();
    world.until(id, all(Status::Delivered)).await;
}

#[tokio::test]
async fn a_stream_of_mail_is_delivered_once_each() {
    let sink = sink(Protocol::Smtp).await;
    let mut mails = sink.subscribe(1000);
    let mut world = World::new(&local(sink.address(), "smtp")).await;
    world.start();
    for number in 0..300 {
        let recipient = format!("user{number}@moon.example");
        world
            .enqueue("a@earth.example", to(&[&recipient]), world.later())
            .await;
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..300 {
        let mail = world.next(&mut mails).await;
        assert!(seen.insert(mail.recipients[0].address.to_string()), "twice");
    }
    world.onward.take().unwrap().stop().await;
    let totals = world.store.totals().await.unwrap();
    assert_eq!(totals.messages, 0, "{totals:?}");
    assert_eq!(sink.count(), 300);
}

/// The figure that the bench takes over both hops, for this hop alone:
/// `cargo test --release -p lightpost-server onward_rate -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn onward_rate() {
    const MAILS: u64 = 10_000;
    let sink = sink(Protocol::Smtp).await;
    let mut world = World::new(&local(sink.address(), "smtp")).await;
    let body: Vec<u8> = BODY
        .bytes()
        .chain("0123456789abcd\r\n".bytes().cycle().take(4096))
        .collect();
    let now = world.clock.now();
    for number in 0..MAILS / 100 {
        let messages = (0..100).map(|index| NewMessage {
            id: crate::new_id(now),
            sender: Sender::new(ReversePath::Null),
            recipients: vec![NewRecipient {
                recipient: to(&[&format!("user{number}-{index}@moon.example")]).remove(0),
                destination: "moon.example".into(),
                due: now,
                expires: world.later(),
                notice: None,
            }],
            body: NewBody::Inline(body.clone().into()),
            facts: facts(&body),
            priority: 0,
            origin: "test".into(),
            origin_id: None,
            upstream: None,
            accepted: now,
            hold: None,
            notes: Vec::new(),
        });
        let submission = Submission {
            key: None,
            reply: StoredReply::default(),
            messages: messages.collect(),
            charges: Vec::new(),
        };
        world.store.enqueue(submission).await.unwrap();
    }
    let begun = world.clock.instant();
    world.start();
    sink.wait_for(MAILS).await;
    let took = world.clock.instant().duration_since(begun);
    println!(
        "{MAILS} mails in {took:?}: {:.0}/s",
        MAILS as f64 / took.as_secs_f64()
    );
    world.onward.take().unwrap().stop().await;
    assert_eq!(world.store.totals().await.unwrap().messages, 0);
}
