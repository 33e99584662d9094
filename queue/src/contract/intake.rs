//! The way in.

use super::*;
use crate::{Enqueued, Over, StoreError};

pub(crate) async fn mail_comes_back_as_it_went_in(store: Shared) {
    let mut message = mail(
        1,
        vec![
            recipient("b", "moon.example"),
            recipient("\"c d\"", "mars.example"),
        ],
    );
    message.sender = "<a@earth.example> BODY=8BITMIME RET=HDRS ENVID=x+2By"
        .parse()
        .unwrap();
    message.recipients[0].recipient = "<b@moon.example> NOTIFY=FAILURE,DELAY".parse().unwrap();
    message.facts.eight_bit = true;
    message.facts.nul = true;
    message.priority = 3;
    message.origin_id = Some("key-1".to_owned());
    let sent = message.clone();
    put(&store, vec![message]).await;

    let claimed = claim(&store, "w", at(0), 10).await;
    assert_eq!(claimed.len(), 1);
    let got = &claimed[0];
    assert_eq!(
        (got.id, &got.sender, got.facts),
        (sent.id, &sent.sender, sent.facts)
    );
    assert_eq!(
        (got.priority, &got.origin, &got.origin_id),
        (3, &sent.origin, &sent.origin_id)
    );
    assert_eq!(got.accepted, sent.accepted);
    let recipients: Vec<_> = got.recipients.iter().map(|r| r.recipient.clone()).collect();
    let wanted: Vec<_> = sent.recipients.iter().map(|r| r.recipient.clone()).collect();
    assert_eq!(
        recipients, wanted,
        "every due recipient is leased, whatever its destination"
    );
    assert_eq!(body(&store, got).await, b"Subject: x\r\n\r\nhello\r\n");
    assert_eq!(kinds(&view(&store, 1).await), ["accepted"]);
}

pub(crate) async fn the_same_request_is_stored_once(store: Shared) {
    let first = store
        .enqueue(keyed("k", 1, "one", vec![simple(1)]))
        .await
        .unwrap();
    assert_eq!(first, Enqueued::Stored);
    let wanted = Enqueued::Repeat(StoredReply {
        status: 202,
        body: b"one".to_vec(),
    });
    assert_eq!(
        store
            .enqueue(keyed("k", 1, "two", vec![simple(2)]))
            .await
            .unwrap(),
        wanted
    );
    assert_eq!(
        store
            .enqueue(keyed("k", 2, "two", vec![simple(3)]))
            .await
            .unwrap(),
        Enqueued::Conflict
    );
    assert_eq!(
        store.find_reply("peer", "k", Some([1; 32])).await.unwrap(),
        Some(wanted.clone())
    );
    assert_eq!(store.find_reply("peer", "k", None).await.unwrap(), Some(wanted));
    assert_eq!(
        store.find_reply("peer", "k", Some([2; 32])).await.unwrap(),
        Some(Enqueued::Conflict)
    );
    assert_eq!(store.find_reply("other", "k", None).await.unwrap(), None);
    assert_eq!(ids(&claim(&store, "w", at(0), 10).await), [id(1)]);
}

pub(crate) async fn an_allowance_is_not_exceeded(store: Shared) {
    let sender = |octets| charge(Subject::Sender, "a@earth.example", octets);
    let over = |subject, name: &str| {
        Enqueued::Over(Over {
            subject,
            name: name.to_owned(),
        })
    };
    let charged = |number, charges: Vec<Charge>| {
        let mut submission = submission(vec![simple(number)]);
        submission.charges = charges;
        submission
    };
    // Fifty at once: as many as there is room for.
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let (store, submission) = (Arc::clone(&store), charged(n, vec![sender(1)]));
            tokio::spawn(async move { store.enqueue(submission).await.unwrap() })
        })
        .collect();
    let mut stored = 0;
    for task in tasks {
        match task.await.unwrap() {
            Enqueued::Stored => stored += 1,
            other => assert_eq!(other, over(Subject::Sender, "a@earth.example")),
        }
    }
    assert_eq!(stored, 2);
    // One allowance that does not suffice leaves the others as they were.
    let moon = |octets| charge(Subject::Destination, "moon.example", octets);
    for (number, charges, wanted) in [
        (60, vec![moon(60)], Enqueued::Stored),
        (
            61,
            vec![moon(40), sender(1)],
            over(Subject::Sender, "a@earth.example"),
        ),
        (62, vec![moon(41)], over(Subject::Destination, "moon.example")),
        (63, vec![moon(40)], Enqueued::Stored),
        (64, vec![moon(0)], over(Subject::Destination, "moon.example")),
        (65, Vec::new(), Enqueued::Stored),
    ] {
        assert_eq!(store.enqueue(charged(number, charges)).await.unwrap(), wanted);
    }
    assert_eq!(claim(&store, "w", at(0), 100).await.len(), 5);
    // A repeat uses nothing up.
    for _ in 0..3 {
        let mut repeated = keyed("k", 1, "one", vec![simple(70)]);
        repeated.charges = vec![charge(Subject::Sender, "b@earth.example", 60)];
        assert!(!matches!(
            store.enqueue(repeated).await.unwrap(),
            Enqueued::Over(_)
        ));
    }
}

