//! Requests and replies in bundles, over a node in memory that keeps what it is given as a real one does.

mod exchange;
mod payload;
mod ways;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use hardy_bpv7::eid::Eid;
use http::{HeaderMap, StatusCode};
use lightpost_clock::{Clock, add};
use tokio::sync::Notify;
use ulid::Ulid;

use super::{
    agent::{Agent, BundleId, Content, Delivery, Incoming, Outgoing, Report, ReportEvent, SendError, Status},
    client::BundleTransport,
    options::{Form, NoReply, Options},
};
use crate::{Exchange, Failure, Late, News, Object, Outcome, Reply, Transport};

pub(super) fn eid(text: &str) -> Eid {
    text.parse().unwrap()
}

/// Two endpoints at one node. What is received stays until it is done with: a fresh agent for the same endpoint gets it again.
#[derive(Default)]
pub(super) struct Node {
    kept: Mutex<Kept>,
    news: Notify,
}

#[derive(Default)]
struct Kept {
    sent: u64,
    /// By endpoint, with the number that names the delivery.
    waiting: HashMap<String, VecDeque<(u64, Content)>>,
    given: HashMap<String, Vec<(u64, Content)>>,
    refuses: Option<SendError>,
    log: Vec<Outgoing>,
}

impl Node {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn agent(self: &Arc<Self>, endpoint: &str) -> Arc<At> {
        let mut kept = self.kept();
        let again = kept.given.remove(endpoint).unwrap_or_default();
        let waiting = kept.waiting.entry(endpoint.to_owned()).or_default();
        for one in again.into_iter().rev() {
            waiting.push_front(one);
        }
        Arc::new(At {
            node: self.clone(),
            endpoint: eid(endpoint),
        })
    }

    pub(super) fn refuse(&self, error: Option<SendError>) {
        self.kept().refuses = error;
    }

    /// What was sent so far.
    pub(super) fn log(&self) -> Vec<Outgoing> {
        self.kept().log.clone()
    }

    /// Deliveries for an endpoint that are not done with.
    pub(super) fn left(&self, endpoint: &str) -> usize {
        let kept = self.kept();
        kept.waiting.get(endpoint).map_or(0, VecDeque::len) + kept.given.get(endpoint).map_or(0, Vec::len)
    }

    pub(super) fn put(&self, endpoint: &str, content: Content) {
        let mut kept = self.kept();
        kept.sent += 1;
        let number = kept.sent;
        kept.waiting
            .entry(endpoint.to_owned())
            .or_default()
            .push_back((number, content));
        drop(kept);
        self.news.notify_waiters();
    }

    fn forget(&self, endpoint: &str, number: u64) {
        if let Some(given) = self.kept().given.get_mut(endpoint) {
            given.retain(|(other, _)| *other != number);
        }
    }
}

/// An endpoint at the node.
pub(super) struct At {
    node: Arc<Node>,
    endpoint: Eid,
}

#[async_trait::async_trait]
impl Agent for At {
    fn endpoint(&self) -> &Eid {
        &self.endpoint
    }

    async fn send(&self, bundle: Outgoing) -> Result<BundleId, SendError> {
        let id = {
            let mut kept = self.node.kept();
            if let Some(error) = &kept.refuses {
                return Err(error.clone());
            }
            kept.log.push(bundle.clone());
            BundleId {
                source: self.endpoint.clone(),
                time: 1,
                sequence: kept.log.len() as u64,
            }
        };
        let incoming = Incoming {
            id: id.clone(),
            payload: bundle.payload,
            verified: None,
            expires: Some(add(Clock::system().now(), bundle.lifetime)),
        };
        self.node
            .put(&bundle.destination.to_string(), Content::Bundle(incoming));
        Ok(id)
    }

    async fn receive(&self) -> Delivery {
        let name = self.endpoint.to_string();
        loop {
            let mut news = std::pin::pin!(self.node.news.notified());
            news.as_mut().enable();
            let next = {
                let mut kept = self.node.kept();
                let next = kept.waiting.get_mut(&name).and_then(VecDeque::pop_front);
                if let Some(next) = &next {
                    kept.given.entry(name.clone()).or_default().push(next.clone());
                }
                next
            };
            if let Some((number, content)) = next {
                let node = self.node.clone();
                return Delivery::new(content, move || node.forget(&name, number));
            }
            news.await;
        }
    }

    async fn cancel(&self, _: &BundleId) -> Result<bool, SendError> {
        Ok(false)
    }

    async fn status(&self) -> Status {
        Status::Up
    }

    async fn close(&self) {}
}

pub(super) struct Whole(pub(super) &'static [u8]);

impl Object for Whole {
    fn open(&self) -> BoxStream<'static, std::io::Result<Bytes>> {
        futures_util::stream::iter([Ok(Bytes::from_static(self.0))]).boxed()
    }

    fn size(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }
}

pub(super) const OBJECT: &[u8] = b"EHLO relay.earth.example\r\nMAIL FROM:<a@earth.example>\r\n";

pub(super) fn exchange(gateway: &str) -> Exchange {
    let id = Ulid::generate();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/batch-SMTP".parse().unwrap());
    headers.insert("idempotency-key", format!("\"{id}\"").parse().unwrap());
    Exchange {
        id,
        gateway: gateway.parse().unwrap(),
        path: "moon".into(),
        headers,
        object: Arc::new(Whole(OBJECT)),
        octets: OBJECT.len() as u64,
        line: Duration::ZERO,
        held_before: false,
        priority: 0,
        expires: soon(3600),
    }
}

pub(super) fn soon(seconds: u64) -> jiff::Timestamp {
    add(Clock::system().now(), Duration::from_secs(seconds))
}

pub(super) fn transport(node: &Arc<Node>, options: Options) -> BundleTransport {
    let paths = [("moon".to_owned(), options)];
    BundleTransport::new(node.agent("ipn:1.26"), paths, Clock::system())
}

pub(super) async fn patient<F: Future>(future: F) -> F::Output {
    Clock::system()
        .timeout(Duration::from_secs(20), future)
        .await
        .unwrap_or_else(|_| panic!("not within 20 s"))
}
