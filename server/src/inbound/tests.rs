mod early;
mod refusals;

use std::path::Path;

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use http_body_util::BodyExt;
use lightpost_queue::{Filter, MessageView, sqlite::SqliteStore};
use lightpost_transport::Carrier;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use super::*;

const CONFIG: &str = r#"
name = "gw1.moon.example"
database = "inbox.db"
[listen]
https = "127.0.0.1:0"
certificate = "cert.pem"
key = "cert.pem"
client_trust = "cert.pem"
[accept]
domains = ["moon.example", "*.moon.example"]
max_message = "1MB"
concurrency = 4
[[peer]]
name = "relay.earth.example"
token = "relay.token"
[[peer]]
name = "narrow.earth.example"
senders = ["only.example"]
[local]
address = "127.0.0.1:2525"
"#;

/// A gateway's router over a real inbox, without onward delivery.
struct World {
    router: Router,
    store: Arc<dyn Store>,
    _folder: tempfile::TempDir,
}

/// What came back.
#[derive(Debug, PartialEq)]
struct Answered {
    status: StatusCode,
    media_type: String,
    body: Vec<u8>,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl World {
    async fn new() -> Self {
        Self::on(Clock::system()).await
    }

    async fn on(clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), "").unwrap();
        std::fs::write(folder.path().join("relay.token"), "a-token-of-ours\n").unwrap();
        let config = Config::from_text(&folder.path().join("server.toml"), CONFIG).unwrap();
        let database: &Path = &config.database;
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(database, clock.clone()).await.unwrap());
        Self {
            router: router(Arc::new(config), store.clone(), None, clock),
            store,
            _folder: folder,
        }
    }

    async fn send(&self, request: http::Request<Body>) -> Answered {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let media_type = response
            .headers()
            .get("content-type")
            .map_or(String::new(), |value| value.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        Answered {
            status,
            media_type,
            body,
        }
    }

    async fn messages(&self) -> Vec<MessageView> {
        let filter = Filter {
            limit: 100,
            ..Filter::default()
        };
        self.store.list(filter).await.unwrap()
    }

    async fn body_of(&self, message: &MessageView) -> String {
        let claim = lightpost_queue::Claim {
            owner: "test",
            destination: &message.recipients[0].destination,
            now: jiff::Timestamp::MAX,
            until: jiff::Timestamp::MAX,
            limit: 100,
        };
        let claimed = self.store.claim(claim).await.unwrap();
        let body = claimed.iter().find(|one| one.id == message.id).unwrap().body;
        let mut octets = Vec::new();
        loop {
            let chunk = self.store.read_body(body, octets.len() as u64).await.unwrap();
            if chunk.is_empty() {
                return String::from_utf8(octets).unwrap();
            }
            octets.extend_from_slice(&chunk);
        }
    }
}

fn object(sender: &str, recipients: &[&str], body: &str) -> String {
    let recipients: String = recipients
        .iter()
        .map(|recipient| format!("RCPT TO:<{recipient}>\r\n"))
        .collect();
    format!("MAIL FROM:<{sender}>\r\n{recipients}DATA\r\n{body}\r\n.\r\n")
}

#[tokio::test]
async fn the_time_to_deliver_by_counts_from_the_begin_of_the_exchange() {
    let world = World::new().await;
    let now = Clock::system().now();
    let begun = |hours: u32, number| {
        let begun = lightpost_clock::sub(now, Duration::from_secs(3600) * hours);
        Ulid::from_parts(begun.as_millisecond() as u64, number).to_string()
    };
    // The sender gave it two hours, the light takes one or three.
    for (key, by, left) in [
        (begun(1, 1), "7200;R", 3600),
        ("tells-no-time".replace('-', ""), "7200;R", 7200),
        (begun(3, 1), "7200;R", -3600),
        (begun(3, 2), "7200;N", 5 * 86_400),
    ] {
        let object = small().replace("@earth.example>\r\n", &format!("@earth.example> BY={by}\r\n"));
        let media_type = "application/batch-SMTP; required-extensions=\"SIZE,DELIVERBY\"";
        let quoted = format!("\"{key}\"");
        let fields = [("content-type", media_type), ("idempotency-key", &quoted)];
        let answered = world.send(request(object, &fields)).await;
        assert_eq!(answered.status, StatusCode::ACCEPTED, "{answered:?}");
        let messages = world.messages().await;
        let of_key = |message: &&MessageView| message.origin_id.as_deref() == Some(&key);
        let message = messages.iter().find(of_key).unwrap();
        let got = message.recipients[0].expires.as_second() - message.accepted.as_second();
        assert!((left - 60..=left).contains(&got), "{key} {by}: {got}");
    }
}

