//! How far the reading of an object is: from its end on a reply is waited for.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use tokio::sync::Notify;

use super::state::Hedge;
use crate::Object;

/// Counts what is read of an object.
pub(super) struct Counted {
    pub(super) object: Arc<dyn Object>,
    pub(super) reading: Arc<Reading>,
}

/// How far the reading of an object is.
pub(super) struct Reading {
    hedge: Arc<Hedge>,
    pub(super) octets: AtomicU64,
    /// How often its end was read: more than once when early data was rejected.
    pub(super) ends: AtomicU64,
    pub(super) whole: Notify,
}

impl Reading {
    pub(super) fn new(hedge: Arc<Hedge>) -> Arc<Self> {
        Arc::new(Self {
            hedge,
            octets: AtomicU64::new(0),
            ends: AtomicU64::new(0),
            whole: Notify::new(),
        })
    }
}

impl Object for Counted {
    fn open(&self) -> BoxStream<'static, std::io::Result<Bytes>> {
        let reading = self.reading.clone();
        let pieces = self.object.open().inspect({
            let reading = reading.clone();
            move |piece| {
                let octets = piece.as_ref().map_or(0, |piece| piece.len() as u64);
                reading.octets.fetch_add(octets, Ordering::Relaxed);
                reading.hedge.octets.fetch_add(octets, Ordering::Relaxed);
            }
        });
        let end = futures_util::stream::poll_fn(move |_| {
            reading.ends.fetch_add(1, Ordering::Relaxed);
            reading.whole.notify_one();
            std::task::Poll::Ready(None)
        });
        pieces.chain(end).boxed()
    }

    fn size(&self) -> Option<u64> {
        self.object.size()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let octets = self.octets.load(Ordering::Relaxed);
        self.hedge.octets.fetch_sub(octets, Ordering::Relaxed);
    }
}
