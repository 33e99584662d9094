//! Operators, listings, clearing away.

use super::*;
use crate::{Enqueued, Filter, Operation, Status};

pub(crate) async fn operations_fit_some_statuses(store: Shared) {
    let mut message = simple(1);
    message.recipients[0].due = at(1000);
    put(&store, vec![message]).await;
    let operate = async |operation| store.operate(id(1), operation, at(5), "admin").await.unwrap();
    assert_eq!(
        store
            .operate(id(2), Operation::Hold, at(5), "admin")
            .await
            .unwrap(),
        None
    );
    assert_eq!(operate(Operation::Release).await, Some(0));
    assert_eq!(operate(Operation::Retry).await, Some(1));
    assert_eq!(store.next_due().await.unwrap(), Some(at(5)));
    assert_eq!(operate(Operation::Hold).await, Some(1));
    assert_eq!(store.next_due().await.unwrap(), None);
    assert_eq!(
        operate(Operation::Retry).await,
        Some(0),
        "only a release ends a hold"
    );
    assert_eq!(operate(Operation::Release).await, Some(1));
    let claimed = claim(&store, "w", at(5), 1).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(operate(Operation::Cancel).await, Some(0), "it may be on its way");
    store.recover("w", at(6)).await.unwrap();
    assert_eq!(operate(Operation::Cancel).await, Some(1));
    let seen = view(&store, 1).await;
    assert_eq!(seen.recipients[0].status, Status::Cancelled);
    let wanted = [
        "accepted",
        "retried",
        "held",
        "released",
        "interrupted",
        "cancelled",
    ];
    assert_eq!(kinds(&seen), wanted);
    assert_eq!(seen.history[1].detail, "by admin");
    audit(&store).await;
}

pub(crate) async fn changes_wake_the_dispatcher(store: Shared) {
    put(
        &store,
        vec![NewMessage {
            hold: Some("x".to_owned()),
            ..simple(1)
        }],
    )
    .await;
    store.changed().await;
    let waiting = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.changed().await })
    };
    store
        .operate(id(1), Operation::Release, at(1), "admin")
        .await
        .unwrap();
    waiting.await.unwrap();
}

pub(crate) async fn what_becomes_due_sooner_wakes_the_dispatcher(store: Shared) {
    put(&store, vec![simple(1)]).await;
    let claimed = claim(&store, "w", at(0), 1).await.remove(0);
    store
        .begin_exchanges(vec![exchange(90, &claimed, at(500))], at(0))
        .await
        .unwrap();
    store.changed().await;
    let held = settlement(claimed.recipients[0].id, awaiting(at(400)), at(1));
    store.settle(vec![held], Vec::new()).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(30), store.changed()).await;
    assert!(told.is_ok(), "nobody was told");
    assert_eq!(store.next_due().await.unwrap(), Some(at(400)));
}

pub(crate) async fn listings_filter_and_go_on(store: Shared) {
    let mut messages: Vec<_> = (0..10).map(simple).collect();
    messages[3].sender = "<other@earth.example> BODY=8BITMIME".parse().unwrap();
    messages[4].recipients.push(recipient("z", "mars.example"));
    messages[5].hold = Some("asked".to_owned());
    put(&store, messages).await;
    let list = async |filter: Filter| -> Vec<Ulid> {
        store
            .list(filter)
            .await
            .unwrap()
            .iter()
            .map(|message| message.id)
            .collect()
    };
    let all = || Filter {
        limit: 100,
        ..Filter::default()
    };
    assert_eq!(list(all()).await, (0..10).map(id).collect::<Vec<_>>());
    assert_eq!(
        list(Filter {
            limit: 2,
            after: Some(id(6)),
            ..all()
        })
        .await,
        [id(7), id(8)]
    );
    assert_eq!(
        list(Filter {
            sender: Some("other@earth.example".to_owned()),
            ..all()
        })
        .await,
        [id(3)]
    );
    assert_eq!(
        list(Filter {
            destination: Some("mars.example".to_owned()),
            ..all()
        })
        .await,
        [id(4)]
    );
    assert_eq!(
        list(Filter {
            status: Some(Status::Held),
            ..all()
        })
        .await,
        [id(5)]
    );
    assert_eq!(
        list(Filter {
            status: Some(Status::Queued),
            ..all()
        })
        .await
        .len(),
        9
    );
    let both = Filter {
        status: Some(Status::Held),
        destination: Some("mars.example".to_owned()),
        ..all()
    };
    assert!(list(both).await.is_empty());
    audit(&store).await;
}

