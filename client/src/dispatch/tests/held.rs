//! Exchanges that a bundle node holds, and what is heard of them later.

use std::sync::atomic::{AtomicUsize, Ordering};

use lightpost_transport::News;

use super::*;

const CUSTODY: &str = "ipn:1.26/800000000000/0";

fn route(bundle: &str) -> String {
    format!(
        r#"
        [path.space]
        one_way_min = "1ms"
        one_way_max = "1ms"
        rate_up = "1Gbit/s"
        rate_down = "1Gbit/s"
        retry_first = "50ms"
        retry_longest = "200ms"
        transports = ["quic", "bundle"]
        [path.space.bundle]
        {bundle}
        [bundle]
        endpoint = "ipn:1.26"
        store = "bundles"
        [[bundle.listen]]
        address = "127.0.0.1:0"
        [[route]]
        domain = "held.example"
        path = "space"
        gateways = ["https://gw4.example/in#ipn:2.25"]
        "#
    )
}

fn held(span: Duration) -> Outcome {
    Outcome::InCustody {
        until: add(Clock::system().now(), span),
        custody: CUSTODY.into(),
        tried: None,
    }
}

/// News that count how often they were let go.
fn news(news: News) -> (Late, Arc<AtomicUsize>) {
    let done = Arc::new(AtomicUsize::new(0));
    let count = done.clone();
    let late = Late::new(news, move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    (late, done)
}

fn reply(from: &str, exchange: Ulid, status: u16, body: &str) -> News {
    News::Reply {
        from: from.into(),
        reply: Reply {
            exchange,
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        },
    }
}

async fn let_go(done: &AtomicUsize) {
    for _ in 0..1000 {
        if done.load(Ordering::SeqCst) > 0 {
            return;
        }
        Clock::system().sleep(Duration::from_millis(20)).await;
    }
    panic!("never let go");
}

/// A mail to two that a bundle node has.
async fn one_held(transport: &Arc<Scripted>, bench: &Bench) -> (Client, Ulid, Ulid) {
    let client = bench.start(transport).await;
    let to = ["a@held.example", "b@held.example"];
    let id = enqueue(&client, "s@earth.example", &to, MAIL, DAY).await;
    let sent = transport.wait_for(1).await.remove(0);
    assert_eq!(sent.gateway, "https://gw4.example/in#ipn:2.25");
    until(&client, id, |view| {
        view.history.iter().any(|one| one.kind == "awaiting")
    })
    .await;
    (client, id, sent.id)
}

#[tokio::test]
async fn a_reply_in_another_life_settles_each_recipient() {
    let bench = Bench::new("").await.with(&route(""));
    let transport = Scripted::new(|_| held(DAY));
    let (client, id, _) = one_held(&transport, &bench).await;
    client.stop().await;

    let transport = Scripted::new(|_| held(DAY));
    let client = bench.start(&transport).await;
    let view = until(&client, id, all(Status::Awaiting)).await;
    let exchange = view.recipients[0].exchange.unwrap();
    let body = r#"{"recipients":[{"address":"b@held.example","status":"refused","code":"5.1.1","detail":"nobody"}]}"#;
    let (forged, forgotten) = news(reply("ipn:3.25", exchange, 202, ""));
    let (late, done) = news(reply("ipn:2.25", exchange, 202, body));
    transport.tell.send(forged).unwrap();
    let_go(&forgotten).await;
    transport.tell.send(late).unwrap();
    let view = until(&client, id, |view| {
        view.recipients[0].status == Status::Delivered && view.recipients[1].status == Status::Failed
    })
    .await;
    assert!(transport.sent().is_empty(), "what is held is not repeated");
    let_go(&done).await;
    assert!(
        view.history.iter().any(|one| one.detail.contains(CUSTODY)),
        "{view:#?}"
    );

    // Again, and for an exchange that never was: no harm, and let go.
    for exchange in [exchange, Ulid::nil()] {
        let (late, done) = news(reply("ipn:2.25", exchange, 422, ""));
        transport.tell.send(late).unwrap();
        let_go(&done).await;
    }
    assert_eq!(
        client.store().message(id).await.unwrap().unwrap().recipients[0].status,
        Status::Delivered
    );
    client.stop().await;
}

#[tokio::test]
async fn two_replies_at_once_cause_one_notification() {
    let bench = Bench::new("").await.with(&route(""));
    let transport = Scripted::new(|_| held(DAY));
    let (client, id, exchange) = one_held(&transport, &bench).await;
    let no = || reply("ipn:2.25", exchange, 422, r#"{"code":"5.7.1","detail":"no"}"#);
    let replies = [(); 8].map(|()| news(no()));
    let mut let_go_of = Vec::new();
    for (late, done) in replies {
        transport.tell.send(late).unwrap();
        let_go_of.push(done);
    }
    for done in &let_go_of {
        let_go(done).await;
    }
    let view = until(&client, id, all(Status::Failed)).await;
    let notified = view.history.iter().filter(|one| one.kind == "notified").count();
    assert_eq!(notified, 1, "{view:#?}");
    client.stop().await;
}

#[tokio::test]
async fn replies_do_not_wait_behind_reports_on_unknown_bundles() {
    let bench = Bench::new("").await.with(&route(""));
    let transport = Scripted::new(|_| held(DAY));
    let (client, id, exchange) = one_held(&transport, &bench).await;
    for number in 0..400 {
        let (late, _) = news(News::Deleted {
            custody: format!("ipn:1.26/1/{number}"),
            by: "ipn:7.0".into(),
            reason: "lifetime expired".into(),
        });
        transport.tell.send(late).unwrap();
    }
    let (late, done) = news(reply("ipn:2.25", exchange, 202, ""));
    transport.tell.send(late).unwrap();
    // 20 s: 64 at once, each looked for during 10 s, would take a minute.
    let_go(&done).await;
    until(&client, id, all(Status::Delivered)).await;
    client.stop().await;
}

#[tokio::test]
async fn a_reply_counts_although_the_route_is_gone() {
    let bench = Bench::new("").await.with(&route(""));
    let transport = Scripted::new(|_| held(DAY));
    let (client, id, exchange) = one_held(&transport, &bench).await;
    client.stop().await;
    let bench = bench.with(&route("").replace("held.example", "elsewhere.example"));
    let client = bench.start(&transport).await;
    // It is looked at again when the route may be back.
    let (later, done) = news(reply("ipn:2.25", exchange, 500, ""));
    transport.tell.send(later).unwrap();
    let_go(&done).await;
    until(&client, id, all(Status::Queued)).await;
    let (late, done) = news(reply("ipn:2.25", exchange, 202, ""));
    transport.tell.send(late).unwrap();
    let_go(&done).await;
    until(&client, id, all(Status::Delivered)).await;
    client.stop().await;
}

#[tokio::test]
async fn a_late_no_is_a_no() {
    let bench = Bench::new("").await.with(&route(""));
    let transport = Scripted::new(|_| held(DAY));
    let (client, id, exchange) = one_held(&transport, &bench).await;
    let (late, done) = news(reply(
        "ipn:2.25",
        exchange,
        422,
        r#"{"code":"5.7.1","detail":"no"}"#,
    ));
    transport.tell.send(late).unwrap();
    until(&client, id, all(Status::Failed)).await;
    let_go(&done).await;
    client.stop().await;
}

#[tokio::test]
async fn without_an_answer_in_time_the_same_exchange_leaves_again() {
    let bench = Bench::new("").await.with(&route(""));
    let transport = Scripted::new(|_| held(Duration::from_millis(300)));
    let (client, _, exchange) = one_held(&transport, &bench).await;
    let sent = transport.wait_for(2).await;
    assert_eq!(sent[1].id, exchange);
    assert_eq!(sent[1].object, sent[0].object);
    client.stop().await;
}

#[tokio::test]
async fn a_path_may_give_up_instead() {
    let bench = Bench::new("").await.with(&route("no_reply = \"give-up\""));
    let transport = Scripted::new(|_| held(Duration::from_millis(300)));
    let (client, id, _) = one_held(&transport, &bench).await;
    let view = until(&client, id, all(Status::Expired)).await;
    assert!(
        view.recipients[0]
            .detail
            .as_deref()
            .unwrap()
            .contains("no answer came to bundle"),
        "{view:#?}"
    );
    assert_eq!(transport.sent().len(), 1);
    client.stop().await;
}

#[tokio::test]
async fn a_deleted_bundle_is_a_failed_attempt_with_its_reason() {
    let bench = Bench::new("").await.with(&route(""));
    let transport = Scripted::new(|_| held(DAY));
    let (client, id, exchange) = one_held(&transport, &bench).await;
    let (late, done) = news(News::Deleted {
        custody: CUSTODY.into(),
        by: "ipn:7.0".into(),
        reason: "storage used up".into(),
    });
    transport.tell.send(late).unwrap();
    let sent = transport.wait_for(2).await;
    assert_eq!(sent[1].id, exchange);
    let_go(&done).await;
    let view = until(&client, id, |view| view.recipients[0].attempts == 1).await;
    assert!(
        view.history.iter().any(
            |one| one.detail.contains("ipn:7.0 deleted bundle") && one.detail.contains("storage used up")
        ),
        "{view:#?}"
    );
    client.stop().await;
}

#[tokio::test]
async fn delivery_counts_where_no_reply_is_to_come() {
    for (form, wanted) in [("batch-smtp", Status::Delivered), ("http", Status::Awaiting)] {
        let bench = Bench::new("")
            .await
            .with(&route(&format!("payload = \"{form}\"")));
        let transport = Scripted::new(|_| held(DAY));
        let (client, id, _) = one_held(&transport, &bench).await;
        let delivered = |by: &str| News::Delivered {
            custody: CUSTODY.into(),
            by: by.into(),
        };
        let (strange, dropped) = news(delivered("ipn:9.0"));
        let (late, done) = news(delivered("ipn:2.0"));
        transport.tell.send(strange).unwrap();
        let_go(&dropped).await;
        transport.tell.send(late).unwrap();
        let_go(&done).await;
        until(&client, id, all(wanted)).await;
        client.stop().await;
    }
}

#[tokio::test]
async fn custody_alone_counts_where_nothing_is_ever_heard() {
    let bench = Bench::new("").await.with(&route(""));
    let transport = Scripted::new(|_| Outcome::HandedOver {
        said: "in custody of the bundle node".into(),
    });
    let client = bench.start(&transport).await;
    let id = enqueue(&client, "s@earth.example", &["a@held.example"], MAIL, DAY).await;
    let view = until(&client, id, all(Status::Delivered)).await;
    assert_eq!(
        view.recipients[0].detail.as_deref(),
        Some("in custody of the bundle node")
    );
    client.stop().await;
}

#[tokio::test]
async fn what_never_fits_is_returned() {
    let bench = Bench::new("").await.with(&route(""));
    let transport = Scripted::new(|_| {
        Outcome::Failed(Failure::TooLarge {
            gateway: "ipn:2.25".into(),
            octets: 9,
            most: 8,
        })
    });
    let client = bench.start(&transport).await;
    let id = enqueue(&client, "s@earth.example", &["a@held.example"], MAIL, DAY).await;
    let view = until(&client, id, all(Status::Failed)).await;
    assert!(
        view.recipients[0].detail.as_deref().unwrap().contains("5.3.4"),
        "{view:#?}"
    );
    client.stop().await;
}
