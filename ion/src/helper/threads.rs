//! The threads that call ION.

use std::{
    sync::{Arc, mpsc as channel},
    thread,
    time::Duration,
};

use lightpost_clock::Clock;
use tokio::sync::mpsc;

use super::{
    END,
    inbox::{Inbox, Window},
    orders::{self, Work},
    relay::{Events, Start},
};
use crate::{library::Node, protocol::Trouble, spool};

/// Requests that wait for their turn, as many at a time as were read together.
const WAITING: usize = 256;

/// The threads that call ION. They end when this is dropped.
pub(super) struct Threads {
    orders: Option<channel::SyncSender<Vec<Work>>>,
    stop: Option<channel::Sender<()>>,
    pub(super) ended: mpsc::Receiver<Option<Trouble>>,
    handles: Vec<thread::JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(
        node: &Arc<Node>,
        writer: spool::Writer,
        start: &Start,
        events: &Events,
        clock: &Clock,
    ) -> (Arc<Window>, Self) {
        let window = Arc::new(Window::default());
        let (orders, taken) = channel::sync_channel(WAITING);
        let (stop, stopped) = channel::channel();
        let (over, ended) = mpsc::channel(2);
        let sending = {
            let (node, events, clock, over) = (Arc::clone(node), events.clone(), clock.clone(), over.clone());
            thread::spawn(move || {
                let trouble = orders::run(&node, &taken, &events, &clock);
                drop(node);
                let _ = over.try_send(trouble);
            })
        };
        let mut inbox = Inbox {
            node: Arc::clone(node),
            writer,
            folder: start.spool.clone(),
            largest: start.largest,
            window: Arc::clone(&window),
            events: events.clone(),
            clock: clock.clone(),
        };
        let receiving = thread::spawn(move || {
            let trouble = inbox.run(&stopped);
            drop(inbox);
            let _ = over.try_send(trouble);
        });
        let threads = Self {
            orders: Some(orders),
            stop: Some(stop),
            ended,
            handles: vec![sending, receiving],
        };
        (window, threads)
    }

    /// Passes work on.
    ///
    /// # Errors
    /// The work, when too much waits already.
    pub(super) fn pass(&self, works: Vec<Work>) -> Result<(), Vec<Work>> {
        if works.is_empty() {
            return Ok(());
        }
        match &self.orders {
            Some(orders) => orders.try_send(works).map_err(|error| match error {
                channel::TrySendError::Full(works) | channel::TrySendError::Disconnected(works) => works,
            }),
            None => Err(works),
        }
    }

    /// Lets the threads finish what they are at, and the node go. Never while a thread is inside a transaction.
    pub(super) async fn end(mut self, node: Arc<Node>, clock: &Clock) {
        self.orders = None;
        self.stop = None;
        let mut patience = END;
        while self.handles.iter().any(|handle| !handle.is_finished()) {
            let pause = Duration::from_millis(5);
            clock.sleep(pause).await;
            patience = patience.saturating_sub(pause);
            if patience.is_zero() && !node.is_inside() {
                // It hangs before the node's lock, and nothing of ours is inside.
                return;
            }
        }
        if let Some(node) = Arc::into_inner(node) {
            node.close();
        }
    }
}
