//! Ingestion through its router, with a real store.

use std::path::Path;

use axum::body::Bytes;
use http::{Method, Request as HttpRequest};
use http_body_util::BodyExt;
use lightpost_clock::Clock;
use lightpost_queue::{Claim, Filter, Store, sqlite::SqliteStore};
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::{config::Config, discover::Discovery};

struct Bench {
    router: Router,
    store: Arc<dyn Store>,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new(ingest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display();
        std::fs::write(folder.path().join("tokens"), "mta 0123456789\n").unwrap();
        let text = format!(
            r#"
            name = "relay.earth.example"
            database = "{root}/outbox.db"
            [ingest]
            listen = "127.0.0.1:0"
            {}
            [resolver]
            servers = ["127.0.0.1:1"]
            [local]
            address = "127.0.0.1:25"
            [path.moon]
            one_way_min = "1ms"
            one_way_max = "1ms"
            outage_max = "0s"
            rate_up = "1Gbit/s"
            rate_down = "1Gbit/s"
            [[route]]
            domain = "moon.example"
            path = "moon"
            "#,
            ingest.replace("ROOT", &root.to_string())
        );
        let config = Arc::new(Config::from_text(Path::new("client.toml"), &text).unwrap());
        let clock = Clock::system();
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(&config.database, clock.clone()).await.unwrap());
        let discovery = Arc::new(Discovery::new(&config, clock.clone()).unwrap());
        Self {
            router: router(
                Arc::new(Acceptance {
                    config,
                    store: store.clone(),
                    discovery,
                    clock,
                    screen: None,
                }),
                Arc::new(crate::dispatch::Gateways::default()),
            ),
            store,
            _folder: folder,
        }
    }

    async fn ask(&self, request: HttpRequest<Body>) -> (u16, HeaderMap, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let octets = body.collect().await.unwrap().to_bytes();
        let kind = &parts.headers[header::CONTENT_TYPE];
        if !parts.status.is_success() {
            assert_eq!(kind, "application/problem+json");
        }
        let value = serde_json::from_slice(&octets).unwrap();
        (parts.status.as_u16(), parts.headers, value)
    }

    async fn mail(&self, query: &str, key: Option<&str>, body: impl Into<Body>) -> (u16, HeaderMap, Value) {
        let mut request =
            HttpRequest::post(format!("/v1/messages?{query}")).header("content-type", "message/rfc822");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.ask(request.body(body.into()).unwrap()).await
    }

    async fn batch(&self, body: impl Into<Body>) -> (u16, HeaderMap, Value) {
        let request = HttpRequest::post("/v1/messages").header("content-type", "application/batch-SMTP");
        self.ask(request.body(body.into()).unwrap()).await
    }

    async fn count(&self) -> usize {
        let filter = Filter {
            limit: 100,
            ..Filter::default()
        };
        self.store.list(filter).await.unwrap().len()
    }

    /// The body of the only message.
    async fn body(&self) -> Vec<u8> {
        let now = Clock::system().now();
        let claim = Claim {
            owner: "test",
            destination: "moon.example",
            now,
            until: add(now, Duration::from_secs(60)),
            limit: 10,
        };
        let claimed = self.store.claim(claim).await.unwrap();
        let [message] = claimed.as_slice() else {
            panic!("{} messages", claimed.len());
        };
        let mut octets = Vec::new();
        loop {
            let chunk = self
                .store
                .read_body(message.body, octets.len() as u64)
                .await
                .unwrap();
            if chunk.is_empty() {
                assert_eq!(message.facts.size, octets.len() as u64);
                return octets;
            }
            octets.extend_from_slice(&chunk);
        }
    }
}

const QUERY: &str = "from=a@earth.example&to=b@moon.example";

