//! The sending side of SMTP and LMTP: sessions that are kept and reused.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use lightpost_clock::Clock;
use lightpost_mail::{Envelope, lines::BodyFacts};

use crate::Reply;

/// SMTP or LMTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// SMTP: one reply after the final dot.
    Smtp,
    /// LMTP: a reply per recipient after the final dot.
    Lmtp,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Host and port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Whether STARTTLS is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartTls {
    /// Never.
    Off,
    /// Where offered; an unverified certificate is accepted.
    Opportunistic,
    /// Required and verified.
    Required,
}

/// A server to deliver to.
#[derive(Clone, Debug)]
pub struct Target {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// Where.
    pub address: Address,
    /// TLS.
    pub starttls: StartTls,
    /// TLS settings for [`StartTls::Required`] and opportunistic use.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Our name for EHLO or LHLO.
    pub helo: String,
    /// How long one reply may take (RFC 5321 section 4.5.3.2 asks for minutes).
    pub reply_timeout: Duration,
}

/// What became of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipientOutcome {
    /// The server took responsibility.
    Accepted(Reply),
    /// The server refused, for good or for now ([`Reply::is_permanent`]).
    Refused(Reply),
    /// The mail needs an extension that the server does not offer (8BITMIME for 8-bit bodies is tolerated, SMTPUTF8 is not); nothing was sent for it.
    Unsupported(&'static str),
    /// The connection was cut after the final dot and before the reply: delivered or not, nobody knows.
    Unknown(String),
}

/// Why a session or a delivery failed as a whole; nothing of it was accepted.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SmtpError {
    /// No connection.
    #[error("{server}: cannot connect: {cause}")]
    Connect {
        /// The server.
        server: String,
        /// What happened.
        cause: String,
    },
    /// The connection broke.
    #[error("{server}: connection lost {during}: {cause}")]
    Lost {
        /// The server.
        server: String,
        /// In which command.
        during: &'static str,
        /// What happened.
        cause: String,
    },
    /// The server refused the session (greeting, EHLO, STARTTLS).
    #[error("{server}: {during} refused: {reply}")]
    Refused {
        /// The server.
        server: String,
        /// In which command.
        during: &'static str,
        /// What it said.
        reply: Reply,
    },
    /// The server does not speak the protocol.
    #[error("{server}: {what}")]
    Protocol {
        /// The server.
        server: String,
        /// What is wrong.
        what: String,
    },
    /// The body could not be read; the session is closed before the final dot.
    #[error("the body cannot be read: {0}")]
    Body(String),
}

/// What a delivery brought: an outcome per recipient in the envelope's order, and the reply's remote server.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// In the envelope's order.
    pub recipients: Vec<RecipientOutcome>,
    /// The server, for history and DSN.
    pub server: String,
    /// Whether the server offers DSN (if not, `relayed` notifications are ours to send).
    pub dsn: bool,
}

/// An open session.
pub struct Session {}

impl Session {
    /// Connects, greets, upgrades to TLS as asked.
    ///
    /// # Errors
    /// [`SmtpError`]
    pub async fn open(_target: &Target, _clock: &Clock) -> Result<Self, SmtpError> {
        unimplemented!()
    }

    /// Delivers one mail; the session can be used again unless this fails. `body` is canonical, not stuffed.
    /// ESMTP parameters are passed on as the server offers them.
    ///
    /// # Errors
    /// [`SmtpError`]; nothing was accepted.
    pub async fn deliver(
        &mut self,
        _envelope: &Envelope,
        _facts: &BodyFacts,
        _body: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<Delivery, SmtpError> {
        unimplemented!()
    }

    /// Says QUIT and closes.
    pub async fn close(self) {
        unimplemented!()
    }
}
