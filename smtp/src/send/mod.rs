//! The sending side of SMTP and LMTP: sessions that are kept and reused.

mod command;
mod session;
#[cfg(test)]
mod tests;
mod transaction;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

pub use session::Session;

use crate::Reply;

/// SMTP or LMTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// SMTP: one reply after the final dot.
    Smtp,
    /// LMTP: a reply per recipient after the final dot.
    Lmtp,
}

impl fmt::Display for Protocol {
    /// `smtp` or `lmtp`, as in configurations.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Smtp => "smtp",
            Self::Lmtp => "lmtp",
        })
    }
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Host and port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    /// `host:port`, `[2001:db8::1]:port` or the socket's path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
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
    /// TLS settings for [`StartTls::Required`] and opportunistic use; the latter replaces their certificate verifier. Without
    /// them [`StartTls::Opportunistic`] goes in clear and [`StartTls::Required`] fails.
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
    /// The final dot went out and no reply came back (cut, silence or garbage): delivered or not, nobody knows. RFC 1047
    /// describes the case: the server may have taken the mail, and sending it again may deliver it twice; SMTP has
    /// no way to ask. The text says what happened instead of the reply.
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