#[tokio::test]
async fn a_mail_is_stored_canonical_with_our_trace_field() {
    let bench = Bench::new("").await;
    let query = "from=%3Ca@earth.example%3E%20ENVID=x&to=%3Cb@moon.example%3E%20NOTIFY=FAILURE&to=c@elsewhere.example&to=bad";
    let (status, _, said) = bench.mail(query, None, "Subject: x\n\nbody é").await;
    assert_eq!(status, 202, "{said}");
    let recipients = said["recipients"].as_array().unwrap();
    let statuses: Vec<_> = recipients
        .iter()
        .map(|one| (&one["status"], &one["code"]))
        .collect();
    assert_eq!(
        serde_json::json!(statuses),
        serde_json::json!([["queued", "2.1.5"], ["refused", "5.1.2"], ["refused", "5.1.3"]])
    );
    let body = String::from_utf8(bench.body().await).unwrap();
    let (trace, rest) = body.split_once("\r\nSubject").unwrap();
    assert!(
        trace.starts_with("Received: ") && trace.contains("by relay.earth.example"),
        "{trace}"
    );
    assert!(trace.contains(said["id"].as_str().unwrap()), "{trace}");
    assert_eq!(rest, ": x\r\n\r\nbody é\r\n");
}

#[tokio::test]
async fn a_time_to_deliver_by_is_kept_or_refused() {
    let bench = Bench::new("").await;
    let (status, _, said) = bench
        .mail("from=%3Ca@b.example%3E%20BY=0;R&to=b@moon.example", None, "x")
        .await;
    assert_eq!((status, said["code"].as_str()), (422, Some("5.5.4")), "{said}");
    let from = "from=%3Ca@b.example%3E%20BY=90;R&to=b@moon.example";
    let (status, _, said) = bench.mail(from, None, "x").await;
    assert_eq!(status, 202, "{said}");
    let stored = bench
        .store
        .list(Filter {
            limit: 1,
            ..Filter::default()
        })
        .await
        .unwrap();
    let [message] = stored.as_slice() else {
        panic!("{stored:?}")
    };
    assert_eq!(
        message.recipients[0].expires,
        // Less the millisecond that the light needs.
        add(message.accepted, Duration::from_millis(89_999))
    );
    let mars = Bench::new("").await;
    // The route of the bench is a millisecond long; this one is a light-hour.
    let far = Path::new("client.toml");
    let text = FAR.replace("ROOT", &mars._folder.path().display().to_string());
    let config = Arc::new(Config::from_text(far, &text).unwrap());
    let clock = Clock::system();
    let acceptance = Acceptance {
        discovery: Arc::new(Discovery::new(&config, clock.clone()).unwrap()),
        store: mars.store.clone(),
        config,
        clock,
        screen: None,
    };
    let (sender, recipient) = ("<a@b.example> BY=90;R", "<b@moon.example>");
    let refusal = acceptance
        .recipient(
            &mut acceptance.draft(),
            &sender.parse().unwrap(),
            &recipient.parse().unwrap(),
        )
        .unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "550 5.4.7 it is to be delivered within 1m30s and light alone needs 1h"
    );
}

const FAR: &str = r#"
    name = "relay.earth.example"
    database = "ROOT/far.db"
    [ingest]
    listen = "127.0.0.1:0"
    [resolver]
    servers = ["127.0.0.1:1"]
    [local]
    address = "127.0.0.1:25"
    [path.far]
    one_way_min = "1h"
    one_way_max = "1h"
    outage_max = "0s"
    rate_up = "1Mbit/s"
    rate_down = "1Mbit/s"
    [[route]]
    domain = "moon.example"
    path = "far"
"#;

