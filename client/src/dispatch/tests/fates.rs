//! What replies and time make of a mail.

use super::*;

#[tokio::test]
async fn refused_mail_comes_back_as_a_notification_and_without_a_sender_to_the_postmaster() {
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
    let told = inbox.recv().await.unwrap();
    assert!(told.sender.path.is_null());
    assert_eq!(
        told.recipients[0].address.as_str(),
        "postmaster@relay.earth.example"
    );
    assert!(String::from_utf8_lossy(&told.body).contains("no such user"));
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
            == 4
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
