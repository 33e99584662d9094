//! What becomes of it.

use lightpost_mail::EnhancedCode;

use super::*;
use crate::{Exchanged, OpenExchange, Status, StoreError, WaitReason};

fn retry(due: Timestamp, counted: bool, exchange: Exchanged) -> Disposition {
    Disposition::Retry {
        due,
        reason: WaitReason::Busy,
        counted,
        exchange,
    }
}

pub(crate) async fn each_recipient_has_its_own_outcome(store: Shared) {
    let names = ["b", "c", "d", "e", "f", "g"];
    put(
        &store,
        vec![mail(1, names.map(|name| recipient(name, "moon.example")).into())],
    )
    .await;
    let claimed = claim(&store, "w", at(0), 1).await.remove(0);
    let dispositions = [
        Disposition::Delivered,
        Disposition::Failed(EnhancedCode::new(5, 1, 1)),
        Disposition::Expired,
        retry(at(30), true, Exchanged::Closed),
        Disposition::Held("by policy".to_owned()),
        awaiting(at(40)),
    ];
    let settlements = claimed.recipients.iter().zip(dispositions);
    let settlements = settlements
        .map(|(r, disposition)| settlement(r.id, disposition, at(1)))
        .collect();
    store.settle(settlements, Vec::new()).await.unwrap();
    let seen = view(&store, 1).await;
    let statuses: Vec<_> = seen.recipients.iter().map(|recipient| recipient.status).collect();
    let wanted = [
        Status::Delivered,
        Status::Failed,
        Status::Expired,
        Status::Queued,
        Status::Held,
        Status::Awaiting,
    ];
    assert_eq!(statuses, wanted);
    assert_eq!(
        kinds(&seen),
        [
            "accepted",
            "delivered",
            "failed",
            "expired",
            "deferred",
            "held",
            "awaiting"
        ]
    );
    assert_eq!(seen.recipients[1].detail.as_deref(), Some("5.1.1 said"));
    let waits = &seen.recipients[3];
    assert_eq!(
        (waits.reason, waits.due, waits.attempts),
        (Some(WaitReason::Busy), Some(at(30)), 1)
    );
    assert_eq!(waits.detail.as_deref(), Some("busy: said"));
    assert_eq!(seen.recipients[5].due, Some(at(40)));
    assert_eq!(store.next_due().await.unwrap(), Some(at(30)));
    audit(&store).await;
}

pub(crate) async fn the_first_final_outcome_counts(store: Shared) {
    put(&store, vec![simple(1)]).await;
    let claimed = claim(&store, "w", at(0), 1).await.remove(0);
    let recipient = claimed.recipients[0].id;
    let first = vec![
        settlement(recipient, Disposition::Delivered, at(1)),
        settlement(recipient, retry(at(2), true, Exchanged::Closed), at(1)),
    ];
    store.settle(first, Vec::new()).await.unwrap();
    let late = vec![
        settlement(recipient, Disposition::Expired, at(2)),
        settlement(RecipientId(99_999), Disposition::Expired, at(2)),
    ];
    store.settle(late, Vec::new()).await.unwrap();
    assert_eq!(view(&store, 1).await.recipients[0].status, Status::Delivered);
    assert_eq!(kinds(&view(&store, 1).await), ["accepted", "delivered"]);
    let begun = store
        .begin_exchanges(vec![exchange(90, &claimed, at(9))], at(3))
        .await;
    assert!(
        matches!(begun, Err(StoreError::Other { .. })),
        "what is done does not leave again"
    );
    audit(&store).await;
}

pub(crate) async fn a_closed_exchange_is_not_repeated(store: Shared) {
    put(&store, vec![simple(1)]).await;
    let (open, closed, refused) = (Exchanged::Open, Exchanged::Closed, Exchanged::Refused);
    for (number, how) in [(90, open), (90, closed), (91, closed), (92, refused)] {
        let claimed = claim(&store, "w", at(100), 1).await.remove(0);
        let recipient = &claimed.recipients[0];
        assert_eq!(
            recipient.exchange.is_some(),
            (number, how) == (90, Exchanged::Closed)
        );
        store
            .begin_exchanges(vec![exchange(number, &claimed, at(500))], at(100))
            .await
            .unwrap();
        let outcome = settlement(recipient.id, retry(at(100), how != open, how), at(100));
        store.settle(vec![outcome], Vec::new()).await.unwrap();
        let found = store.find_exchange(ExchangeName::Id(id(number))).await.unwrap();
        assert_eq!(found.is_some(), how == open);
    }
    assert_eq!(view(&store, 1).await.recipients[0].attempts, 3);

    // What nobody answered can be opened again. Then its time counts from there.
    let ids = |closed: &[OpenExchange]| closed.iter().map(|one| one.id).collect::<Vec<_>>();
    let claimed = claim(&store, "w", at(100), 1).await.remove(0);
    assert_eq!(ids(&claimed.closed), [id(90), id(91)]);
    let begun = store.begin_exchanges(vec![exchange(90, &claimed, at(600))], at(200));
    begun.await.unwrap();
    let again = claim(&store, "w", at(600), 1).await.remove(0);
    let open = again.recipients[0].exchange.as_ref().unwrap();
    assert_eq!((open.id, open.begun, open.until), (id(90), at(200), at(600)));
    assert_eq!(ids(&again.closed), [id(91)]);
}

