use std::io::Write;

use axum::body::Body;
use http::{Method, Request as HttpRequest};
use http_body_util::BodyExt;
use lightpost_mail::{Address, Recipient, ReversePath, Sender, lines::BodyFacts};
use lightpost_queue::{NewBody, NewMessage, NewRecipient, StoredReply, Submission, sqlite::SqliteStore};
use serde_json::Value;
use tower::ServiceExt;

use super::*;

struct World {
    router: Router,
    ids: Vec<Ulid>,
    _folder: tempfile::TempDir,
}

impl World {
    /// A queue of five messages, which an MTA had as two mails.
    async fn new(tokens: Option<Arc<Tokens>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let store: Arc<dyn Store> = Arc::new(
            SqliteStore::open(&folder.path().join("q.db"), clock.clone())
                .await
                .unwrap(),
        );
        let ids: Vec<Ulid> = (1..=5).map(|number| Ulid::from_parts(number, 0)).collect();
        let now = clock.now();
        let message = |id: &Ulid| NewMessage {
            id: *id,
            sender: Sender::new(ReversePath::Null),
            recipients: vec![NewRecipient {
                recipient: Recipient::new(Address::parse("b@moon.example").unwrap()),
                destination: "moon.example".into(),
                due: now,
                expires: lightpost_clock::add(now, std::time::Duration::from_secs(3600)),
                notice: None,
            }],
            body: NewBody::Inline("x\r\n".into()),
            facts: BodyFacts {
                size: 3,
                longest_line: 1,
                ..BodyFacts::default()
            },
            priority: 0,
            origin: "test".into(),
            origin_id: None,
            upstream: Some(
                if id.timestamp_ms() == 1 {
                    "4Zx9AbCd"
                } else {
                    "4Zx9AbCf"
                }
                .into(),
            ),
            accepted: now,
            hold: None,
            notes: Vec::new(),
        };
        let submission = Submission {
            key: None,
            reply: StoredReply::default(),
            messages: ids.iter().map(message).collect(),
            charges: Vec::new(),
        };
        store.enqueue(submission).await.unwrap();
        let router = routes(Operator {
            store,
            clock,
            tokens,
            measured: None,
        })
        .fallback(not_found);
        Self {
            router,
            ids,
            _folder: folder,
        }
    }

    async fn ask(&self, method: Method, uri: &str, token: Option<&str>) -> (u16, Value) {
        let mut request = HttpRequest::builder().method(method).uri(uri);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let octets = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&octets).unwrap())
    }

    async fn get(&self, uri: &str) -> (u16, Value) {
        self.ask(Method::GET, uri, None).await
    }
}

