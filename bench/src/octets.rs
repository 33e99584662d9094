//! What one mail has on the wire between two embedded nodes, in both forms that a bundle's payload can have: octets of TCP's streams,
//! both ways, so bundles, replies and TCPCLv4's own messages, without TCP and IP.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use lightpost_clock::Clock;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::AbortHandle,
};

use crate::{
    Result,
    lightpost::{Nodes, Pair, Way},
    load::{self, Connections},
    place::Place,
    report::{Progress, Row},
    sink::Sink,
};

const MAILS: usize = 20;
const SIZE: usize = 4096;
/// Nothing more comes once nothing came for so long.
const QUIET: Duration = Duration::from_millis(500);
const KEPT: (usize, Connections) = (1, Connections::Kept);

/// Runs the measurement.
pub(crate) async fn rows(place: &Place, binary: &Path, progress: &Progress) -> Result<Vec<Row>> {
    let mail = text(SIZE);
    // With --keep it is there for other programs.
    let file = place.path().join("mail.eml");
    std::fs::write(&file, &mail).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut rows = Vec::new();
    for (name, payload) in [
        ("bundle_octets_http", "http"),
        ("bundle_octets_batch_smtp", "batch-smtp"),
    ] {
        let place = place.below(name)?;
        let octets = per_mail(&place, binary, payload, &mail).await?;
        progress.say(&format!(
            "  a text mail of {} octets as {payload}: {octets:.0} octets",
            mail.len()
        ));
        place.remove();
        rows.push(Row::alone(name, octets, "octets/mail"));
    }
    Ok(rows)
}

async fn per_mail(place: &Place, binary: &Path, payload: &'static str, mail: &Bytes) -> Result<f64> {
    let clock = Clock::system();
    let sink = Sink::start(&clock).await?;
    let mut nodes = Nodes::new(payload)?;
    let count = Arc::new(AtomicU64::new(0));
    let [earth, moon] = nodes.listen;
    let (to_earth, to_moon) = (
        Counter::start(earth, &count).await?,
        Counter::start(moon, &count).await?,
    );
    nodes.dial = [to_earth.address, to_moon.address];
    let pair = Pair::start(place, binary, sink.address, Way::Bundles(nodes), &clock).await?;
    load::push(pair.client.ingest, KEPT, mail, 1, &clock).await?;
    sink.arrived(1, &clock).await?;
    let before = settled(&count, &clock).await;
    for number in 2..=MAILS + 1 {
        // One by one, so that each reply has a segment of its own, as across space.
        load::push(pair.client.ingest, KEPT, mail, 1, &clock).await?;
        sink.arrived(number, &clock).await?;
    }
    let octets = settled(&count, &clock).await - before;
    Ok(octets as f64 / MAILS as f64)
}

/// The count once nothing is added to it any more.
async fn settled(count: &AtomicU64, clock: &Clock) -> u64 {
    let mut last = count.load(Ordering::Relaxed);
    loop {
        clock.sleep(QUIET).await;
        let now = count.load(Ordering::Relaxed);
        if now == last {
            return now;
        }
        last = now;
    }
}

/// Passes connections on and counts their octets, until it is dropped.
struct Counter {
    address: SocketAddr,
    accepting: AbortHandle,
}

impl Counter {
    async fn start(to: SocketAddr, count: &Arc<AtomicU64>) -> Result<Self> {
        let failed = |error: std::io::Error| format!("a port of the loopback: {error}");
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let count = Arc::clone(count);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(to).await else {
                    continue;
                };
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(pass(near_in, far_out, Arc::clone(&count)));
                tokio::spawn(pass(far_in, near_out, Arc::clone(&count)));
            }
        });
        Ok(Self {
            address,
            accepting: accepting.abort_handle(),
        })
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, count: Arc<AtomicU64>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        count.fetch_add(read as u64, Ordering::Relaxed);
        let Some(read) = buffer.get(..read) else { return };
        if to.write_all(read).await.is_err() {
            return;
        }
    }
}

/// A mail of English words, the same each time, which packs as text does and not as one repeated line.
fn text(size: usize) -> Bytes {
    const WORDS: &str = "the of and to in a is that for it as was with be by on not he his but at are this have from or had an \
        they which one you were all her she there would their we him been has when who will no more if out so said what up its \
        about into than them can only other time new some could these two may first then do any like my now over such our man me \
        even most made after also did many off before must well back through years much where your way down should because long \
        each just state people those too mister how little good world make very year still see work life orbit relay crater \
        sample drill power telemetry window contact crew schedule request supply oxygen battery rover signal antenna";
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut random = StdRng::seed_from_u64(2442);
    let mut mail = String::from(
        "From: Alice <alice@earth.example>\r\nTo: Bob <bob@moon.example>\r\nSubject: Plan of the day\r\n\
         Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-Id: <0001.0001@earth.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n",
    );
    let mut column = 0;
    while mail.len() < size - 2 {
        // Small numbers are likelier, as small ranks of words are.
        let rank = random.random_range(0.0..1.0_f64).powi(2) * words.len() as f64;
        let word = words.get(rank as usize).copied().unwrap_or("moon");
        mail.push_str(word);
        column += word.len() + 1;
        if column > 68 {
            mail.push_str("\r\n");
            column = 0;
        } else {
            mail.push(' ');
        }
    }
    mail.truncate(size - 2);
    let mut mail = mail.trim_end().to_owned();
    mail.push_str("\r\n");
    mail.into()
}
