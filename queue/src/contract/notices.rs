//! Telling that mail is late.

use super::*;
use crate::{LOCAL, Notice, Quiet, Status, WaitReason};

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
        quiet: Vec::new(),
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
        quiet: Vec::new(),
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

pub(crate) async fn who_was_told_is_kept_with_the_notice(store: Shared) {
    let mails = (1..=4).map(|number| mail(number, vec![slow("b", 10)]));
    let mut mails: Vec<_> = mails.collect();
    mails[2].sender = Sender::new(ReversePath::Address(Address::parse("z@earth.example").unwrap()));
    mails[3].recipients[0].destination = "mars.example".into();
    put(&store, mails).await;
    let late = store.late(at(10), 10).await.unwrap().messages;
    assert!(late.iter().all(|message| !message.recipients[0].quiet));
    let sender = late[0].sender.path.to_string();
    let notice = |number: usize, message, until| Notice {
        recipients: vec![(late[number].recipients[0].id, None)],
        message,
        quiet: vec![Quiet {
            sender: sender.clone(),
            destination: "moon.example".into(),
            until: at(until),
        }],
    };
    // Of one that is there nobody is told, so nobody was.
    let claimed = claim(&store, "w", at(0), 4).await;
    let done = claimed.iter().find(|one| one.id == id(2)).unwrap().recipients[0].id;
    store
        .settle(vec![settlement(done, Disposition::Delivered, at(1))], Vec::new())
        .await
        .unwrap();
    assert!(!store.notice(notice(1, Some(told(5, 2)), 100)).await.unwrap());
    let quiet = async |now| {
        let late = store.late(at(now), 10).await.unwrap().messages;
        let quiet = late.iter().filter(|message| message.recipients[0].quiet);
        quiet.map(|message| message.id).collect::<Vec<_>>()
    };
    assert!(quiet(10).await.is_empty());
    // The first is told of and late no more; then a shorter time does not take the longer one back.
    assert!(store.notice(notice(0, Some(told(6, 1)), 100)).await.unwrap());
    put(
        &store,
        vec![mail(7, vec![slow("c", 20)]), mail(8, vec![slow("d", 20)])],
    )
    .await;
    assert_eq!(quiet(20).await, [id(7), id(8)]);
    let seventh = store.late(at(20), 10).await.unwrap().messages;
    let seventh = seventh.iter().find(|message| message.id == id(7)).unwrap();
    let shorter = Notice {
        recipients: vec![(seventh.recipients[0].id, None)],
        ..notice(0, Some(told(9, 7)), 50)
    };
    assert!(store.notice(shorter).await.unwrap());
    assert_eq!(quiet(99).await, [id(8)]);
    // Who is told of another destination, and who is somebody else, hears of it; and so does everybody after the time.
    assert!(quiet(100).await.is_empty());
    audit(&store).await;
}
