//! The dispatcher with a real store and a transport that does as it is told.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{HeaderMap, StatusCode};
use lightpost_mail::{
    Recipient, Sender,
    lines::{BareLineEnds, Canonicaliser},
};
use lightpost_queue::{
    Filter, MessageView, NewBody, NewMessage, NewRecipient, Status, StoredReply, Submission,
};
use lightpost_sim::sink::{Sink, SinkOptions};
use lightpost_transport::{Exchange, Failure, Outcome, Reply};
use ulid::Ulid;

use super::*;
use crate::Client;

/// What a transport was asked to send.
#[derive(Clone, Debug)]
struct Sent {
    id: Ulid,
    gateway: String,
    headers: HeaderMap,
    object: Vec<u8>,
}

type Script = dyn Fn(&Sent) -> Outcome + Send + Sync;

/// A transport that does as it is told.
struct Scripted {
    script: Box<Script>,
    sent: Mutex<Vec<Sent>>,
    news: Notify,
    /// How long a failure to connect takes.
    connecting: Duration,
}

impl Scripted {
    fn slow(connecting: Duration, script: impl Fn(&Sent) -> Outcome + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            script: Box::new(script),
            sent: Mutex::default(),
            news: Notify::new(),
            connecting,
        })
    }

    fn new(script: impl Fn(&Sent) -> Outcome + Send + Sync + 'static) -> Arc<Self> {
        Self::slow(Duration::ZERO, script)
    }

    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn wait_for(&self, count: usize) -> Vec<Sent> {
        let clock = Clock::system();
        clock
            .timeout(Duration::from_secs(20), async {
                loop {
                    let news = self.news.notified();
                    let sent = self.sent();
                    if sent.len() >= count {
                        return sent;
                    }
                    news.await;
                }
            })
            .await
            .unwrap_or_else(|_| panic!("only {} of {count} exchanges left", self.sent().len()))
    }
}

#[async_trait::async_trait]
impl Transport for Scripted {
    async fn send(&self, exchange: Exchange, _: Timestamp) -> Outcome {
        let octets: Vec<Bytes> = exchange.object.open().try_collect().await.unwrap();
        let octets = octets.concat();
        let encoded = exchange.headers.contains_key("content-encoding");
        let sent = Sent {
            id: exchange.id,
            gateway: exchange.gateway.to_string(),
            headers: exchange.headers,
            object: if encoded {
                zstd::decode_all(&octets[..]).unwrap()
            } else {
                octets
            },
        };
        let outcome = (self.script)(&sent);
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sent);
        self.news.notify_one();
        match outcome {
            Outcome::Failed(Failure::Unreachable { .. }) => {
                Clock::system().sleep(self.connecting).await;
                outcome
            }
            // Stands for "no reply, ever".
            Outcome::Failed(Failure::NoReply { waited, .. }) if waited == Duration::MAX => {
                std::future::pending().await
            }
            outcome => outcome,
        }
    }
}

fn replied(status: u16, body: &str) -> Outcome {
    Outcome::Replied(Reply {
        exchange: Ulid::nil(),
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    })
}

fn unreachable() -> Outcome {
    Outcome::Failed(Failure::Unreachable {
        gateway: "gw".into(),
        cause: "connection refused".into(),
    })
}

fn never() -> Outcome {
    Outcome::Failed(Failure::NoReply {
        gateway: "gw".into(),
        waited: Duration::MAX,
    })
}

/// A client over a scripted transport, with a sink as its local MTA.
struct Bench {
    folder: tempfile::TempDir,
    sink: Sink,
    extra: String,
}