pub(crate) async fn concurrent_repeats_are_stored_once(store: Shared) {
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.enqueue(keyed("k", 1, "r", vec![simple(n)])).await.unwrap() })
        })
        .collect();
    let mut stored = 0;
    for task in tasks {
        stored += u32::from(task.await.unwrap() == Enqueued::Stored);
    }
    assert_eq!((stored, claim(&store, "w", at(0), 100).await.len()), (1, 1));
}

pub(crate) async fn a_large_body_is_read_from_any_octet(store: Shared) {
    let wanted: Vec<u8> = (0..1_500_000_u32).map(|n| (n % 251) as u8).collect();
    let spool = store.begin_body().await.unwrap();
    for part in wanted.chunks(300_001) {
        store
            .append_body(spool, Bytes::copy_from_slice(part))
            .await
            .unwrap();
    }
    let mut message = simple(1);
    message.body = NewBody::Spooled(spool);
    put(&store, vec![message]).await;
    let claimed = claim(&store, "w", at(0), 1).await.remove(0);
    assert!(body(&store, &claimed).await == wanted);
    for offset in [
        0, 1, 262_143, 262_144, 300_001, 700_000, 1_499_999, 1_500_000, 9_999_999,
    ] {
        let part = store.read_body(claimed.body, offset as u64).await.unwrap();
        let rest = wanted.get(offset..).unwrap_or_default();
        assert!(
            rest.starts_with(&part) && part.is_empty() == rest.is_empty(),
            "{offset}"
        );
    }
}

pub(crate) async fn a_body_belongs_to_one_message(store: Shared) {
    let spool = store.begin_body().await.unwrap();
    let with = |number| NewMessage {
        body: NewBody::Spooled(spool),
        ..simple(number)
    };
    put(&store, vec![with(1)]).await;
    assert!(matches!(
        store.enqueue(submission(vec![with(2)])).await,
        Err(StoreError::Other { .. })
    ));
    assert!(matches!(
        store.append_body(spool, Bytes::from_static(b"x")).await,
        Err(StoreError::Other { .. })
    ));
    store.discard_body(spool).await.unwrap();
    let gone = store.begin_body().await.unwrap();
    store.discard_body(gone).await.unwrap();
    let late = NewMessage {
        body: NewBody::Spooled(gone),
        ..simple(3)
    };
    assert!(store.enqueue(submission(vec![late])).await.is_err());
    assert_eq!(ids(&claim(&store, "w", at(0), 10).await), [id(1)]);
}

pub(crate) async fn a_bad_command_harms_no_other(store: Shared) {
    put(&store, vec![simple(1)]).await;
    let numbers = [1, 2, 3, 1, 4, 5];
    let tasks: Vec<_> = numbers
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.enqueue(submission(vec![simple(number)])).await.is_ok() })
        })
        .into_iter()
        .collect();
    let empty = store.enqueue(submission(vec![mail(9, Vec::new())])).await;
    assert!(empty.is_err());
    let mut stored = Vec::new();
    for (task, number) in tasks.into_iter().zip(numbers) {
        if task.await.unwrap() {
            stored.push(number);
        }
    }
    assert_eq!(stored, [2, 3, 4, 5], "an id that is taken is refused");
    assert_eq!(claim(&store, "w", at(0), 10).await.len(), 5);
}
