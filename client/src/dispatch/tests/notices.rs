//! What senders hear of mail that is late, and of the time that they set.

use lightpost_mail::dsn::{Action, notice_by, wanted};

use super::*;

/// As [`enqueue`], with the notices of ingestion.
async fn accept(bench: &Bench, client: &Client, sender: &str, recipient: &str, body: &[u8]) -> Ulid {
    let acceptance = crate::accept::Acceptance {
        config: Arc::new(bench.config()),
        store: client.store().clone(),
        discovery: client.discovery().clone(),
        clock: Clock::system(),
        screen: None,
    };
    let (sender, recipient) = (sender.parse().unwrap(), recipient.parse().unwrap());
    let mut draft = acceptance.draft();
    acceptance.recipient(&mut draft, &sender, &recipient).unwrap();
    let source = crate::accept::Source::rest();
    let mut spooling = crate::accept::Spooling::start(&acceptance, &draft, &source)
        .await
        .unwrap();
    spooling.push(body).await.unwrap();
    let spooled = spooling.finish().await.unwrap();
    let id = draft.id;
    let messages = vec![draft.message(&source, sender, spooled, None)];
    let submission = Submission {
        key: None,
        reply: StoredReply::default(),
        messages,
        charges: Vec::new(),
    };
    client.store().enqueue(submission).await.unwrap();
    id
}

/// Whether it is still tried, at whatever stage of an attempt it is now.
fn is_tried(view: &MessageView) -> bool {
    let status = view.recipients[0].status;
    matches!(status, Status::Queued | Status::Leased | Status::Awaiting)
}

fn text(dsn: &lightpost_sim::sink::Received) -> String {
    assert!(dsn.sender.path.is_null());
    String::from_utf8_lossy(&dsn.body).into_owned()
}