impl Bench {
    async fn new(extra: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = Sink::start(listener, SinkOptions::default(), Clock::system()).unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            sink,
            extra: extra.to_owned(),
        }
    }

    fn config(&self) -> Config {
        let text = format!(
            r#"
            name = "relay.earth.example"
            database = "{}/outbox.db"
            [ingest]
            listen = "127.0.0.1:0"
            [resolver]
            servers = ["127.0.0.1:1"]
            timeout = "200ms"
            [local]
            address = "{}"
            [path.moon]
            one_way_min = "1ms"
            one_way_max = "1ms"
            outage_max = "0s"
            rate_up = "1Gbit/s"
            rate_down = "1Gbit/s"
            retry_first = "50ms"
            retry_longest = "200ms"
            reply_within = "20s"
            {}
            [[route]]
            domain = "one.example"
            path = "moon"
            gateways = ["https://gw1.example/in", "https://gw2.example/in"]
            [[route]]
            domain = "two.example"
            path = "moon"
            gateways = ["https://gw1.example/in"]
            [[route]]
            domain = "three.example"
            path = "moon"
            gateways = ["https://gw3.example/in"]
            [[route]]
            domain = "silent.example"
            path = "moon"
            "#,
            self.folder.path().display(),
            self.sink.address(),
            self.extra,
        );
        Config::from_text(Path::new("client.toml"), &text).unwrap()
    }

    async fn start(&self, transport: &Arc<Scripted>) -> Client {
        Client::start_with(self.config(), Clock::system(), transport.clone())
            .await
            .unwrap()
    }
}

async fn enqueue(
    client: &Client,
    sender: &str,
    recipients: &[&str],
    body: &[u8],
    lifetime: Duration,
) -> Ulid {
    let now = Clock::system().now();
    let mut canonical = Canonicaliser::new(BareLineEnds::Normalise);
    let mut out = Vec::new();
    canonical.push(body, &mut out).unwrap();
    let facts = canonical.finish(&mut out).unwrap();
    let id = crate::ids::new(now);
    let sender: Sender = sender.parse().unwrap();
    let body = if out.len() as u64 > object::SMALL {
        let body = client.store().begin_body().await.unwrap();
        for chunk in out.chunks(100_000) {
            let chunk = Bytes::copy_from_slice(chunk);
            client.store().append_body(body, chunk).await.unwrap();
        }
        NewBody::Spooled(body)
    } else {
        NewBody::Inline(out.into())
    };
    let message = NewMessage {
        id,
        sender,
        recipients: recipients
            .iter()
            .map(|text| {
                let recipient: Recipient = text.parse().unwrap();
                NewRecipient {
                    destination: recipient.address.destination(),
                    recipient,
                    due: now,
                    expires: add(now, lifetime),
                }
            })
            .collect(),
        body,
        facts,
        priority: 0,
        origin: "rest".into(),
        origin_id: None,
        accepted: now,
        hold: None,
    };
    let submission = Submission {
        key: None,
        reply: StoredReply::default(),
        messages: vec![message],
    };
    client.store().enqueue(submission).await.unwrap();
    id
}

const DAY: Duration = Duration::from_secs(86_400);
const MAIL: &[u8] = b"Subject: hello\n\n.dot\nbody\n";

/// Waits until `fits`.
async fn until(client: &Client, id: Ulid, fits: impl Fn(&MessageView) -> bool) -> MessageView {
    let clock = Clock::system();
    for _ in 0..1000 {
        let view = client.store().message(id).await.unwrap().unwrap();
        if fits(&view) {
            return view;
        }
        clock.sleep(Duration::from_millis(20)).await;
    }
    panic!("never so: {:#?}", client.store().message(id).await.unwrap());
}

fn all(status: Status) -> impl Fn(&MessageView) -> bool {
    move |view| view.recipients.iter().all(|one| one.status == status)
}

fn domains(sent: &Sent) -> Vec<String> {
    String::from_utf8_lossy(&sent.object)
        .lines()
        .filter_map(|line| Some(line.strip_prefix("RCPT TO:<")?.split('>').next()?.to_owned()))
        .collect()
}

