//! What monitoring asks.

use super::{Shared, at, claim, put, settlement, simple};
use crate::{Disposition, NewMessage};

fn count(store: &Shared, kind: &str) -> u64 {
    let events = store.events();
    events
        .iter()
        .find(|(known, _)| *known == kind)
        .map_or(0, |(_, count)| *count)
}

pub(crate) async fn what_happens_is_counted(store: Shared) {
    assert_eq!(store.oldest().await.unwrap(), None);
    let since = |number: u128, seconds| NewMessage {
        accepted: at(seconds),
        ..simple(number)
    };
    put(&store, vec![since(1, 1), since(2, 2), since(3, 3)]).await;
    assert_eq!(count(&store, "accepted"), 3);
    assert_eq!(store.oldest().await.unwrap(), Some(at(1)));
    let claimed = claim(&store, "w", at(10), 2).await;
    let settlements = [
        (&claimed[0], Disposition::Delivered),
        (&claimed[1], Disposition::Expired),
    ];
    let settlements =
        settlements.map(|(one, disposition)| settlement(one.recipients[0].id, disposition, at(11)));
    store.settle(settlements.to_vec(), Vec::new()).await.unwrap();
    assert_eq!((count(&store, "delivered"), count(&store, "expired")), (1, 1));
    assert_eq!(count(&store, "failed"), 0);
    // Those before it are done.
    assert_eq!(store.oldest().await.unwrap(), Some(at(3)));
    let claimed = claim(&store, "w", at(12), 1).await;
    let last = settlement(claimed[0].recipients[0].id, Disposition::Delivered, at(13));
    // What is told twice counts once.
    store.settle(vec![last.clone()], Vec::new()).await.unwrap();
    store.settle(vec![last], Vec::new()).await.unwrap();
    assert_eq!(count(&store, "delivered"), 2);
    assert_eq!(store.oldest().await.unwrap(), None);
    put(&store, vec![since(4, 20)]).await;
    assert_eq!(store.oldest().await.unwrap(), Some(at(20)));
}
