//! The driver of one connection: lines and bodies in, replies out, every wait bounded.
//!
//! Replies are held back while whole commands are left to read, so that a group that came together (PIPELINING) is answered together.

use std::{io, pin::Pin, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use lightpost_clock::Clock;
use lightpost_mail::lines::{Unstuffed, Unstuffer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{Next, Peer, Receiver, Session, Settings, reply};
use crate::Reply;

/// Octets of a command line with its CRLF. RFC 5321 allows 512, and the parameters of DSN, SMTPUTF8 and the like come on top.
const LINE: usize = 4 * 1024;
/// Octets that are read at once, and that wait at most beside the line that is being read.
const READ: usize = 16 * 1024;
/// How long a whole body may take, however steadily it trickles.
const BODY_WITHIN: Duration = Duration::from_secs(3_600);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(60);
/// How long the last reply may take to leave.
const FAREWELL: Duration = Duration::from_secs(5);

/// Octets that are read away behind a last reply.
const LINGER: usize = 1 << 20;

/// What a connection runs on.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// By QUIT, by our decision, or because the peer closed it between two mails.
    Closed,
    /// The peer closed it, or the network broke, where more should have come.
    Lost(io::Error),
    /// Something is said before it is closed.
    Said(Reply),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// Serves one connection to its end. After `stop` it ends before the next command.
pub async fn converse<R: Receiver>(
    stream: impl Connection + 'static,
    peer: Peer,
    receiver: Arc<R>,
    settings: Arc<Settings>,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut output = Vec::with_capacity(1024);
    let address = peer.address;
    let session = Session::new(receiver, settings.clone(), peer, &mut output);
    let mut driver = Driver {
        stream: Some(Box::new(stream)),
        input: BytesMut::with_capacity(READ),
        output,
        session,
        settings,
        clock,
        stopped: Box::pin(stop.cancelled_owned()),
        scratch: Vec::new(),
    };
    let mut said = false;
    match driver.run().await {
        End::Closed => {}
        End::Lost(error) => tracing::debug!(?address, %error, "the connection is lost"),
        End::Said(refusal) => {
            tracing::debug!(?address, %refusal, "the connection is ended");
            Session::<R>::farewell(&refusal, &mut driver.output);
            said = true;
        }
    }
    driver.close(said).await;
}

struct Driver<R: Receiver> {
    /// Gone only when a TLS handshake failed.
    stream: Option<Stream>,
    /// Read, not yet used.
    input: BytesMut,
    /// Replies to be sent.
    output: Vec<u8>,
    session: Session<R>,
    settings: Arc<Settings>,
    clock: Clock,
    /// Made once: to ask for it anew before each command takes a lock that all connections share.
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// What a piece of a body becomes.
    scratch: Vec<u8>,
}

impl<R: Receiver> Driver<R> {
    async fn run(&mut self) -> End {
        loop {
            let next = match self.command().await {
                Ok(next) => next,
                Err(end) => return end,
            };
            let done = match next {
                Next::Command => Ok(()),
                Next::Data => self.body(None).await,
                Next::Chunk { size, last } => self.body(Some((size, last))).await,
                Next::StartTls => self.start_tls().await,
                Next::Close => Err(End::Closed),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Reads a line and carries it out.
    async fn command(&mut self) -> Result<Next, End> {
        let end = match line_end(&self.input)? {
            Some(end) => end,
            None => {
                self.flush().await?;
                let clock = self.clock.clone();
                let reading = read_line(self.stream.as_mut(), &mut self.input);
                let line = clock.timeout(self.settings.idle, reading);
                let line = tokio::select! {
                    biased;
                    line = line => line,
                    () = &mut self.stopped => return Err(End::Said(reply(421, Some((4, 3, 2)), "the service ends"))),
                };
                match line {
                    Ok(end) => end?,
                    Err(_) => return Err(End::Said(reply(421, Some((4, 4, 2)), "no command came in time"))),
                }
            }
        };
        let line = self.input.get(..end).unwrap_or_default();
        let next = self.session.line(line, &mut self.output);
        self.input.advance(end + 2);
        Ok(next)
    }

    /// Reads a body, up to its final dot or as a chunk, and answers it.
    async fn body(&mut self, chunk: Option<(u64, bool)>) -> Result<(), End> {
        let clock = self.clock.clone();
        let reading = async {
            match chunk {
                None => self.dotted().await,
                Some((size, _)) => self.counted(size).await,
            }
        };
        match clock.timeout(BODY_WITHIN, reading).await {
            Ok(read) => read?,
            Err(_) => return Err(late()),
        }
        match chunk {
            Some((_, last)) => match self.session.chunk_end(last, &mut self.output).await {
                Next::Close => Err(End::Closed),
                _ => Ok(()),
            },
            None => {
                self.session.end(&mut self.output).await;
                Ok(())
            }
        }
    }

    async fn dotted(&mut self) -> Result<(), End> {
        self.flush().await?;
        let mut unstuffer = Unstuffer::keeping_bare();
        loop {
            self.more().await?;
            self.scratch.clear();
            // It keeps bare line ends, so it finds no fault.
            let read = unstuffer.push(&self.input, &mut self.scratch);
            let read = read.map_err(io::Error::other)?;
            let used = match read {
                Unstuffed::More => self.input.len(),
                Unstuffed::End(used) => used,
            };
            self.input.advance(used);
            if !self.session.body(&self.scratch).await {
                return Err(self.overlong());
            }
            if read != Unstuffed::More {
                return Ok(());
            }
        }
    }

    async fn counted(&mut self, mut left: u64) -> Result<(), End> {
        while left > 0 {
            self.more().await?;
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(self.input.len());
            let piece = self.input.split_to(here);
            left -= here as u64;
            if !self.session.body(&piece).await {
                return Err(self.overlong());
            }
        }
        Ok(())
    }

    /// Waits until something is there to read.
    async fn more(&mut self) -> Result<(), End> {
        if !self.input.is_empty() {
            return Ok(());
        }
        // Replies to chunks that came together wait no longer.
        self.flush().await?;
        let clock = self.clock.clone();
        match clock.timeout(self.settings.idle, self.fill()).await {
            Ok(Ok(0)) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(read) => Ok(read.map(drop)?),
            Err(_) => Err(late()),
        }
    }

    fn overlong(&self) -> End {
        End::Said(super::session::too_large(self.settings.max_message))
    }

    async fn start_tls(&mut self) -> Result<(), End> {
        self.flush().await?;
        // What was sent in clear behind the command would be taken for commands under TLS (CVE-2011-0411 and its like).
        if !self.input.is_empty() {
            tracing::warn!(
                octets = self.input.len(),
                "clear text behind STARTTLS is thrown away"
            );
            self.input.clear();
        }
        let (Some(config), Some(stream)) = (self.settings.tls.clone(), self.stream.take()) else {
            return Err(End::Closed);
        };
        let handshake = TlsAcceptor::from(config).accept(stream);
        let stream = match self.clock.timeout(HANDSHAKE, handshake).await {
            Ok(stream) => stream?,
            Err(_) => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        };
        let certified = stream.get_ref().1.peer_certificates().is_some();
        self.stream = Some(Box::new(stream));
        self.session.secured(certified);
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<usize> {
        fill(self.stream.as_mut(), &mut self.input).await
    }

    async fn flush(&mut self) -> Result<(), End> {
        let Some(stream) = &mut self.stream else {
            return Err(End::Closed);
        };
        if self.output.is_empty() {
            return Ok(());
        }
        let sending = async {
            stream.write_all(&self.output).await?;
            stream.flush().await
        };
        let sent = self.clock.timeout(self.settings.idle, sending).await;
        self.output.clear();
        match sent {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }

    /// Sends what is left to be said. Nothing depends on it any more; but a peer that still sends would lose a last reply to the reset of
    /// a closed connection, so its octets are read away for a while.
    async fn close(mut self, said: bool) {
        let Some(stream) = &mut self.stream else { return };
        let last = async {
            stream.write_all(&self.output).await?;
            stream.shutdown().await?;
            let mut left = LINGER;
            while said && left > 0 {
                self.input.clear();
                match stream.read_buf(&mut self.input).await? {
                    0 => break,
                    read => left = left.saturating_sub(read),
                }
            }
            Ok::<_, io::Error>(())
        };
        let _ = self.clock.timeout(FAREWELL, last).await;
    }
}

type Stream = Box<dyn Connection>;

async fn fill(stream: Option<&mut Stream>, input: &mut BytesMut) -> io::Result<usize> {
    let Some(stream) = stream else {
        return Ok(0);
    };
    input.reserve(READ);
    stream.read_buf(input).await
}

/// Reads until a line is complete; where its CRLF stands.
async fn read_line(mut stream: Option<&mut Stream>, input: &mut BytesMut) -> Result<usize, End> {
    loop {
        if fill(stream.as_deref_mut(), input).await? == 0 {
            return Err(if input.is_empty() {
                End::Closed
            } else {
                io::Error::from(io::ErrorKind::UnexpectedEof).into()
            });
        }
        if let Some(end) = line_end(input)? {
            return Ok(end);
        }
    }
}

fn late() -> End {
    End::Said(reply(421, Some((4, 4, 2)), "the mail did not come in time"))
}

/// Where the first line's CRLF stands. A line that is too long, or an LF without its CR, ends the connection: what follows could be
/// anything, and somebody may want us to take it for commands.
fn line_end(input: &[u8]) -> Result<Option<usize>, End> {
    let window = input.get(..LINE).unwrap_or(input);
    match window.iter().position(|octet| *octet == b'\n') {
        Some(at) => match at
            .checked_sub(1)
            .filter(|before| window.get(*before) == Some(&b'\r'))
        {
            Some(end) => Ok(Some(end)),
            None => Err(End::Said(reply(
                521,
                Some((5, 5, 2)),
                "a bare LF ends no command",
            ))),
        },
        None if window.len() == LINE => {
            let text = format!("a command of more than {LINE} octets");
            Err(End::Said(reply(500, Some((5, 5, 2)), text)))
        }
        None => Ok(None),
    }
}