#[tokio::test]
async fn recipients_at_two_gateways_are_split_and_those_behind_one_travel_together() {
    let mut bench = Bench::new("").await;
    let token = bench.folder.path().join("token");
    std::fs::write(&token, "0123456789\n").unwrap();
    bench.extra = format!("token = \"{}\"", token.display());
    let transport = Scripted::new(|_| replied(202, ""));
    let client = bench.start(&transport).await;
    let to = ["<a@one.example> NOTIFY=NEVER", "b@two.example", "c@three.example"];
    let id = enqueue(&client, "s@earth.example", &to, MAIL, DAY).await;
    until(&client, id, all(Status::Delivered)).await;
    let sent: BTreeMap<String, Sent> = transport
        .sent()
        .into_iter()
        .map(|one| (one.gateway.clone(), one))
        .collect();
    assert_eq!(transport.sent().len(), 2);
    assert_eq!(
        domains(&sent["https://gw1.example/in"]),
        ["a@one.example", "b@two.example"]
    );
    assert_eq!(domains(&sent["https://gw3.example/in"]), ["c@three.example"]);
    let one = &sent["https://gw1.example/in"];
    assert!(one.object.ends_with(b"\r\n..dot\r\nbody\r\n.\r\nQUIT\r\n"));
    assert_eq!(one.headers["idempotency-key"], format!("\"{}\"", one.id));
    assert_eq!(one.headers["authorization"], "Bearer 0123456789");
    assert!(
        one.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/batch-SMTP; required-extensions=\"")
    );
    let digest: [u8; 32] =
        sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(&one.object)).into();
    assert_eq!(
        one.headers["unencoded-digest"],
        lightpost_intake::fields::digest_value(&digest)
    );
    client.stop().await;
}

#[tokio::test]
async fn a_dead_gateway_hands_over_to_the_next_at_once() {
    let bench = Bench::new("").await;
    let transport = Scripted::new(|sent| match sent.gateway.as_str() {
        "https://gw1.example/in" => unreachable(),
        _ => replied(202, ""),
    });
    let client = bench.start(&transport).await;
    let id = enqueue(&client, "s@earth.example", &["a@one.example"], MAIL, DAY).await;
    let view = until(&client, id, all(Status::Delivered)).await;
    let sent = transport.sent();
    let gateways: Vec<&str> = sent.iter().map(|one| one.gateway.as_str()).collect();
    assert_eq!(gateways, ["https://gw1.example/in", "https://gw2.example/in"]);
    assert_ne!(sent[0].id, sent[1].id, "another gateway means another exchange");
    assert_eq!(
        view.recipients[0].attempts, 0,
        "handing over is no failed attempt"
    );
    client.stop().await;
}

#[tokio::test]
async fn a_dead_gateway_is_knocked_at_once_for_all_and_probed_by_one() {
    let bench = Bench::new("").await;
    let up = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = up.clone();
    let transport = Scripted::new(move |_| match seen.load(std::sync::atomic::Ordering::SeqCst) {
        true => replied(202, ""),
        false => unreachable(),
    });
    let client = bench.start(&transport).await;
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(enqueue(&client, "s@earth.example", &["a@three.example"], MAIL, DAY).await);
    }
    // Each knock after the first round is a single probe.
    let first = transport.wait_for(1).await.len();
    let probes = transport.wait_for(first + 3).await.len();
    assert!(probes < 190, "{probes} knocks");
    up.store(true, std::sync::atomic::Ordering::SeqCst);
    for id in ids {
        until(&client, id, all(Status::Delivered)).await;
    }
    client.stop().await;
}

#[tokio::test]
async fn after_a_restart_the_same_exchange_goes_to_the_same_gateway() {
    let bench = Bench::new("").await;
    let silent = Scripted::new(|_| never());
    let client = bench.start(&silent).await;
    let id = enqueue(
        &client,
        "s@earth.example",
        &["a@one.example", "b@one.example"],
        MAIL,
        DAY,
    )
    .await;
    let first = silent.wait_for(1).await.remove(0);
    until(&client, id, all(Status::Awaiting)).await;
    drop(client);
    let transport = Scripted::new(|_| replied(202, ""));
    let client = bench.start(&transport).await;
    until(&client, id, all(Status::Delivered)).await;
    let again = transport.sent().remove(0);
    assert_eq!(
        (again.id, &again.gateway, &again.object),
        (first.id, &first.gateway, &first.object)
    );
    assert_eq!(transport.sent().len(), 1);
    client.stop().await;
}

