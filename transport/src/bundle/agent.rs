//! What a bundle node does for us: takes bundles into custody, hands over those that came for our endpoint, tells what became of ours.
//!
//! The contract that every agent keeps:
//! - [`Agent::send`] returns once the node has the bundle, on its disk as far as the node keeps bundles there. Nothing that it calls blocks
//!   for ever: lack of room is [`SendError::NoRoom`], a node that does not answer is [`SendError::Down`].
//! - What [`Agent::receive`] gave is kept by the agent until [`Delivery::done`]: one that is dropped comes again, after a restart of this
//!   program, too. So a delivery can come twice; its [`BundleId`] tells.
//! - A node that goes away and comes back is the agent's business: `receive` pends meanwhile, [`Agent::status`] says why.

use std::{fmt, time::Duration};

use bytes::Bytes;
use hardy_bpv7::eid::Eid;
use jiff::Timestamp;

/// A bundle node at which we have one endpoint.
#[async_trait::async_trait]
pub trait Agent: Send + Sync + 'static {
    /// Our endpoint: the source of what is sent, the destination of what is received.
    fn endpoint(&self) -> &Eid;
    /// Hands a bundle over.
    ///
    /// # Errors
    /// [`SendError`]; the node does not have the bundle then, and will not send it.
    async fn send(&self, bundle: Outgoing) -> Result<BundleId, SendError>;
    /// The next bundle or status report for our endpoint.
    async fn receive(&self) -> Delivery;
    /// Asks the node to drop a bundle of ours; whether it still had it.
    ///
    /// # Errors
    /// [`SendError::Down`]
    async fn cancel(&self, bundle: &BundleId) -> Result<bool, SendError>;
    /// How the node is.
    async fn status(&self) -> Status;
    /// Lets the node go, in order.
    async fn close(&self);
}

/// A bundle to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where it goes.
    pub destination: Eid,
    /// How long it is kept on its way.
    pub lifetime: Duration,
    /// Class of service, on agents that have one.
    pub class: Class,
    /// Where status reports go; nowhere when `None`.
    pub report_to: Option<Eid>,
    /// Which reports are asked for.
    pub reports: Reports,
    /// The application data unit.
    pub payload: Bytes,
}

/// Class of service (ION's; RFC 5050 section 4.2). Version 7 itself has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// After everything else.
    Bulk,
    /// In between.
    #[default]
    Normal,
    /// Before everything else.
    Expedited,
}

/// Which status reports are asked for (RFC 9171 section 4.2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// When a node has received the bundle.
    pub received: bool,
    /// When a node has forwarded it.
    pub forwarded: bool,
    /// When it was delivered at its destination.
    pub delivered: bool,
    /// When a node has deleted it.
    pub deleted: bool,
}

/// What names a bundle on the whole network (RFC 9171 section 4.2.7), fragments apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BundleId {
    /// Source.
    pub source: Eid,
    /// Creation time in milliseconds since the year 2000, 0 where the source has no clock.
    pub time: u64,
    /// Sequence number.
    pub sequence: u64,
}

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.source, self.time, self.sequence)
    }
}

/// Something for our endpoint. Comes again unless [`Delivery::done`] is called.
pub struct Delivery {
    /// What it is.
    pub content: Content,
    release: Option<Box<dyn FnOnce() + Send>>,
}

/// What was delivered.
#[derive(Clone, Debug)]
pub enum Content {
    /// A bundle.
    Bundle(Incoming),
    /// A status report about a bundle of ours.
    Report(Report),
}

/// A bundle that came.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// What names it.
    pub id: BundleId,
    /// The application data unit.
    pub payload: Bytes,
    /// Which key's integrity block over the payload was verified, when one was.
    pub verified: Option<String>,
    /// When its lifetime ends.
    pub expires: Option<Timestamp>,
}

/// A bundle status report (RFC 9171 section 6.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The bundle that it is about.
    pub about: BundleId,
    /// The node that says so.
    pub from: Eid,
    /// What happened to the bundle there.
    pub event: ReportEvent,
    /// The reason code (RFC 9171 section 9.5), 0 for none.
    pub reason: u64,
    /// When, where the node says so.
    pub at: Option<Timestamp>,
}

/// What happened to a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportEvent {
    /// A node has received it.
    Received,
    /// A node has forwarded it.
    Forwarded,
    /// It was delivered at its destination.
    Delivered,
    /// A node has deleted it.
    Deleted,
}

impl Delivery {
    /// A delivery; `release` tells the node that it may forget it.
    pub fn new(content: Content, release: impl FnOnce() + Send + 'static) -> Self {
        Self {
            content,
            release: Some(Box::new(release)),
        }
    }

    /// It is dealt with, durably: it need not come again.
    pub fn done(mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It takes bundles.
    Up,
    /// It does not.
    Down {
        /// What is wrong.
        why: String,
        /// What the operator can do.
        remedy: String,
    },
}

/// Why a node did not take a bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The node knows no way to the destination.
    #[error("the bundle node has no route to {destination}")]
    NoRoute {
        /// Where it should have gone.
        destination: Eid,
    },
    /// The node has no room now; later it may.
    #[error("the bundle node has no room for {octets} octets now: {why}")]
    NoRoom {
        /// The payload's size.
        octets: u64,
        /// What the node said.
        why: String,
    },
    /// The node never takes a payload of this size.
    #[error("{octets} octets are too large for the bundle node, which takes {most}")]
    TooLarge {
        /// The payload's size.
        octets: u64,
        /// The most that it takes.
        most: u64,
    },
    /// The node does not answer.
    #[error("the bundle node is down: {why}; {remedy}")]
    Down {
        /// What is wrong.
        why: String,
        /// What the operator can do.
        remedy: String,
    },
    /// The node refuses the bundle for good.
    #[error("the bundle node refuses the bundle: {0}")]
    Refused(String),
}