#[tokio::test]
async fn a_sender_hears_once_of_mail_that_cannot_leave() {
    // Only what cannot leave is late after a second: how long the other mail takes to be delivered is this machine's business.
    let late = r#"
        [path.late]
        one_way_min = "1ms"
        one_way_max = "1ms"
        outage_max = "0s"
        rate_up = "1Gbit/s"
        rate_down = "1Gbit/s"
        retry_first = "50ms"
        retry_longest = "200ms"
        delay_notice = "1s"
        [[route]]
        domain = "late.example"
        path = "late"
        gateways = ["https://gw4.example/in"]
        "#;
    let bench = Bench::new("").await.with(late);
    let mut inbox = bench.sink.subscribe(16);
    let transport = Scripted::new(|sent| match domains(sent)[0].as_str() {
        "a@late.example" => unreachable(),
        _ => replied(202, ""),
    });
    let client = bench.start(&transport).await;
    let late = accept(
        &bench,
        &client,
        "<s@earth.example> ENVID=7",
        "<a@late.example>",
        MAIL,
    )
    .await;
    accept(
        &bench,
        &client,
        "<s@earth.example>",
        "<b@late.example> NOTIFY=FAILURE",
        MAIL,
    )
    .await;
    accept(&bench, &client, "<>", "<c@late.example>", MAIL).await;
    let arrived = accept(&bench, &client, "<s@earth.example>", "<d@two.example>", MAIL).await;
    until(&client, arrived, all(Status::Delivered)).await;
    let dsn = inbox.recv().await.unwrap();
    assert_eq!(dsn.recipients[0].address.as_str(), "s@earth.example");
    let said = text(&dsn);
    for part in [
        "Action: delayed",
        "Final-Recipient: rfc822; a@late.example",
        "Original-Envelope-Id: 7",
        "Will-Retry-Until: ",
        "Subject: hello",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let view = client.store().message(late).await.unwrap().unwrap();
    assert!(is_tried(&view), "{view:#?}");
    assert!(view.history.iter().any(|event| event.kind == "notified"));
    assert_eq!(client.store().next_notice().await.unwrap(), None);
    client.stop().await;
    assert!(inbox.try_recv().is_err(), "one notice, for one mail");
}

#[tokio::test]
async fn the_time_that_a_sender_set_crosses_and_a_repeat_is_the_same_object() {
    let bench = Bench::new("").await;
    let transport = Scripted::new(|_| replied(500, ""));
    let client = bench.start(&transport).await;
    let by = "<s@earth.example> BY=3600;NT";
    let id = accept(&bench, &client, by, "<a@two.example>", MAIL).await;
    let sent = transport.wait_for(2).await;
    assert_eq!(sent[0].id, sent[1].id);
    assert_eq!(sent[0].object, sent[1].object);
    let text = String::from_utf8_lossy(&sent[0].object).into_owned();
    let mail = text.lines().find(|line| line.starts_with("MAIL")).unwrap();
    // Less than a second and a half passes on a machine that is not starved.
    let left: i32 = mail
        .split("BY=")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((3500..3600).contains(&left) && mail.contains(";NT"), "{mail}");
    let required = sent[0].headers["content-type"].to_str().unwrap();
    assert!(required.contains("DELIVERBY"), "{required}");
    assert!(client.store().message(id).await.unwrap().is_some());
    client.stop().await;
}

#[tokio::test]
async fn who_set_a_time_hears_when_it_is_over_and_gets_the_mail_back_with_mode_r() {
    let bench = Bench::new("").await;
    let mut inbox = bench.sink.subscribe(16);
    let transport = Scripted::new(|_| replied(503, ""));
    let client = bench.start(&transport).await;
    let notify = accept(
        &bench,
        &client,
        "<n@earth.example> BY=1;N",
        "<a@two.example>",
        MAIL,
    )
    .await;
    let back = accept(
        &bench,
        &client,
        "<r@earth.example> BY=1;R",
        "<b@two.example>",
        MAIL,
    )
    .await;
    until(&client, back, all(Status::Expired)).await;
    let mut told = [inbox.recv().await.unwrap(), inbox.recv().await.unwrap()];
    told.sort_by_key(|dsn| dsn.recipients[0].address.to_string());
    let (delayed, failed) = (text(&told[0]), text(&told[1]));
    assert!(
        delayed.contains("Action: delayed") && delayed.contains("Status: 4.4.7"),
        "{delayed}"
    );
    assert!(
        failed.contains("Action: failed") && failed.contains("Status: 5.4.7"),
        "{failed}"
    );
    assert!(delayed.contains("Deliver-By-Date: ") && failed.contains("Deliver-By-Date: "));
    let view = client.store().message(notify).await.unwrap().unwrap();
    assert!(is_tried(&view), "{view:#?}");
    client.stop().await;
}

#[tokio::test]
async fn every_relay_is_told_where_the_trace_is_wanted() {
    let bench = Bench::new("").await;
    let mut inbox = bench.sink.subscribe(16);
    let transport = Scripted::new(|_| replied(202, ""));
    let client = bench.start(&transport).await;
    let by = "<s@earth.example> BY=3600;RT";
    let id = accept(&bench, &client, by, "<a@two.example>", MAIL).await;
    let said = text(&inbox.recv().await.unwrap());
    assert!(
        said.contains("Action: relayed") && said.contains("a@two.example"),
        "{said}"
    );
    until(&client, id, all(Status::Delivered)).await;
    // The gateway reports success, nobody else.
    let id = accept(
        &bench,
        &client,
        "<s@earth.example>",
        "<a@two.example> NOTIFY=SUCCESS",
        MAIL,
    )
    .await;
    until(&client, id, all(Status::Delivered)).await;
    client.stop().await;
    assert!(inbox.try_recv().is_err());
}

#[tokio::test]
async fn a_gateway_without_dsn_is_not_asked_and_success_is_told_from_here() {
    let bench = Bench::new("accepts = [\"8BITMIME\"]").await;
    let mut inbox = bench.sink.subscribe(16);
    let transport = Scripted::new(|_| replied(202, ""));
    let client = bench.start(&transport).await;
    let from = "<s@earth.example> ENVID=7 RET=FULL MT-PRIORITY=3";
    let asked = "<a@two.example> NOTIFY=SUCCESS ORCPT=rfc822;a@two.example";
    let id = accept(&bench, &client, from, asked, MAIL).await;
    until(&client, id, all(Status::Delivered)).await;
    let silent = accept(&bench, &client, from, "<b@two.example> NOTIFY=NEVER", MAIL).await;
    until(&client, silent, all(Status::Delivered)).await;
    let said = text(&inbox.recv().await.unwrap());
    for part in [
        "Action: relayed",
        "Original-Envelope-Id: 7",
        "Original-Recipient: rfc822; a@two.example",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    client.stop().await;
    assert!(inbox.try_recv().is_err());
    for sent in transport.sent() {
        let object = String::from_utf8_lossy(&sent.object).into_owned();
        assert!(
            object.contains("MAIL FROM:<s@earth.example> SIZE=") && !object.contains("NOTIFY"),
            "{object}"
        );
        let required = sent.headers["content-type"].to_str().unwrap();
        assert!(required.ends_with("required-extensions=\"SIZE\""), "{required}");
    }
}

#[test]
fn never_is_never() {
    let sender: Sender = "<s@earth.example> BY=1;NT".parse().unwrap();
    let recipient: Recipient = "<a@two.example> NOTIFY=NEVER".parse().unwrap();
    assert!(!wanted(&sender, &recipient, Action::Relayed));
    assert_eq!(notice_by(&sender, &recipient, Timestamp::UNIX_EPOCH), None);
}