#[tokio::test]
async fn an_interrupted_exchange_is_repeated_as_it_was() {
    let bench = Bench::new("").await;
    let count = std::sync::atomic::AtomicUsize::new(0);
    let transport = Scripted::new(
        move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Outcome::Failed(Failure::Interrupted {
                gateway: "gw1".into(),
                cause: "reset".into(),
            }),
            1 => replied(500, ""),
            // Unreachable now, but the first one may have arrived: no other gateway may take it.
            2 => unreachable(),
            // Nor does a refusal of this copy say anything about the first one.
            3 => replied(503, ""),
            4 => replied(429, ""),
            5 => replied(401, ""),
            _ => replied(200, ""),
        },
    );
    let client = bench.start(&transport).await;
    let id = enqueue(&client, "s@earth.example", &["a@one.example"], MAIL, DAY).await;
    until(&client, id, all(Status::Delivered)).await;
    let sent = transport.sent();
    assert_eq!(sent.len(), 7);
    assert!(sent.iter().all(|one| {
        one.gateway == sent[0].gateway && one.id == sent[0].id && one.object == sent[0].object
    }));
    client.stop().await;
}

#[tokio::test]
async fn a_conflict_is_answered_by_a_new_exchange_only_when_nothing_went_before() {
    for repeated in [false, true] {
        let bench = Bench::new("").await;
        let count = std::sync::atomic::AtomicUsize::new(usize::from(!repeated));
        let transport =
            Scripted::new(
                move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                    0 => replied(500, ""),
                    1 => replied(409, ""),
                    _ => replied(202, ""),
                },
            );
        let client = bench.start(&transport).await;
        let id = enqueue(&client, "s@earth.example", &["a@one.example"], MAIL, DAY).await;
        let expected = if repeated { Status::Held } else { Status::Delivered };
        until(&client, id, all(expected)).await;
        let sent = transport.sent();
        assert_eq!(sent.len(), 2);
        assert_eq!(sent[0].id == sent[1].id, repeated);
        client.stop().await;
    }
}

#[tokio::test]
async fn a_reply_that_may_hide_refusals_holds_the_mail() {
    for body in [
        r#"{"recipients":[{"address":"a@one.example","status":"refu"#,
        r#"{"recipients":[{"address":"x@one.example","status":"refused","code":"5.1.1"}]}"#,
    ] {
        let bench = Bench::new("").await;
        let transport = Scripted::new(move |_| replied(202, body));
        let client = bench.start(&transport).await;
        let id = enqueue(&client, "s@earth.example", &["a@one.example"], MAIL, DAY).await;
        until(&client, id, all(Status::Held)).await;
        client.stop().await;
    }
}

#[tokio::test]
async fn the_recipients_of_an_exchange_stay_together() {
    let bench = Bench::new("").await;
    let first = std::sync::atomic::AtomicBool::new(true);
    let transport = Scripted::new(move |sent| {
        let both = domains(sent).len() == 2;
        match both && first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            true => Outcome::Failed(Failure::Interrupted {
                gateway: "gw1".into(),
                cause: "reset".into(),
            }),
            false if both => replied(202, ""),
            false => panic!("parted"),
        }
    });
    let client = bench.start(&transport).await;
    let id = enqueue(
        &client,
        "s@earth.example",
        &["a@one.example", "b@two.example"],
        MAIL,
        DAY,
    )
    .await;
    until(&client, id, all(Status::Delivered)).await;
    assert_eq!(transport.sent().len(), 2);
    assert_eq!(transport.sent()[0].id, transport.sent()[1].id);
    client.stop().await;
}