#[tokio::test]
async fn large_mails_are_stored_whole() {
    let bench = Bench::new("").await;
    let line = [b'x'; 1500];
    let mut body = b"Subject: large\r\n\r\n".to_vec();
    for _ in 0..700 {
        body.extend_from_slice(&line);
        body.extend_from_slice(b"\r\n");
    }
    let chunks: Vec<_> = body
        .chunks(7001)
        .map(Bytes::copy_from_slice)
        .map(Ok::<_, std::io::Error>)
        .collect();
    let stream = Body::from_stream(futures_util::stream::iter(chunks));
    let (status, _, said) = bench.mail(QUERY, None, stream).await;
    assert_eq!(status, 202, "{said}");
    assert!(bench.body().await.ends_with(&body));
}

#[tokio::test]
async fn a_key_answers_again_and_refuses_other_content() {
    let bench = Bench::new("").await;
    let (status, _, first) = bench.mail(QUERY, Some("k1"), "x").await;
    assert_eq!(status, 202);
    let (status, _, again) = bench.mail(QUERY, Some("\"k1\""), "x").await;
    assert_eq!((status, &again), (202, &first));
    let (status, _, _) = bench.mail(QUERY, Some("k1"), "y").await;
    assert_eq!(status, 409);
    let other = "from=a@earth.example&to=c@moon.example";
    let (status, _, _) = bench.mail(other, Some("k1"), "x").await;
    assert_eq!(status, 409);
    assert_eq!(bench.count().await, 1);
}

#[tokio::test]
async fn what_is_wrong_is_said_with_code_and_place() {
    let bench = Bench::new("max_message = \"1kB\"\nbare_line_ends = \"refuse\"\nmax_recipients = 2").await;
    let received = "Received: by relay.earth.example; now\r\n".repeat(3);
    let many = "Received: by other.example; now\r\n".repeat(51);
    let big = vec![b'x'; 2_000_000];
    let fits_the_wire = vec![b'x'; 1_001];
    let null_to = "from=&to=%3C%3E";
    let large = "from=%3Ca@b.example%3E%20SIZE=9999&to=b@moon.example";
    let cases: [(&str, &[u8], u16, Option<&str>); 14] = [
        ("", b"x", 400, Some("5.5.4")),
        ("from=a@b.example", b"x", 400, Some("5.5.4")),
        ("to=b@moon.example", b"x", 400, Some("5.5.4")),
        (
            "from=a@b.example&from=a@b.example&to=b@moon.example",
            b"x",
            400,
            Some("5.5.4"),
        ),
        (
            "from=a@b.example&to=b@moon.example&cc=x",
            b"x",
            400,
            Some("5.5.4"),
        ),
        ("from=a%20b&to=b@moon.example", b"x", 422, Some("5.1.7")),
        (
            "from=%3Ca@b.example%3E%20BODY=BINARYMIME&to=b@moon.example",
            b"x",
            422,
            Some("5.6.1"),
        ),
        (
            "from=a@b.example&to=b@elsewhere.example",
            b"x",
            422,
            Some("5.1.2"),
        ),
        (null_to, b"x", 422, Some("5.1.3")),
        (QUERY, &big, 413, Some("5.3.4")),
        (QUERY, &fits_the_wire, 413, Some("5.3.4")),
        (large, b"x", 413, Some("5.3.4")),
        (QUERY, received.as_bytes(), 422, Some("5.4.6")),
        (
            "from=a@b.example&to=1@moon.example&to=2@moon.example&to=3@moon.example",
            b"x",
            422,
            Some("5.5.3"),
        ),
    ];
    for (query, body, expected, code) in cases {
        let (status, _, said) = bench.mail(query, None, body.to_vec()).await;
        assert_eq!(
            (status, said["code"].as_str()),
            (expected, code),
            "{query}: {said}"
        );
    }
    let (status, _, said) = bench.mail(QUERY, None, "a: b\r\n\r\nx\ny\r\n").await;
    assert_eq!(
        (status, &said["line"], &said["offset"]),
        (400, &3.into(), &9.into()),
        "{said}"
    );
    let roomy = Bench::new("").await;
    let (status, _, said) = roomy.mail(QUERY, None, many).await;
    assert_eq!((status, said["code"].as_str()), (422, Some("5.4.6")));
    assert_eq!(bench.count().await + roomy.count().await, 0);
}

