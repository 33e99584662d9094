//! One connection: whole replies in, groups of commands out, every wait bounded.

use std::{io, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use futures_util::FutureExt;
use lightpost_clock::Clock;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

use crate::{
    reply::{Assembler, LINE_MAX, Lines, quoted},
    send::{Address, SmtpError, Target},
};

/// How much is read from the connection at once.
const READ: usize = 4 * 1024;

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// A connection to a server.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    /// Read, not yet used.
    input: BytesMut,
    /// Commands or body for the next [`Wire::flush`].
    pub(crate) output: Vec<u8>,
    clock: Clock,
    timeout: Duration,
    server: String,
    open: bool,
}

impl Wire {
    /// Connects.
    pub(crate) async fn connect(target: &Target, clock: &Clock) -> Result<Self, SmtpError> {
        let server = target.address.to_string();
        let failed = |cause: String| SmtpError::Connect {
            server: server.clone(),
            cause,
        };
        let _hold = clock.hold();
        let stream = clock
            .timeout(target.reply_timeout, open(&target.address))
            .await
            .map_err(|_| failed(format!("no answer within {:?}", target.reply_timeout)))?
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            stream,
            input: BytesMut::with_capacity(READ),
            output: Vec::new(),
            clock: clock.clone(),
            timeout: target.reply_timeout,
            server,
            open: true,
        })
    }

    /// Puts TLS around the connection. What the server sent in clear behind its reply to STARTTLS is thrown away: it
    /// would otherwise be taken for replies that came under TLS (CVE-2011-0411 and its like).
    pub(crate) async fn start_tls(
        mut self,
        name: ServerName<'static>,
        config: Arc<ClientConfig>,
    ) -> Result<Self, SmtpError> {
        if !self.input.is_empty() {
            tracing::warn!(
                server = self.server,
                octets = self.input.len(),
                "clear text behind STARTTLS is ignored"
            );
            self.input.clear();
        }
        let Self {
            stream,
            clock,
            timeout,
            server,
            ..
        } = self;
        let lost = |cause: String| SmtpError::Lost {
            server: server.clone(),
            during: "TLS handshake",
            cause,
        };
        let _hold = clock.hold();
        let stream = clock
            .timeout(timeout, TlsConnector::from(config).connect(name, stream))
            .await
            .map_err(|_| lost(format!("not done within {timeout:?}")))?
            .map_err(|error| lost(error.to_string()))?;
        Ok(Self {
            stream: Box::new(stream),
            input: self.input,
            output: self.output,
            clock,
            timeout,
            server,
            open: true,
        })
    }

    /// The server's host and port, or its socket.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Whether commands may follow.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// No command may follow any more.
    pub(crate) fn shut(&mut self) {
        self.open = false;
    }

    /// Limits every wait from here on.
    pub(crate) fn hurry(&mut self, timeout: Duration) {
        self.timeout = self.timeout.min(timeout);
    }

    /// Whether the server has closed the connection or said something unasked, such as 421, since the last reply.
    pub(crate) fn is_stale(&mut self) -> bool {
        if !self.open || !self.input.is_empty() {
            return true;
        }
        // One look, no waiting: anything that is ready, octets or the end, is not what an idle server has to say.
        self.stream.read_buf(&mut self.input).now_or_never().is_some()
    }

    /// Sends what is in `output`.
    pub(crate) async fn flush(&mut self, during: &'static str) -> Result<(), SmtpError> {
        let Self {
            stream,
            output,
            clock,
            timeout,
            ..
        } = self;
        let _hold = clock.hold();
        let sent = clock
            .timeout(*timeout, async {
                stream.write_all(output).await?;
                stream.flush().await
            })
            .await;
        self.output.clear();
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lost(during, error.to_string())),
            Err(_) => Err(self.lost(during, format!("nothing was taken within {:?}", self.timeout))),
        }
    }

    /// Reads one reply.
    pub(crate) async fn reply(&mut self, during: &'static str) -> Result<Lines, SmtpError> {
        let clock = self.clock.clone();
        let _hold = clock.hold();
        match clock.timeout(self.timeout, self.read_reply(during)).await {
            Ok(read) => read,
            Err(_) => Err(self.lost(during, format!("no reply within {:?}", self.timeout))),
        }
    }

    async fn read_reply(&mut self, during: &'static str) -> Result<Lines, SmtpError> {
        let mut assembler = Assembler::default();
        loop {
            let window = self.input.get(..LINE_MAX).unwrap_or(&self.input);
            if let Some(end) = window.iter().position(|octet| *octet == b'\n') {
                let pushed = assembler.push(window.get(..=end).unwrap_or_default());
                self.input.advance(end + 1);
                match pushed {
                    Ok(true) => return Ok(assembler.finish()),
                    Ok(false) => continue,
                    Err(garbled) => return Err(self.protocol(format!("{during}: {}", garbled.0))),
                }
            }
            if window.len() == LINE_MAX {
                let what = format!(
                    "{during}: a reply line of more than {LINE_MAX} octets: {}",
                    quoted(window)
                );
                return Err(self.protocol(what));
            }
            self.input.reserve(READ);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err(self.lost(during, "closed by the server".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(self.lost(during, error.to_string())),
            }
        }
    }

    /// The connection is of no further use.
    fn lost(&mut self, during: &'static str, cause: String) -> SmtpError {
        self.open = false;
        SmtpError::Lost {
            server: self.server.clone(),
            during,
            cause,
        }
    }

    /// The server does not follow the protocol; who knows what it says next.
    pub(crate) fn protocol(&mut self, what: String) -> SmtpError {
        self.open = false;
        SmtpError::Protocol {
            server: self.server.clone(),
            what,
        }
    }
}

async fn open(address: &Address) -> io::Result<Box<dyn Stream>> {
    Ok(match address {
        Address::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}
