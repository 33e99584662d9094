//! Who may send for whom and to whom, and what of an object counts.

use super::*;

#[tokio::test]
async fn a_peer_speaks_for_its_domains_and_the_null_path_only() {
    let world = World::new().await;
    let peer = "narrow.earth.example";
    for (sender, status) in [
        ("a@only.example", 202),
        ("", 202),
        // Not 403: that would tell the peer that none of its mail is taken.
        ("a@earth.example", 422),
        ("a@sub.only.example", 422),
    ] {
        let answer = world
            .send(from_peer(peer, object(sender, &["bob@moon.example"], "x"), &[]))
            .await;
        assert_eq!(answer.status.as_u16(), status, "{sender}: {answer:?}");
        if status == 422 {
            assert_eq!(answer.json()["code"], "5.7.1");
        }
    }
    let both = object("a@only.example", &["bob@moon.example"], "one")
        + &object("a@earth.example", &["bob@moon.example"], "two");
    let answer = world.send(from_peer(peer, both, &[])).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.json()["messages"].as_array().unwrap().len(), 1);
    assert_eq!(answer.json()["recipients"][0]["transaction"], 2);
    assert_eq!(answer.json()["recipients"][0]["code"], "5.7.1");
    assert_eq!(world.messages().await.len(), 3);
}

#[tokio::test]
async fn foreign_recipients_are_refused_and_the_rest_is_taken() {
    let world = World::new().await;
    let mixed = object(
        "a@earth.example",
        &[
            "bob@moon.example",
            "x@mars.example",
            "no address",
            "eve@Far.Moon.Example",
        ],
        "x",
    );
    let answer = world.send(request(mixed, &[])).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let refused: Vec<_> = answer.json()["recipients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|recipient| recipient["address"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(refused, ["x@mars.example", "<no address>"]);
    let messages = world.messages().await;
    let taken: Vec<_> = messages[0]
        .recipients
        .iter()
        .map(|recipient| recipient.destination.as_str())
        .collect();
    assert_eq!(taken, ["moon.example", "far.moon.example"]);

    let foreign = world
        .send(request(object("a@earth.example", &["x@mars.example"], "x"), &[]))
        .await;
    assert_eq!(foreign.status.as_u16(), 422);
    assert_eq!(foreign.json()["code"], "5.7.1");
    assert_eq!(foreign.json()["recipients"][0]["address"], "x@mars.example");
    assert_eq!(world.messages().await.len(), 1);
}

#[tokio::test]
async fn what_was_complete_before_an_error_counts_and_a_repeat_is_told_the_same() {
    let world = World::new().await;
    let text = small() + "MAIL FROM:<a@earth.example>\r\nRCPT TO:<bob@moon.example>\r\nDATA\r\ncut";
    let key = ("idempotency-key", "01CUT");
    let first = world.send(request(text.clone(), &[key])).await;
    assert_eq!(first.status.as_u16(), 400);
    assert_eq!(first.media_type, "application/problem+json");
    assert_eq!(first.json()["transaction"], 2);
    assert_eq!(first.json()["accepted"][0]["transaction"], 1);
    let messages = world.messages().await;
    assert_eq!(first.json()["accepted"][0]["id"], messages[0].id.to_string());
    assert_eq!(world.send(request(text, &[key])).await, first);
    assert_eq!(world.messages().await.len(), 1);
}

#[tokio::test]
async fn an_error_before_anything_was_complete_names_its_place() {
    let world = World::new().await;
    let answer = world
        .send(request("EHLO x\r\nMAIL FROM:<a@b.example>\r\nFROB\r\n", &[]))
        .await;
    assert_eq!(answer.status.as_u16(), 400);
    assert_eq!(answer.json()["line"], 3);
    assert!(answer.json()["offset"].is_number());
}

#[tokio::test]
async fn circles_are_cut() {
    let world = World::new().await;
    let hop = "Received: from a by b; Mon, 1 Jan 2030 00:00:00 +0000\r\n";
    let text = object(
        "a@earth.example",
        &["bob@moon.example"],
        &format!("{}\r\nx", hop.repeat(60)),
    );
    let answer = world.send(request(text, &[])).await;
    assert_eq!(answer.status.as_u16(), 422);
    assert_eq!(answer.json()["code"], "5.4.6");
    // A mail that has been here for Bob may come for Eve, not for Bob again.
    let ours = "Received: from a by gw1.moon.example id 7 for <bob@moon.example>; Mon, 1 Jan 2030 00:00:00 +0000\r\n";
    let text = object(
        "a@earth.example",
        &["bob@moon.example", "eve@moon.example"],
        &format!("{ours}\r\nx"),
    );
    let answer = world.send(request(text, &[])).await;
    assert_eq!(answer.status.as_u16(), 202);
    let refused = &answer.json()["recipients"];
    assert_eq!(
        (&refused[0]["address"], &refused[0]["code"]),
        (&"bob@moon.example".into(), &"5.4.6".into())
    );
    assert_eq!(world.messages().await[0].recipients.len(), 1);
}
