//! One HTTP request and, sometime, one response.

use std::{fmt, sync::Arc, time::Duration};

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
    /// The whole URI that is POSTed to.
    pub gateway: Url,
    /// The name of the path ([`crate::Path`]) that it takes.
    pub path: String,
    /// Header fields, `Content-Type` and so on; the transport adds host and length only.
    pub headers: HeaderMap,
    /// The body.
    pub object: Arc<dyn Object>,
    /// Sending order, higher first.
    pub priority: i8,
    /// When the mail is given up.
    pub expires: Timestamp,
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
}

/// Carries exchanges.
#[async_trait::async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends, and waits for the reply until `deadline` at most.
    async fn send(&self, exchange: Exchange, deadline: Timestamp) -> Outcome;
    /// The next reply to an exchange that was let go ([`Outcome::InCustody`]); pends for ever on transports that never let go.
    async fn late_reply(&self) -> Reply {
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
}

impl Carrier {
    /// The name for `Received ... with`.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Http3 => "HTTP/3",
            Self::Http2 => "HTTP/2",
            Self::Http1 => "HTTP/1.1",
        }
    }
}

/// Who sent a request; every listener puts it into the request's extensions. Authorisation is the router's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The DNS names of the verified client certificate, lower case; empty without one.
    pub names: Vec<String>,
    /// The peer's address.
    pub address: std::net::SocketAddr,
    /// How it came.
    pub carrier: Carrier,
}
