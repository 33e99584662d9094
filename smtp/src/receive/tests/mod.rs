//! The session through its driver, with a receiver that keeps what it takes in memory.

mod commands;
mod conversation;
mod limits;
mod smuggling;
mod tls;

use std::sync::{Mutex, atomic::AtomicUsize};

use lightpost_clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;

use super::*;

/// A mail as it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Taken {
    with: &'static str,
    sender: String,
    recipients: Vec<String>,
    body: Vec<u8>,
}

/// Takes every recipient but `nobody@`, every body but one that holds `REFUSE`.
#[derive(Debug, Default)]
struct Keeper {
    taken: Arc<Mutex<Vec<Taken>>>,
    /// Mails that were begun and are neither finished nor dropped.
    open: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Kept {
    mail: Taken,
    taken: Arc<Mutex<Vec<Taken>>>,
    open: Arc<AtomicUsize>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.open.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Receiver for Keeper {
    type Mail = Kept;
    fn begin(&self, peer: &Peer, sender: Sender) -> Result<Kept, Reply> {
        self.open.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(Kept {
            mail: Taken {
                with: peer.with(Protocol::Smtp, sender.parameters.smtputf8),
                sender: sender.to_string(),
                recipients: Vec::new(),
                body: Vec::new(),
            },
            taken: self.taken.clone(),
            open: self.open.clone(),
        })
    }
}

impl Incoming for Kept {
    fn recipient(&mut self, recipient: Recipient) -> Result<(), Reply> {
        if recipient.address.local_part() == "nobody" {
            return Err(reply(550, Some((5, 1, 1)), "no such user\r\n250 smuggled"));
        }
        self.mail.recipients.push(recipient.to_string());
        Ok(())
    }

    async fn body(&mut self, octets: &[u8]) -> Result<(), Reply> {
        self.mail.body.extend_from_slice(octets);
        if self.mail.body.windows(6).any(|window| window == b"REFUSE") {
            return Err(reply(554, Some((5, 7, 1)), "refused"));
        }
        Ok(())
    }

    async fn finish(self) -> Result<Reply, Reply> {
        self.taken.lock().unwrap().push(self.mail.clone());
        Ok(reply(250, Some((2, 6, 0)), "taken"))
    }
}

fn settings(protocol: Protocol) -> Settings {
    Settings {
        protocol,
        name: "relay.example".into(),
        tls: None,
        max_message: 10_000,
        max_recipients: 3,
        connections: 3,
        connections_per_address: 2,
        errors: 4,
        idle: Duration::from_secs(300),
    }
}

/// A session that runs; what it takes.
struct Bench {
    stream: DuplexStream,
    keeper: Arc<Keeper>,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let (stream, far) = tokio::io::duplex(64 * 1024);
        let keeper = Arc::new(Keeper::default());
        let (receiver, clock) = (keeper.clone(), Clock::system());
        let stop = CancellationToken::new();
        tokio::spawn(converse(
            far,
            Peer::default(),
            receiver,
            Arc::new(settings),
            clock,
            stop,
        ));
        Self { stream, keeper }
    }

    fn taken(&self) -> Vec<Taken> {
        self.keeper.taken.lock().unwrap().clone()
    }
}

/// Says all of `input` in pieces of the given sizes, in turn, then ends its half; all that is answered, and what was taken.
fn converse_whole(settings: Settings, input: &[u8], sizes: &[usize]) -> (String, Vec<Taken>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bench = Bench::new(settings);
        let keeper = bench.keeper.clone();
        let (mut read, mut write) = tokio::io::split(bench.stream);
        let mut pieces = Vec::new();
        let (mut rest, mut sizes) = (input, sizes.iter().cycle());
        while !rest.is_empty() {
            let size = sizes.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len());
            let (piece, tail) = rest.split_at(size);
            pieces.push(piece.to_vec());
            rest = tail;
        }
        let saying = async move {
            for piece in pieces {
                if write.write_all(&piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let _ = write.shutdown().await;
        };
        let mut answers = Vec::new();
        let hearing = async { read.read_to_end(&mut answers).await.map(drop) };
        let (_, heard) = tokio::join!(saying, hearing);
        heard.unwrap();
        let taken = keeper.taken.lock().unwrap().clone();
        let open = keeper.open.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!(open, 0, "a mail was left open");
        (String::from_utf8(answers).unwrap(), taken)
    })
}

const WHOLE: &[usize] = &[usize::MAX];

/// The codes of the replies, continuation lines left out.
fn codes(answers: &str) -> String {
    assert!(answers.ends_with("\r\n"), "{answers}");
    let last = answers
        .lines()
        .filter(|line| line.as_bytes().get(3) != Some(&b'-'));
    last.map(|line| &line[..3]).collect::<Vec<_>>().join(" ")
}
