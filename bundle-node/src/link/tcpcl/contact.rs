//! How a session begins (RFC 9174 sections 4 and 4.6): contact headers, then SESS_INIT.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::message::{self, Init, MAGIC, Message};
use crate::{custody::Core, link::End};

/// Contact header flag: this node speaks TLS.
const CAN_TLS: u8 = 1;
/// The largest segment that we take.
pub(super) const SEGMENT: u64 = 1 << 20;

/// What both agreed upon.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// How long nobody has to be silent; `None`: nobody has to say anything.
    pub(super) keepalive: Option<Duration>,
    /// The largest segment that the other takes.
    pub(super) segment: u64,
    /// The largest bundle that the other takes.
    pub(super) transfer: u64,
}

impl Terms {
    /// After how much silence of ours the other is told that we are there: half of what was agreed upon. Whoever counts strictly (dtnd does)
    /// ends a session in which nothing came for all of it, and a word that leaves just then comes too late.
    pub(super) fn quiet(&self) -> Option<Duration> {
        self.keepalive.map(|span| span / 2)
    }
}

/// Exchanges contact headers as the one that called. `tls`: it is required.
pub(super) async fn call<S: AsyncRead + AsyncWrite + Unpin>(
    core: &Core,
    stream: &mut S,
    tls: bool,
) -> Result<(), End> {
    within(core, async {
        header(stream, tls).await?;
        greeting(stream, tls).await
    })
    .await
}

/// Exchanges contact headers as the one that was called. `tls`: it is required.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    core: &Core,
    stream: &mut S,
    tls: bool,
) -> Result<(), End> {
    within(core, async {
        let theirs = greeting(stream, tls).await;
        // One of another version, or without TLS, is told ours, too (section 4.3).
        header(stream, tls).await?;
        theirs
    })
    .await
}

/// Agrees upon terms as the one that called.
pub(super) async fn active<S: AsyncRead + AsyncWrite + Unpin>(
    core: &Core,
    stream: &mut S,
) -> Result<Terms, End> {
    within(core, async {
        write(stream, &Message::Init(ours(core)).encode()).await?;
        terms(core, &init(stream).await?)
    })
    .await
}

/// Agrees upon terms as the one that was called.
pub(super) async fn passive<S: AsyncRead + AsyncWrite + Unpin>(
    core: &Core,
    stream: &mut S,
) -> Result<Terms, End> {
    within(core, async {
        let theirs = init(stream).await?;
        write(stream, &Message::Init(ours(core)).encode()).await?;
        terms(core, &theirs)
    })
    .await
}

/// Within the time for it, and while the node runs.
pub(super) async fn within<T>(core: &Core, contact: impl Future<Output = Result<T, End>>) -> Result<T, End> {
    let limited = core.clock.timeout(core.config.limits.handshake, contact);
    match core.stop.run_until_cancelled(limited).await {
        Some(Ok(result)) => result,
        Some(Err(_)) => Err(End::Silent),
        None => Err(End::Over),
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, octets: &[u8]) -> Result<(), End> {
    stream.write_all(octets).await?;
    Ok(stream.flush().await?)
}

/// Our contact header.
async fn header<S: AsyncWrite + Unpin>(stream: &mut S, tls: bool) -> Result<(), End> {
    let [a, b, c, d, version] = MAGIC;
    let flags = if tls { CAN_TLS } else { 0 };
    write(stream, &[a, b, c, d, version, flags]).await
}

/// Reads theirs.
async fn greeting<S: AsyncRead + Unpin>(stream: &mut S, tls: bool) -> Result<(), End> {
    let mut header = [0; 6];
    stream.read_exact(&mut header).await?;
    if header[..4] != MAGIC[..4] {
        return Err(End::Violation(
            "it does not begin with a TCPCL contact header".to_owned(),
        ));
    }
    if header[4] != MAGIC[4] {
        return Err(End::Violation(format!(
            "it speaks TCPCL version {}, not 4",
            header[4]
        )));
    }
    if tls && header[5] & CAN_TLS == 0 {
        return Err(End::Violation(
            "it does not speak TLS, which is required".to_owned(),
        ));
    }
    Ok(())
}

async fn init<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Init, End> {
    match message::read(stream, 0).await? {
        Some(Message::Init(init)) => Ok(init),
        Some(Message::Term { reason, .. }) => Err(End::Violation(format!(
            "it ends the session at once (SESS_TERM, reason {reason})"
        ))),
        Some(_) => Err(End::Violation("it does not begin with SESS_INIT".to_owned())),
        None => Err(End::Io(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

fn ours(core: &Core) -> Init {
    let limits = &core.config.limits;
    Init {
        keepalive: u16::try_from(limits.keepalive.as_secs()).unwrap_or(u16::MAX),
        segment: SEGMENT,
        transfer: limits.bundle,
        node: core.admin.to_string(),
        strange: false,
    }
}

fn terms(core: &Core, theirs: &Init) -> Result<Terms, End> {
    if theirs.strange {
        return Err(End::Violation(
            "it asks for an unknown session extension".to_owned(),
        ));
    }
    if theirs.segment == 0 {
        return Err(End::Violation("it takes no segments".to_owned()));
    }
    let seconds = theirs.keepalive.min(ours(core).keepalive);
    Ok(Terms {
        keepalive: (seconds > 0).then(|| Duration::from_secs(u64::from(seconds))),
        segment: theirs.segment,
        transfer: theirs.transfer,
    })
}
