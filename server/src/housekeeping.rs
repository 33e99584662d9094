//! Removing what is done and old.

use std::{sync::Arc, time::Duration};

use lightpost_clock::{Clock, sub};
use lightpost_queue::Store;
use tokio_util::sync::CancellationToken;

/// The pause between two rounds.
const ROUND: Duration = Duration::from_secs(600);
/// The pause between two steps of a round that has more to do, so that mail goes first.
const STEP: Duration = Duration::from_millis(200);

/// Purges until `stop`.
pub(crate) async fn run(store: Arc<dyn Store>, clock: Clock, retention: Duration, stop: CancellationToken) {
    loop {
        let now = clock.now();
        let pause = match store.purge(sub(now, retention), now).await {
            Ok(0) => ROUND,
            Ok(removed) => {
                tracing::debug!(removed, "old messages removed");
                STEP
            }
            Err(error) => {
                tracing::warn!(%error, "old messages cannot be removed");
                ROUND
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = clock.sleep(pause) => {}
        }
    }
}
