//! Storing outcomes, as many at once as there are.

use std::time::Duration;

use lightpost_queue::{NewMessage, Settlement};
use tokio::sync::mpsc;

use super::{Shared, place::Place};

/// Outcomes in one transaction.
const BATCH: usize = 256;
/// The pauses between attempts to store while the store does not work.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// What became of one delivery.
pub(super) struct Outcome {
    /// The place that it took.
    pub(super) place: Place,
    /// Its recipients' next status.
    pub(super) settlements: Vec<Settlement>,
    /// What the sender is told.
    pub(super) notification: Option<NewMessage>,
}

/// Stores outcomes until every delivery has ended.
pub(super) async fn run(shared: &Shared, outcomes: &mut mpsc::Receiver<Outcome>) {
    let mut batch = Vec::with_capacity(BATCH);
    while outcomes.recv_many(&mut batch, BATCH).await > 0 {
        let settlements: Vec<Settlement> = batch
            .iter()
            .flat_map(|outcome| outcome.settlements.iter().cloned())
            .collect();
        let notifications: Vec<NewMessage> = batch
            .iter_mut()
            .filter_map(|outcome| outcome.notification.take())
            .collect();
        let places: Vec<Place> = batch.drain(..).map(|outcome| outcome.place).collect();
        store(shared, settlements, notifications).await;
        drop(places);
    }
}

/// Tries until it works: what was handed over must not be handed over again because a disk was full for an hour. Room is given
/// back only afterwards, so that memory stays bounded.
async fn store(shared: &Shared, settlements: Vec<Settlement>, notifications: Vec<NewMessage>) {
    let mut pause = FIRST;
    loop {
        let result = shared
            .store
            .settle(settlements.clone(), notifications.clone())
            .await;
        let Err(error) = result else { return };
        tracing::error!(%error, mails = settlements.len(), "outcomes cannot be stored; no mail is handed over until they can");
        shared.clock.sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}
