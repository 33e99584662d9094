//! What is done now and then: removing finished messages, keeping the resolver's answers on disk.

use std::{sync::Arc, time::Duration};

use lightpost_clock::{Clock, sub};
use lightpost_queue::Store;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Recipients, Route},
    discover::Discovery,
};

/// How often finished messages are looked for.
const PERIOD: Duration = Duration::from_secs(60);
/// How often the files of recipients are looked at.
const RELOAD: Duration = Duration::from_secs(2);
/// Answers that come close to each other are written together.
const GATHER: Duration = Duration::from_secs(1);

/// Removes messages that are done for longer than `retention`.
pub(crate) async fn purge(store: Arc<dyn Store>, clock: Clock, retention: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = clock.sleep(PERIOD) => {}
            () = stop.cancelled() => return,
        }
        loop {
            let now = clock.now();
            match store.purge(sub(now, retention), now).await {
                Ok(0) => break,
                Ok(removed) => tracing::debug!(removed, "finished messages are removed"),
                Err(error) => {
                    tracing::warn!(%error, "finished messages cannot be removed");
                    break;
                }
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }
}

/// Reads lists of recipients again when their files have changed.
pub(crate) async fn reload_recipients(routes: Vec<Route>, clock: Clock, stop: CancellationToken) {
    let lists: Vec<Recipients> = routes.into_iter().filter_map(|route| route.recipients).collect();
    if lists.is_empty() {
        return;
    }
    loop {
        tokio::select! {
            () = clock.sleep(RELOAD) => {}
            () = stop.cancelled() => return,
        }
        let lists = lists.clone();
        let read = tokio::task::spawn_blocking(move || lists.iter().for_each(Recipients::reload));
        if read.await.is_err() {
            tracing::warn!("the lists of recipients could not be looked at");
        }
    }
}

/// Writes what the resolver said to disk.
pub(crate) async fn keep_answers(discovery: Arc<Discovery>, clock: Clock, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = discovery.changed() => clock.sleep(GATHER).await,
            () = stop.cancelled() => break,
        }
        discovery.save().await;
    }
    discovery.save().await;
}