pub(crate) async fn every_name_leads_to_its_messages(store: Shared) {
    let named = |number, origin_id: &str, upstream: &str| NewMessage {
        origin_id: Some(origin_id.to_owned()),
        upstream: Some(upstream.to_owned()),
        ..simple(number)
    };
    put(
        &store,
        vec![named(1, "key-1", "4Zx9"), named(2, "key-2", "4Zx9"), simple(3)],
    )
    .await;
    let claimed = claim(&store, "w", at(0), 10).await.remove(2);
    store
        .begin_exchanges(vec![exchange(90, &claimed, at(9))], at(1))
        .await
        .unwrap();
    for (name, numbers) in [
        (id(2).to_string(), &[2][..]),
        (id(90).to_string(), &[3]),
        ("key-1".to_owned(), &[1]),
        ("4Zx9".to_owned(), &[1, 2]),
        ("nobody".to_owned(), &[]),
        (id(7).to_string(), &[]),
    ] {
        let filter = Filter {
            known_as: Some(name.clone()),
            limit: 10,
            ..Filter::default()
        };
        let found: Vec<_> = store.list(filter).await.unwrap();
        let found: Vec<_> = found.iter().map(|message| message.id).collect();
        let wanted: Vec<_> = numbers.iter().map(|number| id(*number)).collect();
        assert_eq!(found, wanted, "{name}");
    }
    let told = view(&store, 1).await;
    assert_eq!(told.upstream.as_deref(), Some("4Zx9"));
    assert_eq!(told.history[0].detail, "from rest as key-1, where it was 4Zx9");
}

pub(crate) async fn done_messages_and_old_keys_go(store: Shared) {
    store
        .enqueue(keyed("k", 1, "one", vec![simple(1), simple(2), simple(3)]))
        .await
        .unwrap();
    for (message, when) in claim(&store, "w", at(0), 2).await.iter().zip([10, 20]) {
        let outcome = settlement(message.recipients[0].id, Disposition::Delivered, at(when));
        store.settle(vec![outcome], Vec::new()).await.unwrap();
    }
    assert_eq!(store.purge(at(10), at(0)).await.unwrap(), 0);
    assert_eq!(store.purge(at(15), at(0)).await.unwrap(), 1);
    assert!(store.message(id(1)).await.unwrap().is_none());
    assert!(store.message(id(2)).await.unwrap().is_some());
    audit(&store).await;
    assert!(store.find_reply("peer", "k", None).await.unwrap().is_some());
    assert_eq!(store.purge(at(1000), at(501)).await.unwrap(), 1);
    assert!(store.find_reply("peer", "k", None).await.unwrap().is_none());
    assert_eq!(
        store
            .enqueue(keyed("k", 2, "new", vec![simple(1)]))
            .await
            .unwrap(),
        Enqueued::Stored
    );
    assert_eq!(claim(&store, "w", at(0), 10).await.len(), 2);
    audit(&store).await;
}

pub(crate) async fn a_closed_store_refuses(store: Shared) {
    store.check().await.unwrap();
    store.close().await;
    assert!(store.check().await.is_err());
    assert!(store.enqueue(submission(vec![simple(1)])).await.is_err());
    assert!(store.totals().await.is_err());
    store.close().await;
}
