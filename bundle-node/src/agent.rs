//! A service of the node, as the exchange above sees it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hardy_bpv7::eid::Eid;
use jiff::Timestamp;
use lightpost_transport::bundle::agent::{
    Agent, BundleId, Class, Content, Delivery, Incoming, Outgoing, SendError, Status,
};

use crate::{
    bundle::{
        head,
        make::Draft,
        report::{self, Subject},
    },
    count::Count,
    custody::{Core, Way, way},
    eid,
    feed::{Feed, Held},
    node::Inner,
    store::{StoreError, Stored},
};

/// What blocks and their heads take beside the payload, at most.
const HEADROOM: u64 = 4096;
/// How long a delivery that was not dealt with waits before it comes again.
const AGAIN: Duration = Duration::from_millis(200);

/// A service of a [`crate::Node`].
pub struct NodeAgent {
    endpoint: Eid,
    feed: Arc<Feed>,
    node: Arc<Inner>,
    closed: AtomicBool,
}

/// A delivery in the hands of the exchange: given back unless it is released.
struct Delivering {
    held: Option<Held>,
    subject: Option<Subject>,
    core: Arc<Core>,
}

impl Delivering {
    fn release(mut self) {
        if let Some(held) = self.held.take() {
            self.core.delivered(held, self.subject.as_ref());
        }
    }
}

impl Drop for Delivering {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            held.give_back(AGAIN);
        }
    }
}

impl NodeAgent {
    pub(crate) fn new(node: Arc<Inner>, service: u32, feed: Arc<Feed>) -> Self {
        Self {
            endpoint: eid::ipn(node.core.config.number, service),
            feed,
            node,
            closed: AtomicBool::new(false),
        }
    }

    fn core(&self) -> &Arc<Core> {
        &self.node.core
    }

    /// What a bundle in the store says; `None` when it says nothing that could be used.
    async fn content(&self, stored: &Stored) -> Result<(Content, Option<Subject>), String> {
        let data = self
            .core()
            .store
            .load(stored)
            .await
            .map_err(|error| error.to_string())?;
        let bundle = head::stored(&data)?;
        let payload = self
            .core()
            .keyring
            .payload(&bundle, &data)
            .ok_or("no key decrypts it")?;
        if bundle.flags.is_admin_record {
            let report = report::read(&bundle.id.source, &payload)?;
            return Ok((Content::Report(report), None));
        }
        let incoming = Incoming {
            id: head::bundle_id(&bundle.id),
            payload,
            verified: stored.verified.clone(),
            expires: Timestamp::from_millisecond(stored.expires).ok(),
        };
        Ok((Content::Bundle(incoming), Subject::of(&bundle)))
    }

    fn refused(&self, error: StoreError, octets: u64) -> SendError {
        match error {
            StoreError::Bound { .. } | StoreError::Full { .. } => {
                self.core().counters.add(Count::NoRoom);
                SendError::NoRoom {
                    octets,
                    why: error.to_string(),
                }
            }
            StoreError::Fault { .. } => SendError::Down {
                why: error.to_string(),
                remedy: "check the disk of the bundle node's folder".to_owned(),
            },
            StoreError::Closed => closed(),
        }
    }
}

fn closed() -> SendError {
    SendError::Down {
        why: "it is ending".to_owned(),
        remedy: "start it again".to_owned(),
    }
}

#[async_trait::async_trait]
impl Agent for NodeAgent {
    fn endpoint(&self) -> &Eid {
        &self.endpoint
    }

    async fn send(&self, bundle: Outgoing) -> Result<BundleId, SendError> {
        let core = self.core();
        if core.stop.is_cancelled() {
            return Err(closed());
        }
        let octets = bundle.payload.len() as u64;
        let most = core.config.limits.bundle.saturating_sub(HEADROOM);
        if octets > most {
            return Err(SendError::TooLarge { octets, most });
        }
        let destination = eid::plain(&bundle.destination);
        let Way::To(place) = way(&core.config, &destination) else {
            return Err(SendError::NoRoute { destination });
        };
        let draft = Draft {
            source: self.endpoint.clone(),
            destination,
            report_to: bundle.report_to.unwrap_or(Eid::Null),
            reports: bundle.reports,
            administrative: false,
            lifetime: bundle.lifetime,
            hops: core.config.limits.hops,
            payload: &bundle.payload,
        };
        let rank = match bundle.class {
            Class::Bulk => 0,
            Class::Normal => 1,
            Class::Expedited => 2,
        };
        let (id, record) = core.record(draft, place, rank).map_err(SendError::Refused)?;
        let refused = |error| self.refused(error, octets);
        let putting = core
            .store
            .put(record, Vec::new(), Vec::new())
            .await
            .map_err(refused)?;
        putting.stored().await.map_err(refused)?;
        core.counters.add(Count::Sent);
        Ok(id)
    }

    async fn receive(&self) -> Delivery {
        loop {
            let held = self.feed.next().await;
            match self.content(held.stored()).await {
                Ok((content, subject)) => {
                    let delivering = Delivering {
                        held: Some(held),
                        subject,
                        core: Arc::clone(self.core()),
                    };
                    return Delivery::new(content, move || delivering.release());
                }
                Err(error) => {
                    let bundle = &held.stored().key;
                    tracing::error!(
                        bundle,
                        error,
                        "a bundle for us cannot be read; it stays until its lifetime ends"
                    );
                    held.park();
                }
            }
        }
    }

    async fn cancel(&self, bundle: &BundleId) -> Result<bool, SendError> {
        self.core()
            .cancel(&bundle.to_string())
            .await
            .map_err(|error| self.refused(error, 0))
    }

    async fn status(&self) -> Status {
        if self.core().stop.is_cancelled() {
            return Status::Down {
                why: "it is ending".to_owned(),
                remedy: "start it again".to_owned(),
            };
        }
        match self.core().store.failing() {
            None => Status::Up,
            Some(why) => Status::Down {
                why,
                remedy: "make room on the disk of the bundle node's folder, or check it".to_owned(),
            },
        }
    }

    async fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.node.agent_closed().await;
        }
    }
}
