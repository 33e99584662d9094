//! SMTP across space, for comparison: a real Postfix that relays through a proxy which takes as long as light.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bench::{
    distance::{REAL, Row, SIZE},
    pair::Distance,
};
use lightpost_clock::{Clock, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::{Mutex, mpsc, watch},
};

use crate::{
    Result,
    load::Connections,
    place::Place,
    postfix::{self, Postfix},
    sink::Sink,
};

/// How long the mail may take.
const WITHIN: Duration = Duration::from_secs(60);

/// One mail of 4 KiB: from the moment at which Postfix has it on disk to the moment at which the far server has it, and until
/// Postfix is told.
pub(crate) async fn row(place: &Place) -> Result<Row> {
    let clock = Clock::system();
    let sink = Sink::start(&clock).await?;
    let proxy = Proxy::start(sink.address, REAL, clock.clone()).await?;
    let postfix = Postfix::start(place, Some(proxy.address), &clock).await?;
    let opened = proxy.opened();
    postfix::push(postfix.address, (1, Connections::PerMail), SIZE, 1, &clock).await?;
    // Postfix connects at once when it has a mail on disk: within milliseconds of its acknowledgement.
    let began = clock.instant();
    let late = |_| "Postfix did not send the mail in time".to_owned();
    clock.timeout(WITHIN, opened).await.map_err(late)??;
    let arrived = clock
        .timeout(WITHIN, sink.arrived(1, &clock))
        .await
        .map_err(late)??;
    let answered = clock.timeout(WITHIN, proxy.answered()).await.map_err(late)??;
    let distance = Distance::new(REAL);
    let times = (arrived.duration_since(began), answered.duration_since(began));
    Ok(Row {
        real_time: true,
        ..Row::other("smtp", &distance, Some(times))
    })
}

/// A TCP connection as it would be over a distance: its handshake takes three one-way times until the far server may speak,
/// and each octet one.
struct Proxy {
    address: SocketAddr,
    opened: watch::Receiver<bool>,
    answered: Arc<Mutex<mpsc::Receiver<Instant>>>,
}

impl Proxy {
    async fn start(target: SocketAddr, owlt: Duration, clock: Clock) -> Result<Self> {
        let failed = |error: std::io::Error| format!("the proxy: {error}");
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (opened, watching) = watch::channel(false);
        let (answers, answered) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                opened.send_replace(true);
                let (clock, answers) = (clock.clone(), answers.clone());
                tokio::spawn(async move {
                    // SYN, SYN-ACK, ACK: only then the far side knows that somebody is there.
                    clock.sleep(owlt * 3).await;
                    let Ok(far) = TcpStream::connect(target).await else {
                        return;
                    };
                    let (near_read, near_write) = near.into_split();
                    let (far_read, far_write) = far.into_split();
                    tokio::spawn(carry(near_read, far_write, owlt, clock.clone(), None));
                    carry(far_read, near_write, owlt, clock, Some(answers)).await;
                });
            }
        });
        Ok(Self {
            address,
            opened: watching,
            answered: Arc::new(Mutex::new(answered)),
        })
    }

    /// Waits until Postfix has connected.
    fn opened(&self) -> impl Future<Output = Result<()>> + use<> {
        let mut opened = self.opened.clone();
        async move {
            let opened = opened.wait_for(|opened| *opened).await;
            opened.map(drop).map_err(|_| "the proxy has ended".to_owned())
        }
    }

    /// Waits until the reply to the final dot has reached Postfix.
    async fn answered(&self) -> Result<Instant> {
        let mut answered = self.answered.lock().await;
        answered.recv().await.ok_or_else(|| "the proxy has ended".into())
    }
}

/// Carries octets, each for `owlt`; tells when the reply to the final dot is handed over.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    owlt: Duration,
    clock: Clock,
    answers: Option<mpsc::Sender<Instant>>,
) {
    let (sender, mut under_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = {
        let clock = clock.clone();
        async move {
            let mut chunk = vec![0; 16 << 10];
            while let Ok(read) = from.read(&mut chunk).await {
                let octets = chunk.get(..read).unwrap_or_default().to_vec();
                if sender.send((clock.instant() + owlt, octets)).is_err() || read == 0 {
                    return;
                }
            }
        }
    };
    let writing = async move {
        let mut expecting = false;
        while let Some((at, octets)) = under_way.recv().await {
            clock.sleep(at.saturating_duration_since(clock.instant())).await;
            if octets.is_empty() || to.write_all(&octets).await.is_err() {
                // The end of the stream goes its way, too.
                let _ = to.shutdown().await;
                return;
            }
            let text = String::from_utf8_lossy(&octets);
            if let Some(answers) = &answers {
                // The reply behind 354 is the one to the final dot.
                let (before, behind) = text.split_once("354").unwrap_or(("", &text));
                let accepted = expecting && behind.contains("250");
                expecting |= before.len() < text.len() && text.contains("354");
                if accepted {
                    let _ = answers.try_send(clock.instant());
                }
            }
        }
    };
    tokio::join!(reading, writing);
}
