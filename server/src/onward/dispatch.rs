//! Leasing what is due.

use std::{sync::Arc, time::Duration};

use lightpost_clock::add;
use lightpost_queue::{Claim, ClaimedMessage, StoreError};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::{
    OWNER, Shared,
    deliver::{self, Job},
    place::Place,
    settle::Outcome,
};

/// How long what was leased stays so if its outcome never comes (a delivery that panicked): our own leases end at our start, and
/// what is in flight is not started twice whatever its lease says.
const LEASE: Duration = Duration::from_secs(3600);
/// The longest sleep, whatever the store says.
const LONGEST: Duration = Duration::from_secs(30);
/// The shortest sleep when nothing could be leased.
const SHORTEST: Duration = Duration::from_millis(100);
/// The sleep while a line has no room: its room rings, but another line's mail may become due meanwhile.
const STARVED: Duration = Duration::from_secs(1);
/// The pause after an error of the store.
const PAUSE: Duration = Duration::from_secs(2);

/// What one look at the queue brought.
struct Look {
    /// Mails that were leased.
    leased: usize,
    /// Whether something is due for a line that has no room, or whose server is left alone.
    starved: bool,
}

/// Leases and starts deliveries until the stop.
pub(super) async fn run(shared: &Arc<Shared>, deliveries: &TaskTracker, outcomes: &mpsc::Sender<Outcome>) {
    while !shared.stop.is_cancelled() {
        let pause = match look(shared, deliveries, outcomes).await {
            Ok(Look { leased: 1.., .. }) => continue,
            Ok(Look { starved: true, .. }) => STARVED,
            Ok(_) => until_due(shared).await,
            Err(error) => {
                tracing::error!(%error, "the inbox cannot be read");
                PAUSE
            }
        };
        tokio::select! {
            () = shared.stop.cancelled() => {}
            () = shared.store.changed() => {}
            () = shared.room.notified() => {}
            () = shared.clock.sleep(pause) => {}
        }
    }
}

async fn look(
    shared: &Arc<Shared>,
    deliveries: &TaskTracker,
    outcomes: &mpsc::Sender<Outcome>,
) -> Result<Look, StoreError> {
    let mut due = shared.store.due(shared.clock.now()).await?;
    due.sort_by_key(|one| std::cmp::Reverse(one.priority));
    let mut look = Look {
        leased: 0,
        starved: false,
    };
    for destination in due.into_iter().map(|one| one.destination) {
        let Some(line) = shared.lines.get(shared.config.onward.choose(&destination)) else {
            continue;
        };
        let now = shared.clock.now();
        // Mail for a server that is down is not touched: each lease and its end would be written to the disk for nothing.
        let limit = if line.is_down(now).is_some() {
            0
        } else {
            line.room()
        };
        if limit == 0 {
            look.starved = true;
            continue;
        }
        let claim = Claim {
            owner: OWNER,
            destination: &destination,
            now,
            until: add(now, LEASE),
            limit,
        };
        let claimed = shared.store.claim(claim).await?;
        look.leased += claimed.len();
        for message in claimed {
            begin(shared, deliveries, outcomes, message);
        }
    }
    Ok(look)
}

/// Starts a delivery for each server that the message's recipients have.
fn begin(
    shared: &Arc<Shared>,
    deliveries: &TaskTracker,
    outcomes: &mpsc::Sender<Outcome>,
    message: ClaimedMessage,
) {
    let mut groups: Vec<(usize, Vec<_>)> = Vec::new();
    {
        let mut flight = shared.flight();
        for recipient in &message.recipients {
            if !flight.insert(recipient.id) {
                continue;
            }
            let line = shared.config.onward.choose(&recipient.destination);
            match groups.iter_mut().find(|(other, _)| *other == line) {
                Some((_, group)) => group.push(recipient.clone()),
                None => groups.push((line, vec![recipient.clone()])),
            }
        }
    }
    let message = Arc::new(ClaimedMessage {
        recipients: Vec::new(),
        ..message
    });
    for (line, recipients) in groups {
        let Some(line) = shared.lines.get(line).cloned() else {
            continue;
        };
        let ids = recipients.iter().map(|recipient| recipient.id).collect();
        let job = Job {
            place: Place::take(shared.clone(), line.clone(), ids),
            message: message.clone(),
            recipients,
            line,
        };
        deliveries.spawn(deliver::run(shared.clone(), job, outcomes.clone()));
    }
}

async fn until_due(shared: &Shared) -> Duration {
    match shared.store.next_due().await {
        Ok(Some(due)) => lightpost_clock::until(shared.clock.now(), due).clamp(SHORTEST, LONGEST),
        Ok(None) => LONGEST,
        Err(error) => {
            tracing::error!(%error, "the inbox cannot be read");
            PAUSE
        }
    }
}
