//! STCP and MTCP: a stream of bundles one way, with nothing back.
//!
//! Who takes bundles has no word for "not now": it reads no further until there is room. Who sends them counts them as forwarded when
//! the socket has taken them; what the other node did not read before it died is lost, which the operator of such a neighbour accepts.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, mpsc},
};

use super::{
    End,
    frame::{self, Head},
    heard::{Heard, Listening},
    peer::{NeighbourState, Peer},
};
use crate::{
    config::Framing,
    count::Count,
    custody::{Core, Ready},
    ingress::{Refusal, Taken},
};

/// Bundles that are being written to the store at a time.
const WRITING: usize = 64;
/// How long a connection lives without a bundle or a sign of life: not every sender gives one.
const IDLE: Duration = Duration::from_secs(3600);
/// How long a sender may pause within a bundle.
const WITHIN: Duration = Duration::from_secs(60);
/// How long to wait when there is no room.
const NO_ROOM: Duration = Duration::from_secs(1);
/// Octets read at once.
const READ: usize = 64 * 1024;

/// A bundle that came, until it is on disk.
struct Coming {
    data: Bytes,
    taken: Result<Taken, Refusal>,
    _room: OwnedSemaphorePermit,
}

/// Takes bundles from a connection that another node made.
pub(super) async fn serve(core: &Arc<Core>, framing: Framing, stream: TcpStream, peer: &str) -> End {
    let (out, coming) = mpsc::channel(WRITING);
    let reading = read(core, framing, BufReader::with_capacity(READ, stream), peer, out);
    let both = async {
        let (end, ()) = tokio::join!(reading, settle(core, coming, peer));
        end
    };
    core.stop.run_until_cancelled(both).await.unwrap_or(End::Over)
}

async fn read<R: AsyncRead + Unpin>(
    core: &Core,
    framing: Framing,
    stream: R,
    peer: &str,
    out: mpsc::Sender<Coming>,
) -> End {
    let most = core.config.limits.bundle;
    let heard = Heard::default();
    let mut stream = Listening {
        stream,
        heard: heard.clone(),
    };
    loop {
        let head = heard.within(core, IDLE, frame::read(framing, &mut stream, most));
        let length = match head.await {
            Ok(Some(Head::Bundle(length))) => length,
            Ok(Some(Head::Keepalive)) => continue,
            Ok(None) => return End::Over,
            Err(end) => return end,
        };
        let kib = u32::try_from(length.div_ceil(1024)).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&core.inbound).acquire_many_owned(kib).await else {
            return End::Over;
        };
        let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
        let filling = async { Ok(stream.read_exact(&mut data).await.map(drop)?) };
        if let Err(end) = heard.within(core, WITHIN, filling).await {
            return end;
        }
        let data = Bytes::from(data);
        let taken = core.accept(data.clone(), peer).await;
        let coming = Coming {
            data,
            taken,
            _room: room,
        };
        if out.send(coming).await.is_err() {
            return End::Over;
        }
    }
}

/// Sees to it that what came gets to the disk.
async fn settle(core: &Core, mut coming: mpsc::Receiver<Coming>, peer: &str) {
    while let Some(next) = coming.recv().await {
        let mut taken = next.taken;
        loop {
            let settled = match taken {
                Ok(taken) => core.settled(taken).await,
                Err(refusal) => Err(refusal),
            };
            if settled != Err(Refusal::NoRoom) {
                break;
            }
            core.clock.sleep(NO_ROOM).await;
            taken = core.accept(next.data.clone(), peer).await;
        }
    }
}

/// Sends bundles to a neighbour for as long as the connection holds.
pub(super) async fn keep(core: &Arc<Core>, framing: Framing, mut stream: TcpStream, peer: &Arc<Peer>) -> End {
    peer.set(NeighbourState::Up);
    let (mut reading, mut writing) = stream.split();
    let sending = async {
        // ION's way: a sign of life at once, and when there was nothing else for a while.
        if let Err(error) = keepalive(framing, &mut writing).await {
            return error.into();
        }
        loop {
            let waited = core
                .clock
                .timeout(core.config.limits.keepalive, peer.feed.next())
                .await;
            let written = match waited {
                Ok(held) => match core.ready(held).await {
                    Some(ready) => send(core, framing, &mut writing, ready).await,
                    None => Ok(()),
                },
                Err(_) => keepalive(framing, &mut writing).await,
            };
            if let Err(error) = written {
                return End::Io(error);
            }
        }
    };
    // Nothing should come. That the other node is gone does.
    let mut unused = [0; 64];
    let ended = async {
        loop {
            match reading.read(&mut unused).await {
                Ok(0) => return End::Over,
                Ok(_) => {}
                Err(error) => return error.into(),
            }
        }
    };
    tokio::select! {
        biased;
        end = ended => end,
        () = core.stop.cancelled() => End::Over,
        end = sending => end,
    }
}

async fn keepalive<W: AsyncWriteExt + Unpin>(framing: Framing, stream: &mut W) -> std::io::Result<()> {
    // MTCP has none.
    if framing == Framing::Stcp {
        stream.write_all(&[0; 4]).await?;
    }
    Ok(())
}

async fn send<W: AsyncWriteExt + Unpin>(
    core: &Core,
    framing: Framing,
    stream: &mut W,
    ready: Ready,
) -> std::io::Result<()> {
    let Some(head) = frame::head(framing, ready.data.len()) else {
        core.counters.add(Count::Refused);
        tracing::warn!(
            bundle = ready.held.stored().key,
            "a bundle is too large for its framing"
        );
        ready.held.park();
        return Ok(());
    };
    stream.write_all(&head).await?;
    stream.write_all(&ready.data).await?;
    core.forwarded(ready, false);
    Ok(())
}