fn small() -> String {
    object(
        "alice@earth.example",
        &["bob@moon.example"],
        "Subject: hello\r\n\r\nacross",
    )
}

fn identity(name: &str) -> PeerIdentity {
    PeerIdentity {
        names: vec![name.to_owned()],
        address: Some("127.0.0.1:1".parse().unwrap()),
        endpoint: None,
        carrier: Carrier::Http3,
    }
}

/// A request of the relay's with further fields.
fn request(body: impl Into<Body>, fields: &[(&str, &str)]) -> http::Request<Body> {
    from_peer("relay.earth.example", body, fields)
}

fn from_peer(peer: &str, body: impl Into<Body>, fields: &[(&str, &str)]) -> http::Request<Body> {
    let mut builder = http::Request::post("/inboundmail").extension(identity(peer));
    if !fields.iter().any(|(name, _)| *name == "content-type") {
        builder = builder.header(
            "content-type",
            "application/batch-SMTP; required-extensions=\"8BITMIME,SIZE\"",
        );
    }
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(body.into()).unwrap()
}

fn digest(body: &str) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body.as_bytes())))
}

#[tokio::test]
async fn an_exchange_is_on_disk_with_our_trace_field() {
    let world = World::new().await;
    let answer = world
        .send(request(small(), &[("idempotency-key", "\"01EXCHANGE\"")]))
        .await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::ACCEPTED, 0));
    assert_eq!(answer.media_type, "");
    let messages = world.messages().await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].sender, "alice@earth.example");
    assert_eq!(messages[0].origin, "relay.earth.example");
    assert_eq!(messages[0].origin_id.as_deref(), Some("01EXCHANGE"));
    let body = world.body_of(&messages[0]).await;
    let (trace, rest) = body.split_at(body.find("Subject:").unwrap());
    assert_eq!(rest, "Subject: hello\r\n\r\nacross\r\n");
    assert!(trace.starts_with("Received: from relay.earth.example"), "{trace}");
    for part in [
        "by gw1.moon.example",
        "with HTTP/3",
        "id 01EXCHANGE",
        "for <bob@moon.example>",
    ] {
        assert!(trace.contains(part), "{part}: {trace}");
    }
    assert_eq!(messages[0].size, body.len() as u64);
}

