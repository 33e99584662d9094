//! Looking at both queues and at the mailbox until every mail's way is known.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use lightpost_queue::{Filter, LOCAL, MessageView, Store, StoreError};
use lightpost_sim::sink::Received;
use tokio::sync::mpsc;
use ulid::Ulid;

use super::journey::{Journey, Stage};

/// Messages that are looked at in one go.
const PAGE: usize = 500;
/// Ids are in order of time, but not within a millisecond: the cursor stays this far behind.
const OVERLAP_MS: u64 = 2000;

/// What is seen of a queue: everything, each message once.
struct Seen {
    store: Arc<dyn Store>,
    ids: HashSet<Ulid>,
    newest: u64,
}

impl Seen {
    fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            ids: HashSet::new(),
            newest: 0,
        }
    }

    async fn news(&mut self) -> Result<Vec<MessageView>, StoreError> {
        let filter = Filter {
            after: Some(Ulid::from_parts(self.newest.saturating_sub(OVERLAP_MS), 0)),
            limit: PAGE,
            ..Filter::default()
        };
        let mut messages = self.store.list(filter).await?;
        messages.retain(|message| self.ids.insert(message.id));
        let newest = messages.iter().map(|message| message.id.timestamp_ms()).max();
        self.newest = self.newest.max(newest.unwrap_or(0));
        Ok(messages)
    }
}

/// All mails of the demo.
pub(super) struct Watch {
    outbox: Seen,
    inbox: Seen,
    mailbox: mpsc::Receiver<Arc<Received>>,
    journeys: Vec<Journey>,
    /// What the gateway has, by exchange.
    arrived: HashMap<String, Timestamp>,
    /// Mails in the mailbox, until they are told apart.
    received: Vec<Arc<Received>>,
}

impl Watch {
    /// Starts to look.
    pub(super) fn new(
        outbox: Arc<dyn Store>,
        inbox: Arc<dyn Store>,
        mailbox: mpsc::Receiver<Arc<Received>>,
    ) -> Self {
        Self {
            outbox: Seen::new(outbox),
            inbox: Seen::new(inbox),
            mailbox,
            journeys: Vec::new(),
            arrived: HashMap::new(),
            received: Vec::new(),
        }
    }

    /// Every mail so far, in the order in which they were handed over.
    pub(super) fn journeys(&self) -> &[Journey] {
        &self.journeys
    }

    /// Tells when a mail was handed over and acknowledged, where that is known better than from the queue. Whether it is
    /// watched already.
    pub(super) fn handed_over(&mut self, id: Ulid, start: Timestamp, acknowledged: Timestamp) -> bool {
        let journey = self.journeys.iter_mut().find(|journey| journey.id == id);
        journey.is_some_and(|journey| {
            journey.handed_over(start, acknowledged);
            true
        })
    }

    /// Looks once. Returns mails that are new with their envelopes.
    ///
    /// # Errors
    /// When a queue cannot be read.
    pub(super) async fn look(&mut self) -> Result<Vec<MessageView>, StoreError> {
        let mut news = self.outbox.news().await?;
        news.retain(|message| {
            message
                .recipients
                .iter()
                .any(|recipient| recipient.destination != LOCAL)
        });
        let connected = self
            .journeys
            .iter()
            .any(|journey| journey.at(Stage::Gateway).is_some());
        for message in &news {
            let mut journey = Journey::new(message.id, message.accepted);
            journey.connected = connected;
            self.journeys.push(journey);
        }
        for message in self.inbox.news().await? {
            if let Some(exchange) = message.origin_id {
                self.arrived.entry(exchange).or_insert(message.accepted);
            }
        }
        while let Ok(mail) = self.mailbox.try_recv() {
            self.received.push(mail);
        }
        for journey in self.journeys.iter_mut().filter(|journey| !journey.is_over()) {
            if let Some(message) = self.outbox.store.message(journey.id).await? {
                journey.learn(&message);
            }
            let there = journey
                .exchanges
                .iter()
                .filter_map(|exchange| self.arrived.get(exchange))
                .min();
            if let Some(at) = there {
                journey.note(Stage::Gateway, *at);
            }
            // Our Received field carries the agent's id to the mailbox.
            let id = journey.id.to_string();
            let delivered = self
                .received
                .iter()
                .position(|mail| contains(&mail.body, id.as_bytes()));
            if let Some(mail) = delivered.map(|place| self.received.swap_remove(place)) {
                journey.note(Stage::Mailbox, mail.at);
            }
        }
        Ok(news)
    }
}

/// Whether `text` occurs in the beginning of `body`, where the trace fields are.
fn contains(body: &[u8], text: &[u8]) -> bool {
    let head = body.get(..4096).unwrap_or(body);
    head.windows(text.len()).any(|window| window == text)
}
