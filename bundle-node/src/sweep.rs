//! The end of lifetimes.

use std::{sync::Arc, time::Duration};

use hardy_bpv7::status_report::ReasonCode;
use jiff::Timestamp;
use lightpost_clock::add;
use lightpost_transport::bundle::agent::ReportEvent;

use crate::{
    bundle::head,
    count::Count,
    custody::Core,
    store::{StoreError, Stored},
};

/// Bundles deleted in one step.
const STEP: u32 = 32;
/// Between two steps at least, for many lifetimes that end one after the other.
const PAUSE: Duration = Duration::from_millis(500);

/// Deletes bundles as their lifetimes end, until the node stops.
pub(crate) async fn run(core: Arc<Core>) {
    let stop = core.stop.clone();
    stop.run_until_cancelled(async {
        loop {
            if let Err(error) = sweep(&core).await {
                tracing::error!(%error, "bundles whose lifetime is over could not be deleted");
            }
            core.clock.sleep(PAUSE).await;
        }
    })
    .await;
}

/// Waits for the next lifetime to end, and deletes what has none left.
async fn sweep(core: &Core) -> Result<(), StoreError> {
    let next = core.store.next_expiry().await?;
    let next = Timestamp::from_millisecond(next).unwrap_or(Timestamp::MAX);
    if next > core.clock.now() {
        tokio::select! {
            () = core.clock.sleep_until(next) => {}
            () = core.store.earlier_expiry() => return Ok(()),
        }
    }
    let now = core.clock.now();
    loop {
        let expired = core.store.expired(now.as_millisecond(), STEP).await?;
        for stored in &expired {
            expire(core, stored).await?;
        }
        if expired.is_empty() {
            break;
        }
    }
    core.store
        .forget(add(now, Duration::from_millis(1)).as_millisecond());
    Ok(())
}

async fn expire(core: &Core, stored: &Stored) -> Result<(), StoreError> {
    let bundle = match core.store.load(stored).await {
        Ok(data) => head::stored(&data).ok(),
        Err(_) => None,
    };
    let refused = core.was_refused(stored.id);
    let reason = if refused {
        ReasonCode::NoTimelyContactWithNextNodeOnRoute
    } else {
        ReasonCode::LifetimeExpired
    };
    let also = bundle.map_or_else(Vec::new, |bundle| {
        core.reports(&bundle, ReportEvent::Deleted, reason)
    });
    if core.store.taken(stored, false, also).await? {
        core.counters.add(Count::Expired);
        if refused {
            let bundle = &stored.key;
            tracing::warn!(
                bundle,
                "the lifetime of a bundle that its neighbour refused is over; it is deleted"
            );
        }
    }
    core.forget_refusals(stored.id);
    Ok(())
}