/// Connecting to the first gateway takes a while and comes to nothing.
#[tokio::test]
async fn a_dead_first_gateway_costs_few_mails_its_connecting_time() {
    let bench = Bench::new("").await;
    let transport = Scripted::slow(Duration::from_millis(300), |sent| match sent.gateway.as_str() {
        "https://gw1.example/in" => unreachable(),
        _ => replied(202, ""),
    });
    let client = bench.start(&transport).await;
    let clock = Clock::system();
    let start = clock.instant();
    while start.elapsed() < Duration::from_secs(2) {
        let id = enqueue(&client, "s@earth.example", &["a@one.example"], MAIL, DAY).await;
        until(&client, id, all(Status::Delivered)).await;
    }
    let knocks = transport
        .sent()
        .iter()
        .filter(|one| one.gateway.contains("gw1"))
        .count();
    assert!(
        knocks <= 2,
        "{knocks} knocks, although the block itself is 200 ms at most"
    );
    client.stop().await;
}

#[tokio::test]
async fn what_cannot_leave_is_not_written_to_again_and_again() {
    let bench = Bench::new("").await;
    let transport = Scripted::new(|_| unreachable());
    let client = bench.start(&transport).await;
    let mut ids = Vec::new();
    for _ in 0..300 {
        ids.push(enqueue(&client, "s@earth.example", &["a@three.example"], MAIL, DAY).await);
    }
    let knocks = transport.wait_for(1).await.len();
    transport.wait_for(knocks + 5).await;
    let mut events = 0;
    for id in &ids {
        events += client.store().message(*id).await.unwrap().unwrap().history.len();
    }
    let sent = transport.sent().len();
    // Each was accepted; what was tried has two lines for each time.
    assert!(
        events <= ids.len() + 2 * sent + 2,
        "{events} lines of history for {sent} knocks"
    );
    client.stop().await;
}

#[tokio::test]
async fn a_busy_destination_does_not_stop_the_timers_of_others() {
    let bench = Bench::new("concurrency = 1").await;
    let first = std::sync::atomic::AtomicBool::new(true);
    let transport = Scripted::new(move |sent| match sent.gateway.as_str() {
        "https://gw3.example/in" => never(),
        _ if first.swap(false, std::sync::atomic::Ordering::SeqCst) => replied(500, ""),
        _ => replied(202, ""),
    });
    let client = bench.start(&transport).await;
    for _ in 0..3 {
        enqueue(&client, "s@earth.example", &["a@three.example"], MAIL, DAY).await;
    }
    transport.wait_for(1).await;
    let id = enqueue(&client, "s@earth.example", &["a@two.example"], MAIL, DAY).await;
    until(&client, id, all(Status::Delivered)).await;
    client.stop().await;
}

#[tokio::test]
async fn stopping_does_not_wait_for_connections_and_replies() {
    let bench = Bench::new("").await;
    let transport = Scripted::new(|_| never());
    let client = bench.start(&transport).await;
    enqueue(&client, "s@earth.example", &["a@one.example"], MAIL, DAY).await;
    transport.wait_for(1).await;
    let clock = Clock::system();
    let start = clock.instant();
    client.stop().await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());

    let client = bench.start(&transport).await;
    let sent = transport.wait_for(2).await;
    assert_eq!(sent[0].id, sent[1].id, "what was left open is repeated");
    client.stop().await;
}

#[tokio::test]
async fn after_the_time_for_a_reply_another_gateway_takes_over() {
    let bench = Bench::new("").await;
    let config = bench.config();
    assert_eq!(config.paths["moon"].reply(0), Duration::from_secs(20));
    let first = std::sync::atomic::AtomicBool::new(true);
    let transport = Scripted::new(move |sent| match sent.gateway.as_str() {
        "https://gw1.example/in" if first.swap(false, std::sync::atomic::Ordering::SeqCst) => {
            Outcome::Failed(Failure::Interrupted {
                gateway: "gw1".into(),
                cause: "reset".into(),
            })
        }
        "https://gw1.example/in" => unreachable(),
        _ => replied(202, ""),
    });
    let mut config = config;
    if let Some(path) = config.paths.get_mut("moon") {
        path.reply_within = Some(Duration::from_millis(300));
    }
    let client = Client::start_with(config, Clock::system(), transport.clone())
        .await
        .unwrap();
    let id = enqueue(&client, "s@earth.example", &["a@one.example"], MAIL, DAY).await;
    until(&client, id, all(Status::Delivered)).await;
    let sent = transport.sent();
    let last = sent.last().unwrap();
    assert_eq!(last.gateway, "https://gw2.example/in");
    assert_ne!(last.id, sent[0].id);
    assert!(sent[..sent.len() - 1].iter().all(|one| one.id == sent[0].id));
    client.stop().await;
}