pub(crate) async fn a_late_reply_after_failover_still_counts(store: Shared) {
    put(&store, vec![simple(1)]).await;
    let claimed = claim(&store, "w", at(0), 1).await.remove(0);
    store
        .begin_exchanges(vec![exchange(90, &claimed, at(50))], at(0))
        .await
        .unwrap();
    let again = claim(&store, "w", at(50), 1).await.remove(0);
    store
        .begin_exchanges(vec![exchange(91, &again, at(100))], at(50))
        .await
        .unwrap();
    let found = store
        .find_exchange(ExchangeName::Id(id(90)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.id, id(1));
    store
        .settle(
            vec![settlement(found.recipients[0].id, Disposition::Delivered, at(60))],
            Vec::new(),
        )
        .await
        .unwrap();
    for number in [90, 91] {
        let found = store.find_exchange(ExchangeName::Id(id(number))).await.unwrap();
        assert!(found.is_none(), "{number}");
    }
    assert_eq!(store.next_due().await.unwrap(), None);
}

pub(crate) async fn what_a_carrier_holds_is_awaited_over_a_restart(store: Shared) {
    put(&store, vec![simple(1), simple(2)]).await;
    let claimed = claim(&store, "w", at(0), 2).await;
    let exchanges = [90, 91].iter().zip(&claimed);
    let exchanges = exchanges.map(|(number, message)| exchange(*number, message, at(50)));
    store.begin_exchanges(exchanges.collect(), at(0)).await.unwrap();
    let held = |message: &ClaimedMessage| settlement(message.recipients[0].id, awaiting(at(400)), at(1));
    store.settle(vec![held(&claimed[0])], Vec::new()).await.unwrap();

    assert_eq!(store.resume(at(2)).await.unwrap(), 1, "the other one");
    assert_eq!(store.resume(at(2)).await.unwrap(), 0);
    let by_custody = ExchangeName::Custody("ipn:1.26/1/0");
    let found = store.find_exchange(by_custody).await.unwrap().unwrap();
    assert_eq!((found.id, found.recipients.len()), (id(1), 1));
    let open = found.recipients[0].exchange.clone().unwrap();
    assert_eq!((open.id, open.until), (id(90), at(400)));
    assert_eq!(open.custody.as_deref(), Some("ipn:1.26/1/0"));

    // Nothing came; it leaves anew, and is held by nobody until that is known.
    let due = claim(&store, "w", at(399), 2).await;
    assert_eq!(due.iter().map(|message| message.id).collect::<Vec<_>>(), [id(2)]);
    let due = claim(&store, "w", at(400), 2).await;
    assert_eq!(due[0].recipients[0].exchange.as_ref(), Some(&open));
    store
        .begin_exchanges(vec![exchange(90, &due[0], at(500))], at(400))
        .await
        .unwrap();
    assert!(store.find_exchange(by_custody).await.unwrap().is_none());
    assert_eq!(store.resume(at(401)).await.unwrap(), 1);
}

pub(crate) async fn notifications_are_stored_with_their_cause(store: Shared) {
    put(&store, vec![simple(1)]).await;
    let claimed = claim(&store, "w", at(0), 1).await.remove(0);
    let failed = settlement(
        claimed.recipients[0].id,
        Disposition::Failed(EnhancedCode::new(5, 1, 2)),
        at(1),
    );
    let mut dsn = mail(2, vec![recipient("a", "earth.example")]);
    dsn.recipients[0].destination = crate::LOCAL.to_owned();
    dsn.origin = "dsn".to_owned();
    dsn.origin_id = Some(id(1).to_string());
    dsn.sender = Sender::new(ReversePath::Null);
    let orphan = NewMessage {
        id: id(3),
        recipients: Vec::new(),
        ..dsn.clone()
    };
    assert!(store.settle(vec![failed.clone()], vec![orphan]).await.is_err());
    assert_eq!(
        view(&store, 1).await.recipients[0].status,
        Status::Leased,
        "both or none"
    );
    store
        .settle(vec![failed.clone()], vec![dsn.clone()])
        .await
        .unwrap();
    assert_eq!(kinds(&view(&store, 1).await), ["accepted", "failed", "notified"]);
    // The same again, as when two replies come at once: nobody hears of it twice.
    let again = NewMessage { id: id(4), ..dsn };
    store.settle(vec![failed], vec![again]).await.unwrap();
    assert_eq!(kinds(&view(&store, 1).await), ["accepted", "failed", "notified"]);
    assert!(store.message(id(4)).await.unwrap().is_none());
    assert_eq!(view(&store, 2).await.sender, "");
    assert_eq!(store.due(at(1)).await.unwrap()[0].destination, crate::LOCAL);
    audit(&store).await;
}