#[tokio::test]
async fn a_repeat_gets_the_same_answer_and_brings_nothing_twice() {
    let world = World::new().await;
    let text = object(
        "alice@earth.example",
        &["bob@moon.example", "eve@mars.example"],
        "Subject: x\r\n\r\n..",
    );
    let sum = digest(&text);
    let key = ("idempotency-key", "\"01A\"");
    let first = world.send(request(text.clone(), &[key])).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    assert_eq!(first.json()["recipients"].as_array().unwrap().len(), 1);
    assert_eq!(first.json()["recipients"][0]["address"], "eve@mars.example");
    assert_eq!(first.json()["recipients"][0]["status"], "refused");
    assert_eq!(first.json()["recipients"][0]["code"], "5.7.1");
    // By its body, by its digest field alone (this body is never read), and packed.
    let unread = Body::from_stream(futures_util::stream::pending::<
        Result<bytes::Bytes, std::io::Error>,
    >());
    let mut unread = request(unread, &[key, ("unencoded-digest", &sum)]);
    *unread.version_mut() = http::Version::HTTP_3;
    let packed = zstd::encode_all(text.as_bytes(), 3).unwrap();
    for repeat in [
        request(text.clone(), &[key]),
        unread,
        request(packed, &[key, ("content-encoding", "zstd")]),
    ] {
        assert_eq!(world.send(repeat).await, first);
    }
    assert_eq!(world.messages().await.len(), 1);
    // The same key of another peer is another key.
    let other = world
        .send(from_peer(
            "narrow.earth.example",
            small().replace("earth", "only"),
            &[key],
        ))
        .await;
    assert_ne!(other.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_key_for_other_content_is_a_conflict() {
    let world = World::new().await;
    let key = ("idempotency-key", "01A");
    let other = small().replace("hello", "other");
    let sum = digest(&other);
    world.send(request(small(), &[key])).await;
    for conflict in [
        request(other.clone(), &[key]),
        request(other, &[key, ("unencoded-digest", &sum)]),
    ] {
        let answer = world.send(conflict).await;
        assert_eq!(answer.status, StatusCode::CONFLICT);
        assert_eq!(answer.media_type, "application/problem+json");
    }
    assert_eq!(world.messages().await.len(), 1);
}

#[tokio::test]
async fn without_a_key_every_request_counts() {
    let world = World::new().await;
    for _ in 0..2 {
        assert_eq!(
            world.send(request(small(), &[])).await.status,
            StatusCode::ACCEPTED
        );
    }
    assert_eq!(world.messages().await.len(), 2);
}

#[tokio::test]
async fn what_is_not_what_was_sent_is_not_stored() {
    let world = World::new().await;
    let wrong = digest("something else");
    let broken = futures_util::stream::iter([
        Ok(bytes::Bytes::from(small())),
        Err(std::io::Error::other("reset by peer")),
    ]);
    let bomb = zstd::encode_all(&vec![b'x'; 60_000_000][..], 3).unwrap();
    for (request, status) in [
        (request(small(), &[("unencoded-digest", &wrong)]), 408),
        (request(small(), &[("repr-digest", &wrong)]), 408),
        (request(Body::from_stream(broken), &[]), 408),
        (request(bomb, &[("content-encoding", "zstd")]), 413),
        (request(small(), &[("content-encoding", "zstd")]), 400),
        (request(small(), &[("content-encoding", "gzip")]), 415),
        (request(small(), &[("content-type", "message/rfc822")]), 415),
        (
            request(
                small(),
                &[(
                    "content-type",
                    "application/batch-SMTP; required-extensions=BINARYMIME",
                )],
            ),
            415,
        ),
        (request(small(), &[("idempotency-key", "")]), 400),
        (request(small().replace("\r\n", "\n"), &[]), 400),
        (
            request(
                object("a@b.example", &["bob@moon.example"], &"line\r\n".repeat(200_000)),
                &[],
            ),
            413,
        ),
    ] {
        let described = format!("{:?}", request.headers());
        let answer = world.send(request).await;
        assert_eq!(answer.status.as_u16(), status, "{described}: {answer:?}");
        assert_eq!(answer.media_type, "application/problem+json");
    }
    assert_eq!(world.messages().await.len(), 0);
}

#[tokio::test]
async fn a_bomb_within_the_rules_of_batch_smtp_is_refused() {
    let world = World::new().await;
    let text = object(
        "a@b.example",
        &["bob@moon.example"],
        &"line\r\n".repeat(5_000_000),
    );
    let bomb = zstd::encode_all(text.as_bytes(), 3).unwrap();
    assert!(bomb.len() < 100_000);
    let answer = world.send(request(bomb, &[("content-encoding", "zstd")])).await;
    assert_eq!(answer.status.as_u16(), 413, "{answer:?}");
    assert_eq!(world.messages().await.len(), 0);
}

#[tokio::test]
async fn only_known_peers_hand_over_mail() {
    let world = World::new().await;
    let anonymous = |fields: &[(&str, &str)]| {
        let mut request = request(small(), fields);
        request.extensions_mut().clear();
        request
    };
    for (request, status) in [
        (anonymous(&[]), 401),
        (anonymous(&[("authorization", "Bearer not-the-token")]), 401),
        (from_peer("mallory.example", small(), &[]), 403),
        (anonymous(&[("authorization", "Bearer a-token-of-ours")]), 202),
        (request(small(), &[]), 202),
    ] {
        assert_eq!(world.send(request).await.status.as_u16(), status);
    }
    assert_eq!(world.messages().await.len(), 2);
}

#[tokio::test]
async fn who_is_refused_over_http2_can_send_a_small_object_to_its_end() {
    let world = World::new().await;
    let read = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let end = read.clone();
    let chunks = [Some(bytes::Bytes::from(small())), None].into_iter();
    let body = futures_util::stream::iter(chunks.filter_map(move |chunk| {
        end.store(chunk.is_none(), std::sync::atomic::Ordering::Relaxed);
        chunk.map(Ok::<_, std::io::Error>)
    }));
    let mut request = from_peer("mallory.example", Body::from_stream(body), &[]);
    *request.version_mut() = http::Version::HTTP_2;
    assert_eq!(world.send(request).await.status, StatusCode::FORBIDDEN);
    assert!(read.load(std::sync::atomic::Ordering::Relaxed));
}

/// Two objects that take all of a peer's places until `end` has permits.
async fn take_all(world: &World, end: &Arc<Semaphore>) -> tokio::task::JoinSet<()> {
    let begun = Arc::new(Semaphore::new(0));
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (begun, end) = (begun.clone(), end.clone());
        let chunks = futures_util::stream::once(async move {
            begun.add_permits(1);
            let _ = end.acquire().await;
            Ok::<_, std::io::Error>(bytes::Bytes::new())
        });
        let mut request = request(Body::from_stream(chunks), &[]);
        *request.version_mut() = http::Version::HTTP_3;
        let router = world.router.clone();
        slow.spawn(async move { drop(router.oneshot(request).await) });
    }
    let both = begun.acquire_many(2);
    let both = Clock::system().timeout(Duration::from_secs(20), both).await;
    both.unwrap().unwrap().forget();
    slow
}

#[tokio::test]
async fn a_slow_peer_leaves_room_for_the_others() {
    let now = Clock::system().now();
    let world = World::on(Clock::warp(now, now, 20)).await;
    let _slow = take_all(&world, &Arc::new(Semaphore::new(0))).await;
    let answer = world.send(request(small(), &[])).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let other = small().replace("alice@earth", "alice@only");
    let answer = world.send(from_peer("narrow.earth.example", other, &[])).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
}

#[tokio::test]
async fn who_comes_while_all_places_are_taken_waits_for_one() {
    let world = World::new().await;
    let end = Arc::new(Semaphore::new(0));
    let _slow = take_all(&world, &end).await;
    let mut waiting = Box::pin(world.send(request(small(), &[])));
    let early = Clock::system()
        .timeout(Duration::from_millis(300), &mut waiting)
        .await;
    assert!(early.is_err(), "{early:?}");
    end.add_permits(2);
    assert_eq!(waiting.await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_large_mail_goes_to_the_store_in_chunks_and_comes_out_whole() {
    let world = World::new().await;
    let body = format!("Subject: big\r\n\r\n{}", "0123456789abcdef\r\n".repeat(50_000));
    let text = object("a@earth.example", &["bob@moon.example"], body.trim_end());
    let packed = zstd::encode_all(text.as_bytes(), 3).unwrap();
    let sum = digest(&text);
    let answer = world
        .send(request(
            packed,
            &[("content-encoding", "zstd"), ("unencoded-digest", &sum)],
        ))
        .await;
    assert_eq!(answer.status.as_u16(), 202, "{answer:?}");
    let messages = world.messages().await;
    let stored = world.body_of(&messages[0]).await;
    assert!(stored.ends_with(&body));
}

#[tokio::test]
async fn other_paths_and_methods_are_problems() {
    let world = World::new().await;
    for (request, status) in [
        (http::Request::get("/").body(Body::empty()).unwrap(), 404),
        (
            http::Request::get("/inboundmail").body(Body::empty()).unwrap(),
            405,
        ),
    ] {
        let answer = world.send(request).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.media_type, "application/problem+json");
    }
}

#[tokio::test]
async fn an_object_that_arrives_is_stored_though_nobody_waits_for_the_answer() {
    let world = World::new().await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<bytes::Bytes>(1);
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let chunk = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(chunk), receiver))
    });
    let answering = tokio::spawn(
        world
            .router
            .clone()
            .oneshot(request(Body::from_stream(stream), &[])),
    );
    let text = object("a@b.example", &["bob@moon.example"], &"line\r\n".repeat(100_000));
    let (begun, rest) = text.split_at(text.len() / 2);
    // The channel holds one: the second is taken by it once the first is being read.
    sender.send(begun.to_owned().into()).await.unwrap();
    let (middle, end) = rest.split_at(rest.len() / 2);
    sender.send(middle.to_owned().into()).await.unwrap();
    answering.abort();
    assert!(answering.await.unwrap_err().is_cancelled());
    sender.send(end.to_owned().into()).await.unwrap();
    drop(sender);
    let stored = async {
        while world.messages().await.is_empty() {
            world.store.changed().await;
        }
    };
    Clock::system()
        .timeout(Duration::from_secs(20), stored)
        .await
        .unwrap();
    assert_eq!(world.messages().await.len(), 1);
}
