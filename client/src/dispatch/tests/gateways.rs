//! Gateways that are dead, busy or slow.

use super::*;

#[tokio::test]
async fn a_dead_gateway_hands_over_to_the_next_at_once() {
    let bench = Bench::new("").await;
    let transport = Scripted::new(|sent| match sent.gateway.as_str() {
        "https://gw1.example/in" => unreachable(),
        _ => replied(202, ""),
    });
    // Longer than any machine takes for the test: a gateway that is down is not asked again before.
    let mut config = bench.config();
    if let Some(path) = config.paths.get_mut("moon") {
        (path.retry_first, path.retry_longest) = (DAY, DAY);
    }
    let client = Client::start_with(config, Clock::system(), transport.clone())
        .await
        .unwrap();
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
    // Each was accepted; what was tried has two lines for each time. A batch may have been stored that did not knock yet.
    assert!(
        events <= ids.len() + 2 * sent + 64,
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