#[tokio::test]
async fn refused_mail_comes_back_as_a_notification_and_null_senders_stay_silent() {
    let bench = Bench::new("").await;
    let mut inbox = bench.sink.subscribe(16);
    let transport = Scripted::new(|_| {
        replied(
            202,
            r#"{"recipients":[{"address":"b@one.example","status":"refused","code":"5.1.1","detail":"no such user"}]}"#,
        )
    });
    let client = bench.start(&transport).await;
    let null = enqueue(&client, "<>", &["b@one.example"], MAIL, DAY).await;
    until(&client, null, all(Status::Failed)).await;
    let id = enqueue(
        &client,
        "s@earth.example",
        &["a@one.example", "b@one.example"],
        MAIL,
        DAY,
    )
    .await;
    let dsn = inbox.recv().await.unwrap();
    assert!(dsn.sender.path.is_null());
    assert_eq!(dsn.recipients[0].address.as_str(), "s@earth.example");
    let text = String::from_utf8_lossy(&dsn.body).into_owned();
    for part in [
        "b@one.example",
        "5.1.1",
        "no such user",
        "Subject: hello",
        "Auto-Submitted: auto-replied",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("a@one.example"), "{text}");
    let view = client.store().message(id).await.unwrap().unwrap();
    let statuses: Vec<Status> = view.recipients.iter().map(|one| one.status).collect();
    assert_eq!(statuses, [Status::Delivered, Status::Failed]);
    assert!(
        client
            .store()
            .list(Filter {
                limit: 10,
                ..Filter::default()
            })
            .await
            .unwrap()
            .len()
            == 3
    );
    client.stop().await;
}

