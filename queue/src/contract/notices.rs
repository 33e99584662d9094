//! Telling that mail is late.

use super::*;
use crate::{LOCAL, Notice, Status, WaitReason};

fn slow(local: &str, notice: u64) -> NewRecipient {
    NewRecipient {
        notice: Some(at(notice)),
        ..recipient(local, "moon.example")
    }
}

fn told(number: u128, about: u128) -> NewMessage {
    let mut dsn = mail(number, vec![recipient("a", "earth.example")]);
    dsn.recipients[0].destination = LOCAL.to_owned();
    dsn.origin_id = Some(id(about).to_string());
    dsn
}

pub(crate) async fn what_is_late_is_told_once(store: Shared) {
    put(
        &store,
        vec![mail(1, vec![slow("b", 10), slow("c", 20)]), simple(2)],
    )
    .await;
    assert_eq!(store.next_notice().await.unwrap(), Some(at(10)));
    assert!(store.late(at(9), 10).await.unwrap().messages.is_empty());
    let late = store.late(at(20), 10).await.unwrap().messages;
    assert_eq!((late.len(), late[0].id, late[0].recipients.len()), (1, id(1), 2));
    let one = &late[0].recipients[0];
    assert_eq!(
        (one.status, one.reason, one.notice, one.sent),
        (Status::Queued, Some(WaitReason::New), at(10), false)
    );
    let (b, c) = (one.id, late[0].recipients[1].id);
    let notice = Notice {
        recipients: vec![(b, None), (c, Some(at(100)))],
        message: Some(told(3, 1)),
    };
    assert!(store.notice(notice).await.unwrap());
    assert_eq!(kinds(&view(&store, 1).await), ["accepted", "notified"]);
    assert_eq!(view(&store, 3).await.recipients[0].destination, LOCAL);
    assert_eq!(store.next_notice().await.unwrap(), Some(at(100)));
    assert!(store.late(at(99), 10).await.unwrap().messages.is_empty());
    audit(&store).await;
}

pub(crate) async fn what_is_done_is_not_late(store: Shared) {
    put(&store, vec![mail(1, vec![slow("b", 10), slow("c", 10)])]).await;
    let late = store.late(at(10), 10).await.unwrap().messages.remove(0);
    let claimed = claim(&store, "w", at(0), 1).await.remove(0);
    let delivered = settlement(claimed.recipients[0].id, Disposition::Delivered, at(1));
    store.settle(vec![delivered], Vec::new()).await.unwrap();
    let both = |message| Notice {
        recipients: late.recipients.iter().map(|one| (one.id, Some(at(50)))).collect(),
        message,
    };
    assert!(
        !store.notice(both(Some(told(2, 1)))).await.unwrap(),
        "it would report of one that is there"
    );
    assert!(store.message(id(2)).await.unwrap().is_none());
    assert_eq!(store.next_notice().await.unwrap(), Some(at(10)));
    // A change of times alone concerns those that wait.
    assert!(store.notice(both(None)).await.unwrap());
    let late = store.late(at(50), 10).await.unwrap().messages.remove(0);
    assert_eq!(late.recipients.len(), 1);
    assert_eq!(late.recipients[0].status, Status::Leased);
    let rest = settlement(late.recipients[0].id, Disposition::Expired, at(60));
    store.settle(vec![rest], Vec::new()).await.unwrap();
    assert_eq!(store.next_notice().await.unwrap(), None);
    audit(&store).await;
}
