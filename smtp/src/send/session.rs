//! Opening and closing a session.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use lightpost_clock::Clock;
use lightpost_mail::{Envelope, lines::BodyFacts};
use rustls::{ClientConfig, pki_types::ServerName};

use super::{Address, Delivery, Protocol, SmtpError, StartTls, Target};
use crate::{Capabilities, Reply, reply::Lines, tls, wire::Wire};

/// How long a QUIT may take: nothing depends on its reply.
const FAREWELL: Duration = Duration::from_secs(5);

/// An open session.
pub struct Session {
    pub(super) wire: Wire,
    pub(super) protocol: Protocol,
    pub(super) offered: Capabilities,
    encrypted: bool,
    /// Mails tried so far.
    pub(super) tried: u64,
    /// Whether the server accepted MAIL in the current or last transaction.
    pub(super) mail_accepted: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("server", &self.wire.server())
            .field("protocol", &self.protocol)
            .field("encrypted", &self.encrypted)
            .field("reusable", &self.is_reusable())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Connects, greets, upgrades to TLS as asked.
    ///
    /// A server that refuses EHLO for good is greeted by HELO. With [`StartTls::Opportunistic`] a server that fails to
    /// start TLS is used in clear, on a new connection where the handshake broke the first.
    ///
    /// # Errors
    /// [`SmtpError`]
    pub async fn open(target: &Target, clock: &Clock) -> Result<Self, SmtpError> {
        match (target.starttls, &target.tls) {
            (StartTls::Off, _) => Self::open_with(target, clock, None).await,
            (StartTls::Required, Some(config)) => {
                Self::open_with(target, clock, Some(Arc::clone(config))).await
            }
            (StartTls::Required, None) => Err(SmtpError::Protocol {
                server: target.address.to_string(),
                what: "STARTTLS is required, but there are no TLS settings".to_owned(),
            }),
            (StartTls::Opportunistic, None) => Self::open_with(target, clock, None).await,
            (StartTls::Opportunistic, Some(config)) => {
                match Self::open_with(target, clock, Some(tls::unverified(config))).await {
                    Err(SmtpError::Lost {
                        server,
                        during: "TLS handshake",
                        cause,
                    }) => {
                        tracing::debug!(server, cause, "TLS failed, going on in clear");
                        Self::open_with(target, clock, None).await
                    }
                    other => other,
                }
            }
        }
    }

    async fn open_with(
        target: &Target,
        clock: &Clock,
        config: Option<Arc<ClientConfig>>,
    ) -> Result<Self, SmtpError> {
        let wire = Wire::connect(target, clock).await?;
        let mut session = Self {
            wire,
            protocol: target.protocol,
            offered: Capabilities::default(),
            encrypted: false,
            tried: 0,
            mail_accepted: false,
        };
        let greeting = session.wire.reply("greeting").await?.into();
        session.require(greeting, "greeting")?;
        session.hello(&target.helo).await?;
        if let Some(config) = config {
            session = session.start_tls(target, config).await?;
        }
        Ok(session)
    }

    async fn hello(&mut self, helo: &str) -> Result<(), SmtpError> {
        let verb = match self.protocol {
            Protocol::Smtp => "EHLO",
            Protocol::Lmtp => "LHLO",
        };
        let lines = self.command(verb, &format!("{verb} {helo}")).await?;
        let offered = Capabilities::read(lines.iter().skip(1));
        let reply = Reply::from(lines);
        if reply.is_permanent() && self.protocol == Protocol::Smtp {
            self.offered = Capabilities::default();
            let reply = self.command("HELO", &format!("HELO {helo}")).await?.into();
            return self.require(reply, "HELO");
        }
        self.require(reply, verb)?;
        self.offered = offered;
        Ok(())
    }

    async fn start_tls(mut self, target: &Target, config: Arc<ClientConfig>) -> Result<Self, SmtpError> {
        let required = target.starttls == StartTls::Required;
        if !self.offered.starttls {
            return if required {
                Err(self
                    .wire
                    .protocol("STARTTLS is required, but the server does not offer it".to_owned()))
            } else {
                Ok(self)
            };
        }
        let reply = Reply::from(self.command("STARTTLS", "STARTTLS").await?);
        if !required && !reply.is_positive() && reply.code != 421 {
            tracing::debug!(server = self.wire.server(), %reply, "STARTTLS refused, going on in clear");
            return Ok(self);
        }
        self.require(reply, "STARTTLS")?;
        let name = match &target.address {
            Address::Tcp(host, _) => host.clone(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        let name = ServerName::try_from(name)
            .map_err(|error| self.wire.protocol(format!("no name for a certificate: {error}")))?;
        let wire = self.wire.start_tls(name, config).await?;
        self = Self {
            wire,
            encrypted: true,
            offered: Capabilities::default(),
            ..self
        };
        // What was offered in clear no longer counts (RFC 3207 section 4.2).
        self.hello(&target.helo).await?;
        Ok(self)
    }

    /// Sends one command and reads its reply.
    pub(super) async fn command(&mut self, verb: &'static str, line: &str) -> Result<Lines, SmtpError> {
        self.wire.output.extend_from_slice(line.as_bytes());
        self.wire.output.extend_from_slice(b"\r\n");
        self.wire.flush(verb).await?;
        self.wire.reply(verb).await
    }

    fn require(&mut self, reply: Reply, during: &'static str) -> Result<(), SmtpError> {
        match reply.code {
            200..=299 => Ok(()),
            300..=399 => Err(self.wire.protocol(format!("{during}: unexpected reply {reply}"))),
            _ => {
                self.wire.shut();
                let server = self.wire.server().to_owned();
                Err(SmtpError::Refused {
                    server,
                    during,
                    reply,
                })
            }
        }
    }

    /// Delivers one mail; the session can be used again if [`Session::is_reusable`] says so. `body` is canonical, not
    /// stuffed, and `facts` are its own: a body of another size is not sent. ESMTP parameters are passed on as the server
    /// offers them.
    ///
    /// # Errors
    /// [`SmtpError`]; nothing was accepted.
    pub async fn deliver(
        &mut self,
        envelope: &Envelope,
        facts: &BodyFacts,
        mut body: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<Delivery, SmtpError> {
        self.transact(envelope, facts, &mut body).await
    }

    /// Whether another mail may be delivered on it.
    pub fn is_reusable(&self) -> bool {
        self.wire.is_open()
    }

    /// Whether the server has closed the session or spoken unasked since the last reply.
    pub(crate) fn is_stale(&mut self) -> bool {
        self.wire.is_stale()
    }

    /// Whether a mail was tried on it before.
    pub(crate) fn is_used(&self) -> bool {
        self.tried > 0
    }

    /// Whether the last transaction ended the session before the server accepted MAIL.
    pub(crate) fn died_at_mail(&self) -> bool {
        !self.wire.is_open() && !self.mail_accepted
    }

    /// What the server offers.
    pub fn capabilities(&self) -> &Capabilities {
        &self.offered
    }

    /// Whether TLS is on.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Says QUIT and closes.
    pub async fn close(mut self) {
        if self.wire.is_open() {
            self.wire.hurry(FAREWELL);
            // Nothing is left that a failure could harm.
            let _ = self.command("QUIT", "QUIT").await;
        }
    }
}
