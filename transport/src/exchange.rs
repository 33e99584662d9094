//! One HTTP request and, sometime, one response.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use ulid::Ulid;
use url::Url;

/// The body of a request, streamed from the store; can be opened again for a repeat.
pub trait Object: Send + Sync + 'static {
    /// Its octets, from the start.
    fn open(&self) -> BoxStream<'static, std::io::Result<Bytes>>;
    /// Its size in octets, when known before it is encoded.
    fn size(&self) -> Option<u64>;
}

/// One request on its way to a gateway.
#[derive(Clone)]
pub struct Exchange {
    /// Its id, `Idempotency-Key`.
    pub id: Ulid,
    /// The whole URI that is POSTed to. Where the gateway can also, or only, be reached by bundles it says so: [`crate::bundle::endpoint`].
    pub gateway: Url,
    /// The name of the path ([`crate::Path`]) that it takes.
    pub path: String,
    /// Header fields, `Content-Type` and so on; the transport adds host and length only.
    pub headers: HeaderMap,
    /// The body.
    pub object: Arc<dyn Object>,
    /// Octets of the mail in it.
    pub octets: u64,
    /// How long the line is busy with what left before it and has no answer yet, and with itself.
    pub line: Duration,
    /// Whether a bundle node held it before, and no answer came.
    pub held_before: bool,
    /// Sending order, higher first.
    pub priority: i8,
    /// When the mail is given up.
    pub expires: Timestamp,
}

/// The urgency (RFC 9218 section 4.1: 0 is the most urgent, 3 the default) of a priority from -9 to 9 (RFC 6710).
pub fn urgency(priority: i8) -> u8 {
    let thirds = priority.unsigned_abs().div_ceil(3).min(3);
    if priority > 0 { 3 - thirds } else { 3 + thirds }
}

/// The priority that stands for an urgency, where that is all that is known.
pub fn priority(urgency: u8) -> i8 {
    match urgency {
        0 => 9,
        1 => 6,
        2 => 3,
        3 => 0,
        4 => -3,
        5 => -6,
        _ => -9,
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("id", &self.id)
            .field("gateway", &self.gateway.as_str())
            .finish_non_exhaustive()
    }
}

/// A gateway's answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The exchange that it answers.
    pub exchange: Ulid,
    /// HTTP status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body, cut at 64 KiB.
    pub body: Bytes,
}

/// What became of an exchange, as far as is known now.
#[derive(Debug)]
pub enum Outcome {
    /// The gateway answered.
    Replied(Reply),
    /// A bundle node holds it; the reply comes later, or never.
    InCustody {
        /// Until when a reply is worth waiting for.
        until: Timestamp,
        /// What the node calls it: the bundle's id.
        custody: String,
        /// What became of the way that it took before, one line for the history.
        tried: Option<String>,
    },
    /// A bundle node holds it, and by the path's settings that is all that is ever heard of it.
    HandedOver {
        /// One line for the history.
        said: String,
    },
    /// No path now. Not a failed attempt.
    NoContact {
        /// When the next contact begins, as far as is known.
        until: Timestamp,
    },
    /// It did not work.
    Failed(Failure),
}

/// Why an exchange failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// No octet of the request has left: another gateway may be tried at once.
    #[error("{gateway} cannot be reached: {cause}")]
    Unreachable {
        /// The gateway's authority.
        gateway: String,
        /// What happened.
        cause: String,
    },
    /// The request may have arrived.
    #[error("{gateway}: {cause}; the request may have arrived")]
    Interrupted {
        /// The gateway's authority.
        gateway: String,
        /// What happened.
        cause: String,
    },
    /// No reply before the deadline; the request may have arrived.
    #[error("{gateway} has not answered within {}", lightpost_config::duration_text(*waited))]
    NoReply {
        /// The gateway's authority.
        gateway: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The body could not be read from the store.
    #[error("the object cannot be read: {0}")]
    Object(String),
    /// No way that the path offers ever takes an object of this size.
    #[error("{gateway} takes no object of {octets} octets on this way, {most} at most")]
    TooLarge {
        /// The gateway's authority.
        gateway: String,
        /// The object's size as it would travel.
        octets: u64,
        /// The most that goes.
        most: u64,
    },
}

/// News of an exchange that was let go ([`Outcome::InCustody`]). It comes again after a restart unless [`Late::done`] is called.
pub struct Late {
    /// What is new.
    pub news: News,
    /// In a lock only so that news can be looked at from several threads.
    release: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// What became of an exchange that was let go.
#[derive(Clone, Debug)]
pub enum News {
    /// The gateway answered.
    Reply {
        /// The endpoint that says so.
        from: String,
        /// What it says.
        reply: Reply,
    },
    /// A node says that the bundle was delivered.
    Delivered {
        /// The bundle, [`Outcome::InCustody`].
        custody: String,
        /// The node.
        by: String,
    },
    /// A node says that the bundle is gone.
    Deleted {
        /// The bundle, [`Outcome::InCustody`].
        custody: String,
        /// The node.
        by: String,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for News {
    /// One line; the gateway's own words are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply { from, reply } => write!(f, "{from} answered {}", reply.status),
            Self::Delivered { custody, by } => write!(f, "{by} says that bundle {custody} was delivered"),
            Self::Deleted { custody, by, reason } => {
                write!(f, "{by} says that bundle {custody} was deleted: {reason}")
            }
        }
    }
}

impl Late {
    /// News; `release` tells the carrier that it may forget them.
    pub fn new(news: News, release: impl FnOnce() + Send + 'static) -> Self {
        Self {
            news,
            release: Mutex::new(Some(Box::new(release))),
        }
    }

    /// What follows from them is stored: they need not come again.
    pub fn done(self) {
        let release = self.release.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(release) = release {
            release();
        }
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late")
            .field("news", &self.news)
            .finish_non_exhaustive()
    }
}

/// Carries exchanges.
#[async_trait::async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends, and waits for the reply until `deadline` at most.
    async fn send(&self, exchange: Exchange, deadline: Timestamp) -> Outcome;
    /// The next news of an exchange that was let go ([`Outcome::InCustody`]); pends for ever on transports that never let go.
    async fn late(&self) -> Late {
        std::future::pending().await
    }
}

/// How a request reached the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// HTTP/3 over QUIC.
    Http3,
    /// HTTP/2 over TLS.
    Http2,
    /// HTTP/1.1 over TLS.
    Http1,
    /// A bundle.
    Bundle,
}

impl Carrier {
    /// The name for `Received ... with`.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Http3 => "HTTP/3",
            Self::Http2 => "HTTP/2",
            Self::Http1 => "HTTP/1.1",
            Self::Bundle => "BPv7",
        }
    }
}

/// Who sent a request; every listener puts it into the request's extensions. Authorisation is the router's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The DNS names of the verified client certificate, lower case; empty without one.
    pub names: Vec<String>,
    /// The peer's address; none where a bundle brought the request.
    pub address: Option<std::net::SocketAddr>,
    /// The bundle's source, where one brought the request and it may be believed.
    pub endpoint: Option<String>,
    /// How it came.
    pub carrier: Carrier,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_and_urgencies() {
        for (given, urgent, back) in [
            (9, 0, 9),
            (7, 0, 9),
            (6, 1, 6),
            (1, 2, 3),
            (0, 3, 0),
            (-1, 4, -3),
            (-6, 5, -6),
            (-9, 6, -9),
        ] {
            assert_eq!(urgency(given), urgent, "{given}");
            assert_eq!(priority(urgent), back, "{urgent}");
        }
        assert_eq!(priority(7), -9);
    }
}