#[tokio::test]
async fn listings_go_page_by_page() {
    let world = World::new(None).await;
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let (status, page) = world.get(&format!("/v1/messages?limit=2{after}")).await;
        assert_eq!(status, 200);
        for message in page["messages"].as_array().unwrap() {
            seen.push(message["id"].as_str().unwrap().to_owned());
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let expected: Vec<String> = world.ids.iter().map(Ulid::to_string).collect();
    assert_eq!(seen, expected);
    let (_, page) = world.get("/v1/messages?status=held").await;
    assert_eq!(page["messages"].as_array().unwrap().len(), 0);
    let (_, page) = world
        .get("/v1/messages?destination=MOON.example&status=queued")
        .await;
    assert_eq!(page["messages"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn wrong_questions_are_problems() {
    let world = World::new(None).await;
    let id = world.ids[0];
    let unknown = Ulid::from_parts(99, 0);
    for (method, uri, status) in [
        (Method::GET, "/v1/messages?limit=0".to_owned(), 400),
        (Method::GET, "/v1/messages?limit=1001".to_owned(), 400),
        (Method::GET, "/v1/messages?limit=x".to_owned(), 400),
        (Method::GET, "/v1/messages?status=lost".to_owned(), 400),
        (Method::GET, "/v1/messages?colour=red".to_owned(), 400),
        (Method::GET, "/v1/messages?after=x".to_owned(), 400),
        (Method::GET, "/v1/messages/x".to_owned(), 404),
        (Method::GET, format!("/v1/messages/{unknown}"), 404),
        (Method::POST, format!("/v1/messages/{unknown}/retry"), 404),
        (Method::POST, format!("/v1/messages/{id}/burn"), 404),
        (Method::GET, "/v2".to_owned(), 404),
    ] {
        let (answered, problem) = world.ask(method, &uri, None).await;
        assert_eq!(answered, status, "{uri}: {problem}");
        assert_eq!(problem["status"], status);
        let detail = problem["detail"].as_str().unwrap();
        assert!(!detail.contains("deserialize"), "{detail}");
    }
}

#[tokio::test]
async fn operations_are_done_and_told() {
    let world = World::new(None).await;
    let id = world.ids[0];
    for (operation, changed, status) in [
        ("hold", 1, "held"),
        ("hold", 0, "held"),
        ("release", 1, "queued"),
        ("cancel", 1, "cancelled"),
        ("retry", 0, "cancelled"),
    ] {
        let (answered, body) = world
            .ask(Method::POST, &format!("/v1/messages/{id}/{operation}"), None)
            .await;
        assert_eq!(
            (answered, body["changed"].as_u64()),
            (200, Some(changed)),
            "{operation}"
        );
        let why = (operation == "retry").then_some("it is done");
        assert_eq!(body["unchanged"][0]["why"].as_str(), why, "{body}");
        let (_, view) = world.get(&format!("/v1/messages/{id}")).await;
        assert_eq!(view["recipients"][0]["status"], status, "{operation}");
    }
    let (_, view) = world.get(&format!("/v1/messages/{id}")).await;
    assert!(view["history"].as_array().unwrap().len() >= 4, "{view}");
    let (_, totals) = world.get("/v1/totals").await;
    assert_eq!(totals["messages"], 4);
    assert_eq!(
        world.get("/v1/health").await,
        (200, serde_json::json!({"status": "ok"}))
    );
}

#[tokio::test]
async fn operations_take_the_id_that_a_message_is_known_by() {
    let world = World::new(None).await;
    let (status, body) = world.ask(Method::POST, "/v1/messages/4Zx9AbCd/hold", None).await;
    assert_eq!((status, body["changed"].as_u64()), (200, Some(1)), "{body}");
    let (_, view) = world.get(&format!("/v1/messages/{}", world.ids[0])).await;
    assert_eq!(view["recipients"][0]["status"], "held");
    let (status, problem) = world.ask(Method::POST, "/v1/messages/4Zx9AbCf/hold", None).await;
    assert_eq!(status, 409, "{problem}");
    assert_eq!(problem["messages"].as_array().unwrap().len(), 4);
    let (_, held) = world.get("/v1/messages?status=held").await;
    assert_eq!(held["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn tokens_guard_every_route() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"admin s3cret-one\n").unwrap();
    let tokens = Arc::new(Tokens::load(file.path()).unwrap());
    let world = World::new(Some(tokens)).await;
    let id = world.ids[0];
    for uri in ["/v1/messages", "/v1/totals", "/v1/health"] {
        assert_eq!(world.ask(Method::GET, uri, None).await.0, 401, "{uri}");
        assert_eq!(
            world.ask(Method::GET, uri, Some("wrong-one")).await.0,
            401,
            "{uri}"
        );
        assert_eq!(
            world.ask(Method::GET, uri, Some("s3cret-one")).await.0,
            200,
            "{uri}"
        );
    }
    let hold = format!("/v1/messages/{id}/hold");
    assert_eq!(world.ask(Method::POST, &hold, Some("s3cret-one")).await.0, 200);
    let (_, view) = world
        .ask(Method::GET, &format!("/v1/messages/{id}"), Some("s3cret-one"))
        .await;
    assert!(view["history"].to_string().contains("admin"), "{view}");
}
