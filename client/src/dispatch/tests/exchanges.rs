//! What travels together, and what is repeated as it was.

use super::*;

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
async fn after_a_restart_by_another_name_the_same_exchange_goes_to_the_same_gateway() {
    let mut bench = Bench::new("").await;
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
    bench.name = "other.earth.example";
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
async fn an_exchange_that_may_have_arrived_is_the_same_object_whatever_is_agreed_since() {
    let all_of_it = "accepts = [\"8BITMIME\", \"DSN\", \"MT-PRIORITY\", \"DELIVERBY\"]";
    for (before, after) in [("", "accepts = []"), ("accepts = []", all_of_it)] {
        let mut bench = Bench::new(before).await;
        let silent = Scripted::new(|_| never());
        let client = bench.start(&silent).await;
        let from = "<s@earth.example> BODY=8BITMIME RET=HDRS ENVID=7 MT-PRIORITY=3 BY=3600;N";
        let to = "<a@one.example> NOTIFY=SUCCESS ORCPT=rfc822;a@one.example";
        let id = enqueue(&client, from, &[to], MAIL, DAY).await;
        let first = silent.wait_for(1).await.remove(0);
        until(&client, id, all(Status::Awaiting)).await;
        drop(client);
        bench.extra = after.to_owned();
        let transport = Scripted::new(|_| replied(202, ""));
        let client = bench.start(&transport).await;
        until(&client, id, all(Status::Delivered)).await;
        let again = transport.sent().remove(0);
        assert_eq!(
            (again.id, &again.object, &again.headers["content-type"]),
            (first.id, &first.object, &first.headers["content-type"])
        );
        // What leaves from now on is what is agreed now.
        let id = enqueue(&client, from, &[to], MAIL, DAY).await;
        until(&client, id, all(Status::Delivered)).await;
        let new = transport.sent().remove(1);
        assert_ne!(new.headers["content-type"], first.headers["content-type"]);
        client.stop().await;
    }
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
    // The first exchange stays with its gateway, and once another one was begun it is never sent again.
    let (before, after) = sent.split_at(sent.iter().position(|one| one.id != sent[0].id).unwrap());
    assert!(before.iter().all(|one| one.gateway == "https://gw1.example/in"));
    assert!(after.iter().all(|one| one.id != sent[0].id));
    client.stop().await;
}

/// Its gateway may have the mail from the first time, and must not take it for another one.
#[tokio::test]
async fn a_mail_that_comes_back_to_a_gateway_is_the_exchange_that_it_has_seen() {
    let bench = Bench::new("").await;
    let first = std::sync::atomic::AtomicBool::new(true);
    let second_tried = std::sync::atomic::AtomicBool::new(false);
    let transport = Scripted::new(move |sent| match sent.gateway.as_str() {
        "https://gw1.example/in" if first.swap(false, std::sync::atomic::Ordering::SeqCst) => {
            Outcome::Failed(Failure::Interrupted {
                gateway: "gw1".into(),
                cause: "reset".into(),
            })
        }
        "https://gw1.example/in" if second_tried.load(std::sync::atomic::Ordering::SeqCst) => {
            replied(202, "")
        }
        "https://gw1.example/in" => unreachable(),
        _ => {
            second_tried.store(true, std::sync::atomic::Ordering::SeqCst);
            unreachable()
        }
    });
    let mut config = bench.config();
    if let Some(path) = config.paths.get_mut("moon") {
        path.reply_within = Some(Duration::from_millis(300));
    }
    let client = Client::start_with(config, Clock::system(), transport.clone())
        .await
        .unwrap();
    let id = enqueue(
        &client,
        "s@earth.example",
        &["a@one.example", "b@one.example"],
        MAIL,
        DAY,
    )
    .await;
    until(&client, id, all(Status::Delivered)).await;
    let sent = transport.sent();
    let (before, after) = sent.split_at(
        sent.iter()
            .position(|one| one.gateway == "https://gw2.example/in")
            .unwrap(),
    );
    let (first, last) = (before.first().unwrap(), after.last().unwrap());
    assert_ne!(after[0].id, first.id, "another gateway means another exchange");
    assert_eq!((&last.gateway, last.id), (&first.gateway, first.id));
    assert_eq!(last.object, first.object);
    client.stop().await;
}
