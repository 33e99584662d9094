//! Receiving mail: the server's half of SMTP (RFC 5321) and LMTP (RFC 2033).
//!
//! [`Session`] is the state machine: it takes one command line and writes one reply, has no I/O and no clock. The driver in
//! `connection` reads lines and bodies, bounds every wait, and starts TLS; [`serve`] accepts connections up to the limits. What a mail
//! is worth is not decided here: a [`Receiver`] takes or refuses each recipient and stores the body, and its word is the reply.
//!
//! A line ends in CRLF and in nothing else. A bare LF where a command should stand ends the connection; in a body it is text, which the
//! receiver normalises or refuses. Only CRLF, dot, CRLF ends a body (CVE-2023-51764 and its like live on anything else).

mod command;
mod connection;
mod listener;
mod session;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc, time::Duration};

use lightpost_mail::{EnhancedCode, Recipient, Sender};
use rustls::ServerConfig;

pub use command::{Command, CommandError};
pub use connection::{Connection, converse};
pub use listener::{Listener, serve};
pub use session::{Next, Session};

use crate::{Reply, send::Protocol};

/// Who is at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its address; none on a Unix socket.
    pub address: Option<IpAddr>,
    /// What it calls itself: the argument of HELO, EHLO or LHLO.
    pub helo: String,
    /// Whether it said EHLO or LHLO.
    pub extended: bool,
    /// Whether the connection is under TLS.
    pub tls: bool,
    /// Whether it has shown a client certificate that was verified.
    pub certified: bool,
}

impl Peer {
    /// The protocol for a trace field (RFC 3848; RFC 6531 section 4.3).
    pub fn with(&self, protocol: Protocol, smtputf8: bool) -> &'static str {
        match (protocol, smtputf8, self.tls) {
            (Protocol::Smtp, false, false) if !self.extended => "SMTP",
            (Protocol::Smtp, false, false) => "ESMTP",
            (Protocol::Smtp, false, true) => "ESMTPS",
            (Protocol::Smtp, true, false) => "UTF8SMTP",
            (Protocol::Smtp, true, true) => "UTF8SMTPS",
            (Protocol::Lmtp, false, false) => "LMTP",
            (Protocol::Lmtp, false, true) => "LMTPS",
            (Protocol::Lmtp, true, false) => "UTF8LMTP",
            (Protocol::Lmtp, true, true) => "UTF8LMTPS",
        }
    }
}

/// Takes mail, or says why not.
pub trait Receiver: Send + Sync + 'static {
    /// A mail that is being received. Dropped before [`Incoming::finish`] it leaves nothing behind.
    type Mail: Incoming;

    /// A mail begins (MAIL). Answers at once.
    ///
    /// # Errors
    /// The reply that refuses it.
    fn begin(&self, peer: &Peer, sender: Sender) -> Result<Self::Mail, Reply>;
}

/// A mail that is being received. The calls come in this order: [`Incoming::recipient`] for each RCPT, [`Incoming::body`] for each piece,
/// [`Incoming::finish`].
pub trait Incoming: Send + 'static {
    /// A recipient (RCPT). Answers at once.
    ///
    /// # Errors
    /// The reply that refuses it; the mail goes on without.
    fn recipient(&mut self, recipient: Recipient) -> Result<(), Reply>;

    /// Octets of the body, dot-stuffing removed, line ends as they were sent.
    ///
    /// # Errors
    /// The reply that refuses the mail. What follows of the body is thrown away, and the reply given at its end.
    fn body(&mut self, octets: &[u8]) -> impl Future<Output = Result<(), Reply>> + Send;

    /// The body is complete. The reply says that the mail is taken, so it comes when the mail is safe on disk.
    ///
    /// # Errors
    /// The reply that refuses the mail; nothing of it is kept.
    fn finish(self) -> impl Future<Output = Result<Reply, Reply>> + Send;
}

/// How a listener behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What it speaks.
    pub protocol: Protocol,
    /// Our name, for greeting and EHLO.
    pub name: String,
    /// The certificate for STARTTLS; not offered when `None`.
    pub tls: Option<Arc<ServerConfig>>,
    /// Octets of one mail at most, announced by SIZE.
    pub max_message: u64,
    /// Recipients of one mail at most.
    pub max_recipients: usize,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_per_address: usize,
    /// Commands that fail, or commands since the last mail, before the connection is ended.
    pub errors: usize,
    /// How long a command may take to arrive, and the next piece of a body (RFC 5321 section 4.5.3.2.7: five minutes).
    pub idle: Duration,
}

/// A reply of ours.
pub(crate) fn reply(code: u16, enhanced: Option<(u8, u16, u16)>, text: impl Into<String>) -> Reply {
    Reply {
        code,
        enhanced: enhanced.map(|(class, subject, detail)| EnhancedCode::new(class, subject, detail)),
        text: text.into(),
    }
}
