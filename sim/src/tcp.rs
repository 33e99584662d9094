//! A stretch of space for streams: what goes in on one side comes out on the other after the light time, at the link's rate. The TCP
//! connections end on this side of it, so that nothing of TCP's own crosses: what stands there is a convergence layer without
//! acknowledgements, such as STCP.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use lightpost_clock::{Clock, add};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// Octets that are read at once.
const PIECE: usize = 16 * 1024;
/// Pieces under way on one connection, in one direction; then its sender waits.
const UNDER_WAY: usize = 4096;

/// How a stretch behaves.
#[derive(Clone, Copy, Debug)]
pub struct TcpLinkOptions {
    /// One-way light time.
    pub owlt: Duration,
    /// Bits per second, for each connection and direction; `None` sends in no time.
    pub rate: Option<u64>,
}

/// A running stretch. Ends when it is dropped.
pub struct TcpLink {
    address: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
    _stop: DropGuard,
}

impl TcpLink {
    /// Listens at `listen`. Connections wait until [`TcpLink::lead_to`] says where to.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(listen: SocketAddr, options: TcpLinkOptions, clock: Clock) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (target, known) = watch::channel(None);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let tasks = TaskTracker::new();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stopped.cancelled() => break,
                };
                let Ok((stream, _)) = accepted else { continue };
                let (mut known, clock, stopped) = (known.clone(), clock.clone(), stopped.clone());
                tasks.spawn(async move {
                    let crossing = async {
                        let to = *known.wait_for(Option::is_some).await.ok()?;
                        let other = TcpStream::connect(to?).await.ok()?;
                        let _ = (stream.set_nodelay(true), other.set_nodelay(true));
                        let ((near_in, near_out), (far_in, far_out)) =
                            (stream.into_split(), other.into_split());
                        tokio::join!(
                            cross(near_in, far_out, options, &clock),
                            cross(far_in, near_out, options, &clock)
                        );
                        Some(())
                    };
                    tokio::select! {
                        _ = crossing => {}
                        () = stopped.cancelled() => {}
                    }
                });
            }
        });
        Ok(Self {
            address,
            target,
            _stop: stop.drop_guard(),
        })
    }

    /// Where its near side listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its far side connects to.
    pub fn lead_to(&self, address: SocketAddr) {
        self.target.send_replace(Some(address));
    }
}

/// One direction of one connection; the end of the stream crosses as octets do.
async fn cross(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, options: TcpLinkOptions, clock: &Clock) {
    let (send, mut receive) = mpsc::channel::<(Timestamp, Bytes)>(UNDER_WAY);
    let sending = async move {
        let mut free = clock.now();
        let mut piece = vec![0; PIECE];
        while let Ok(octets) = from.read(&mut piece).await {
            let now = clock.now();
            let takes = options.rate.map_or(Duration::ZERO, |rate| {
                Duration::from_secs_f64(octets as f64 * 8.0 / rate.max(1) as f64)
            });
            free = add(free.max(now), takes);
            let whole = Bytes::copy_from_slice(piece.get(..octets).unwrap_or_default());
            let sent = send.send((add(free, options.owlt), whole)).await;
            if octets == 0 || sent.is_err() {
                break;
            }
            // Nothing is read faster than it is sent.
            clock.sleep_until(free).await;
        }
    };
    let arriving = async move {
        while let Some((at, octets)) = receive.recv().await {
            clock.sleep_until(at).await;
            if octets.is_empty() || to.write_all(&octets).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(sending, arriving);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn octets_take_the_light_time_and_their_own() {
        let clock = Clock::system();
        let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let far = TcpListener::bind(anywhere).await.unwrap();
        let options = TcpLinkOptions {
            owlt: Duration::from_millis(300),
            rate: Some(800_000),
        };
        let link = TcpLink::start(anywhere, options, clock.clone()).await.unwrap();
        let mut near = TcpStream::connect(link.address()).await.unwrap();
        link.lead_to(far.local_addr().unwrap());
        let (mut there, _) = far.accept().await.unwrap();
        let begun = clock.instant();
        // 20,000 octets take 200 ms at this rate.
        near.write_all(&[7; 20_000]).await.unwrap();
        near.shutdown().await.unwrap();
        let mut arrived = Vec::new();
        there.read_to_end(&mut arrived).await.unwrap();
        assert_eq!(arrived, [7; 20_000]);
        assert!(
            begun.elapsed() >= Duration::from_millis(500),
            "{:?}",
            begun.elapsed()
        );
        there.write_all(b"back").await.unwrap();
        let mut back = [0; 4];
        near.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"back");
        assert!(
            begun.elapsed() >= Duration::from_millis(800),
            "{:?}",
            begun.elapsed()
        );
    }
}
