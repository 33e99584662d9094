//! Leases.

use super::*;
use crate::{DueDestination, Status, WaitReason};

pub(crate) async fn highest_priority_then_longest_due(store: Shared) {
    let with = |number, priority, due| {
        let mut message = simple(number);
        message.priority = priority;
        message.recipients[0].due = at(due);
        message
    };
    put(
        &store,
        vec![
            with(1, 0, 5),
            with(2, 0, 3),
            with(3, 9, 9),
            with(4, 9, 100),
            with(5, -9, 0),
        ],
    )
    .await;
    let due = store.due(at(10)).await.unwrap();
    assert_eq!(
        due,
        [DueDestination {
            destination: "moon.example".to_owned(),
            priority: 9
        }]
    );
    assert_eq!(ids(&claim(&store, "w", at(10), 2).await), [id(3), id(2)]);
    assert_eq!(store.due(at(10)).await.unwrap()[0].priority, 0);
    assert_eq!(ids(&claim(&store, "w", at(10), 10).await), [id(1), id(5)]);
    assert!(store.due(at(10)).await.unwrap().is_empty());
    assert_eq!(store.next_due().await.unwrap(), Some(at(70)));
}

pub(crate) async fn due_names_each_destination_once(store: Shared) {
    assert_eq!(store.next_due().await.unwrap(), None);
    let mut messages: Vec<_> = (0..20)
        .map(|n| mail(n, vec![recipient("b", &format!("d{}.example", n % 4))]))
        .collect();
    messages.push(NewMessage {
        hold: Some("asked".to_owned()),
        ..mail(50, vec![recipient("b", "held.example")])
    });
    let mut later = mail(51, vec![recipient("b", "later.example")]);
    later.recipients[0].due = at(100);
    messages.push(later);
    put(&store, messages).await;
    let due = store.due(at(0)).await.unwrap();
    let names: Vec<_> = due.iter().map(|due| due.destination.as_str()).collect();
    assert_eq!(names, ["d0.example", "d1.example", "d2.example", "d3.example"]);
    assert_eq!(store.due(at(100)).await.unwrap().len(), 5);
    assert_eq!(store.next_due().await.unwrap(), Some(at(0)));
}

pub(crate) async fn no_two_claims_get_the_same_recipient(store: Shared) {
    put(&store, (0..300).map(simple).collect()).await;
    let tasks: Vec<_> = (0..30)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { claim(&store, &format!("w{n}"), at(0), 17).await })
        })
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        for message in task.await.unwrap() {
            seen.extend(message.recipients.iter().map(|recipient| recipient.id));
        }
    }
    let total = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((total, seen.len()), (300, 300));
}

pub(crate) async fn a_lease_ends(store: Shared) {
    put(&store, vec![simple(1)]).await;
    assert_eq!(claim(&store, "one", at(0), 1).await.len(), 1);
    assert_eq!(view(&store, 1).await.recipients[0].status, Status::Leased);
    assert!(claim(&store, "two", at(59), 1).await.is_empty());
    let again = claim(&store, "two", at(60), 1).await;
    assert_eq!((again.len(), again[0].recipients[0].attempts), (1, 0));
    assert_eq!(
        store.recover("one", at(60)).await.unwrap(),
        0,
        "the lease is another's now"
    );
    assert_eq!(store.recover("two", at(60)).await.unwrap(), 1);
    assert_eq!(claim(&store, "one", at(60), 1).await.len(), 1);
    assert_eq!(kinds(&view(&store, 1).await), ["accepted", "interrupted"]);
}

pub(crate) async fn what_awaits_comes_back_with_its_exchange(store: Shared) {
    put(
        &store,
        vec![mail(
            1,
            vec![recipient("b", "moon.example"), recipient("c", "moon.example")],
        )],
    )
    .await;
    let claimed = claim(&store, "w", at(0), 1).await.remove(0);
    assert!(claimed.recipients[0].exchange.is_none());
    store
        .begin_exchanges(vec![exchange(90, &claimed, at(500))], at(1))
        .await
        .unwrap();
    assert_eq!(
        store.recover("w", at(2)).await.unwrap(),
        0,
        "what awaits stays awaiting"
    );
    assert!(claim(&store, "w", at(499), 1).await.is_empty());
    let found = store
        .find_exchange(ExchangeName::Id(id(90)))
        .await
        .unwrap()
        .unwrap();
    let open = found.recipients[0].exchange.clone().unwrap();
    assert_eq!(
        (found.id, open.terms, open.begun, open.until),
        (id(1), Some(5), at(1), at(500))
    );
    let again = claim(&store, "w", at(500), 1).await.remove(0);
    assert_eq!(again.recipients[1].exchange.as_ref(), Some(&open));
    assert_eq!(
        open.recipients,
        again.recipients.iter().map(|r| r.id).collect::<Vec<_>>()
    );

    store
        .begin_exchanges(vec![exchange(90, &again, at(900))], at(501))
        .await
        .unwrap();
    let found = store
        .find_exchange(ExchangeName::Id(id(90)))
        .await
        .unwrap()
        .unwrap();
    let renewed = found.recipients[1].exchange.clone().unwrap();
    assert_eq!((renewed.begun, renewed.until), (at(1), at(900)));
    assert_eq!(kinds(&view(&store, 1).await), ["accepted", "sent", "resent"]);
}

pub(crate) async fn what_awaits_is_resumed_with_its_exchange(store: Shared) {
    // More than one call resumes.
    const MANY: u128 = 3000;
    put(&store, (0..MANY + 2).map(simple).collect()).await;
    for _ in 0..MANY / 250 {
        let claimed = claim(&store, "w", at(0), 250).await;
        let exchanges = claimed
            .iter()
            .map(|message| exchange(message.id.random() + 10_000, message, at(500)));
        store.begin_exchanges(exchanges.collect(), at(1)).await.unwrap();
    }
    assert_eq!(
        claim(&store, "w", at(0), 1).await.len(),
        1,
        "leased, not awaiting"
    );
    let mut resumed = 0;
    loop {
        match store.resume(at(2)).await.unwrap() {
            0 => break,
            some => resumed += some,
        }
    }
    assert_eq!(resumed, MANY as u64);
    assert_eq!(
        store.totals().await.unwrap().recipients["queued"],
        MANY as u64 + 1
    );
    let first = view(&store, 0).await;
    assert_eq!(kinds(&first), ["accepted", "sent", "interrupted"]);
    assert_eq!(first.recipients[0].reason, Some(WaitReason::Interrupted));
    let mut repeated = 0;
    for _ in 0..MANY / 250 + 1 {
        for message in claim(&store, "w", at(2), 250).await {
            let open = message.recipients[0].exchange.as_ref();
            repeated += usize::from(open.is_some_and(|open| open.id == id(message.id.random() + 10_000)));
            assert_eq!(message.recipients[0].attempts, 0);
        }
    }
    assert_eq!(repeated, MANY as usize);
}
