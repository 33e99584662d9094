//! What the writer remembers is what the database says.

use std::time::Duration;

use bytes::Bytes;
use lightpost_clock::add;
use tempfile::TempDir;

use super::{reopen, store};
use crate::{
    ClaimedMessage, Disposition, NewBody, NewMessage, Status,
    contract::{Shared, at, claim, exchange, mail, put, recipient, settlement, simple, view},
};

/// Mails with what a row could change.
fn mails() -> Vec<NewMessage> {
    let odd = Duration::from_nanos(123_456_789);
    let mut first = mail(
        1,
        vec![recipient("b", "moon.example"), recipient("c", "mars.example")],
    );
    first.accepted = add(at(0), odd);
    first.recipients[0].expires = add(at(900), odd);
    first.recipients[1].notice = Some(at(40));
    first.origin_id = Some("key".to_owned());
    first.upstream = Some("ABC".to_owned());
    let mut later = mail(
        2,
        vec![recipient("b", "moon.example"), recipient("d", "moon.example")],
    );
    later.recipients[1].due = at(30);
    let mut held = simple(3);
    held.hold = Some("asked for".to_owned());
    let mut large = simple(4);
    large.body = NewBody::Inline(Bytes::from(vec![b'x'; 20_000]));
    large.facts.size = 20_000;
    let mut preferred = simple(5);
    preferred.priority = 3;
    vec![first, later, held, large, preferred]
}

async fn claimed(store: &Shared) -> String {
    let mut all: Vec<ClaimedMessage> = Vec::new();
    for seconds in [10, 40] {
        all.extend(claim(store, "earth", at(seconds), 10).await);
    }
    format!("{all:#?}")
}

#[tokio::test]
async fn a_claim_gives_the_same_from_memory_and_from_disk() {
    let (warm, cold) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let remembering: Shared = store(&warm).await;
    put(&remembering, mails()).await;
    let forgetful: Shared = store(&cold).await;
    put(&forgetful, mails()).await;
    forgetful.close().await;
    let forgetful: Shared = reopen(&cold.path().join("queue.db")).await;
    assert_eq!(claimed(&remembering).await, claimed(&forgetful).await);
}

#[tokio::test]
async fn what_another_process_writes_is_seen() {
    let folder = TempDir::new().unwrap();
    let ours: Shared = store(&folder).await;
    let theirs: Shared = reopen(&folder.path().join("queue.db")).await;
    put(&ours, vec![simple(1), simple(2)]).await;
    let messages = claim(&ours, "earth", at(1), 10).await;
    let (first, second) = (&messages[0], &messages[1]);
    ours.begin_exchanges(vec![exchange(77, second, at(60))], at(1))
        .await
        .unwrap();

    // An outcome that came over there first is the one that counts.
    let delivered = settlement(first.recipients[0].id, Disposition::Delivered, at(2));
    theirs.settle(vec![delivered], Vec::new()).await.unwrap();
    let failed = Disposition::Failed(lightpost_mail::EnhancedCode::new(5, 0, 0));
    let failed = settlement(first.recipients[0].id, failed, at(3));
    ours.settle(vec![failed], Vec::new()).await.unwrap();
    assert_eq!(view(&ours, 1).await.recipients[0].status, Status::Delivered);

    // What was claimed over there is not claimed here, although it was stored here.
    put(&ours, vec![simple(3)]).await;
    assert_eq!(claim(&theirs, "other", at(4), 10).await.len(), 1);
    assert!(claim(&ours, "earth", at(4), 10).await.is_empty());
    let due = claim(&ours, "earth", at(70), 10).await;
    assert_eq!(due.len(), 2, "{due:?}");
    assert!(due.iter().any(|one| one.recipients[0].exchange.is_some()));
}

#[tokio::test]
async fn more_than_is_remembered_comes_back_whole() {
    let folder = TempDir::new().unwrap();
    let store: Shared = store(&folder).await;
    let body = |number: u128| Bytes::from(vec![b'a' + u8::try_from(number % 26).unwrap(); 15_000]);
    for number in 0..400 {
        let mut message = simple(number);
        message.body = NewBody::Inline(body(number));
        message.facts.size = 15_000;
        put(&store, vec![message]).await;
    }
    let claimed = claim(&store, "earth", at(1), 1000).await;
    assert_eq!(claimed.len(), 400);
    for (number, message) in (0..).zip(&claimed) {
        assert_eq!(message.content.as_ref(), Some(&body(number)));
        assert_eq!(message.recipients.len(), 1);
    }
    assert!(claim(&store, "earth", at(2), 1000).await.is_empty());
}