#[tokio::test]
async fn other_media_types_and_methods_are_refused() {
    let bench = Bench::new("").await;
    for (kind, expected) in [
        (Some("text/plain"), 415),
        (None, 415),
        (
            Some("application/batch-SMTP; required-extensions=\"CHUNKING\""),
            415,
        ),
    ] {
        let mut request = HttpRequest::post(format!("/v1/messages?{QUERY}"));
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let (status, _, said) = bench.ask(request.body(Body::from("x")).unwrap()).await;
        assert_eq!(status, expected, "{kind:?}: {said}");
    }
    let delete = HttpRequest::builder().method(Method::DELETE).uri("/v1/messages");
    assert_eq!(bench.ask(delete.body(Body::empty()).unwrap()).await.0, 405);
    let nowhere = HttpRequest::get("/nowhere").body(Body::empty()).unwrap();
    assert_eq!(bench.ask(nowhere).await.0, 404);
}

#[tokio::test]
async fn complete_transactions_count_although_the_object_breaks() {
    let bench = Bench::new("").await;
    let one = |to: &str| format!("MAIL FROM:<a@earth.example>\nRCPT TO:<{to}>\nDATA\nSubject: x\n\n..y\n.\n");
    let good = format!("{}{}QUIT\n", one("b@moon.example"), one("c@elsewhere.example"));
    let (status, _, said) = bench.batch(good).await;
    assert_eq!(status, 202, "{said}");
    assert_eq!(said["messages"].as_array().unwrap().len(), 2);
    assert!(said["messages"][0]["id"].is_string() && said["messages"][1]["id"].is_null());
    assert!(bench.body().await.ends_with(b"\r\n\r\n.y\r\n"));
    let broken = format!("{}{}WHAT\n", one("b@moon.example"), one("d@moon.example"));
    let (status, _, said) = bench.batch(broken).await;
    assert_eq!(
        (status, &said["line"], &said["transaction"]),
        (400, &15.into(), &3.into()),
        "{said}"
    );
    assert_eq!(said["messages"].as_array().unwrap().len(), 2);
    assert_eq!(bench.count().await, 3);
}

#[tokio::test]
async fn uploads_beyond_the_limit_are_asked_to_come_back() {
    let bench = Bench::new("concurrency = 1\nidle = \"200ms\"").await;
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let stalled = Body::from_stream(futures_util::stream::unfold(Some(sender), |sender| async move {
        // The first poll tells that the upload is under way; then nothing comes any more.
        let _ = sender?.send(());
        std::future::pending::<Option<(Result<Bytes, std::io::Error>, _)>>().await
    }));
    let first = async { bench.mail(QUERY, None, stalled).await };
    let second = async {
        receiver.await.unwrap();
        bench.mail(QUERY, None, "x").await
    };
    let ((first, _, _), (second, headers, _)) = futures_util::join!(first, second);
    assert_eq!((first, second), (408, 429));
    assert!(headers.contains_key(header::RETRY_AFTER));
    let (status, _, _) = bench.mail(QUERY, None, "x").await;
    assert_eq!(status, 202);
}

#[tokio::test]
async fn with_tokens_nobody_passes_without_one() {
    let bench = Bench::new("tokens = \"ROOT/tokens\"").await;
    assert_eq!(bench.mail(QUERY, None, "x").await.0, 401);
    let request = HttpRequest::post(format!("/v1/messages?{QUERY}"))
        .header("content-type", "message/rfc822")
        .header("authorization", "Bearer 0123456789");
    assert_eq!(bench.ask(request.body(Body::from("x")).unwrap()).await.0, 202);
    let list = HttpRequest::get("/v1/messages").body(Body::empty()).unwrap();
    assert_eq!(bench.ask(list).await.0, 401);
}