#[tokio::test]
async fn mail_that_outlives_its_time_is_returned() {
    let bench = Bench::new("").await;
    let mut inbox = bench.sink.subscribe(16);
    let transport = Scripted::new(|sent| match domains(sent)[0].as_str() {
        "a@three.example" => unreachable(),
        _ => replied(503, r#"{"detail":"closed for maintenance"}"#),
    });
    let client = bench.start(&transport).await;
    let short = Duration::from_millis(400);
    let one = enqueue(&client, "s@earth.example", &["a@three.example"], MAIL, short).await;
    let two = enqueue(&client, "s@earth.example", &["a@two.example"], MAIL, short).await;
    let three = enqueue(&client, "s@earth.example", &["a@silent.example"], MAIL, short).await;
    for id in [one, two, three] {
        until(&client, id, all(Status::Expired)).await;
        let dsn = inbox.recv().await.unwrap();
        assert!(String::from_utf8_lossy(&dsn.body).contains(".4.7"));
    }
    client.stop().await;
}

#[tokio::test]
async fn statuses_lead_to_fates() {
    let bench = Bench::new("").await;
    for (status, expected) in [
        (200, Status::Delivered),
        (400, Status::Failed),
        (401, Status::Queued),
        (403, Status::Queued),
        (404, Status::Failed),
        (413, Status::Failed),
        (415, Status::Failed),
        (422, Status::Failed),
        (429, Status::Queued),
        (503, Status::Queued),
        (507, Status::Queued),
    ] {
        let transport = Scripted::new(move |_| replied(status, ""));
        let mut config = bench.config();
        config.database = bench.folder.path().join(format!("{status}.db"));
        if let Some(path) = config.paths.get_mut("moon") {
            path.retry_first = DAY;
            path.retry_longest = DAY;
        }
        let client = Client::start_with(config, Clock::system(), transport)
            .await
            .unwrap();
        let id = enqueue(&client, "<>", &["a@two.example"], MAIL, DAY * 5).await;
        let view = until(&client, id, |view| {
            view.recipients[0].status == expected && view.recipients[0].detail.is_some()
        })
        .await;
        let attempts = u32::from(expected == Status::Queued);
        assert_eq!(view.recipients[0].attempts, attempts, "{status}");
        client.stop().await;
    }
}

#[tokio::test]
async fn one_slow_gateway_does_not_hold_up_another() {
    let bench = Bench::new("concurrency = 2").await;
    let transport = Scripted::new(|sent| match sent.gateway.as_str() {
        "https://gw3.example/in" => never(),
        _ => replied(202, ""),
    });
    let client = bench.start(&transport).await;
    for _ in 0..20 {
        enqueue(&client, "s@earth.example", &["a@three.example"], MAIL, DAY).await;
    }
    for _ in 0..20 {
        let id = enqueue(&client, "s@earth.example", &["a@two.example"], MAIL, DAY).await;
        until(&client, id, all(Status::Delivered)).await;
    }
    let slow = transport
        .sent()
        .iter()
        .filter(|one| one.gateway.contains("gw3"))
        .count();
    assert_eq!(slow, 2, "no more than the gateway's concurrency");
    drop(client);
}

#[tokio::test]
async fn large_bodies_cross_whole_in_both_encodings() {
    for encoding in ["zstd", "identity"] {
        let bench = Bench::new(&format!("encoding = \"{encoding}\"")).await;
        let transport = Scripted::new(|_| replied(202, ""));
        let client = bench.start(&transport).await;
        let mut body = b"Subject: large\r\n\r\n".to_vec();
        for line in 0..60_000 {
            body.extend_from_slice(format!(".{line} and some text\r\n").as_bytes());
        }
        let id = enqueue(&client, "s@earth.example", &["a@one.example"], &body, DAY).await;
        until(&client, id, all(Status::Delivered)).await;
        let sent = transport.sent().remove(0);
        assert_eq!(sent.headers.contains_key("content-encoding"), encoding == "zstd");
        let text = String::from_utf8(sent.object).unwrap();
        let (_, carried) = text.split_once("\r\nDATA\r\n").unwrap();
        let expected = String::from_utf8(body).unwrap().replace("\r\n.", "\r\n..");
        assert_eq!(carried, format!("{expected}.\r\nQUIT\r\n"));
        client.stop().await;
    }
}

/// Run by hand: `cargo test --release -p lightpost-client -- --ignored --nocapture throughput`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput() {
    const MAILS: usize = 20_000;
    let bench = Bench::new("encoding = \"identity\"").await;
    let held = Scripted::new(|_| never());
    let client = bench.start(&held).await;
    let mut mail = b"Subject: x\r\n\r\n".to_vec();
    mail.resize(4096, b'x');
    let client = Arc::new(client);
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (client, mail) = (client.clone(), mail.clone());
            tokio::spawn(async move {
                for _ in 0..MAILS / 64 {
                    enqueue(&client, "s@earth.example", &["a@two.example"], &mail, DAY).await;
                }
            })
        })
        .collect();
    futures_util::future::join_all(tasks).await;
    Arc::into_inner(client).unwrap().stop().await;
    let transport = Scripted::new(|_| replied(202, ""));
    let clock = Clock::system();
    let start = clock.instant();
    let client = bench.start(&transport).await;
    let delivered = || async {
        let totals = client.store().totals().await.unwrap();
        totals.recipients.get("delivered").copied().unwrap_or_default()
    };
    while delivered().await < (MAILS / 64 * 64) as u64 {
        clock.sleep(Duration::from_millis(20)).await;
    }
    println!("{:.0} mails/s", MAILS as f64 / start.elapsed().as_secs_f64());
    client.stop().await;
}
