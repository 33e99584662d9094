//! The helper's life: started, listened to, ended, started again.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::{Notify, mpsc, watch},
};

use super::{Shared, State, process};
use crate::{
    protocol::{self, Event, READ, Request, Trouble, VERSION},
    spool::Place,
    words,
};

/// Before a helper that ended is started again, doubled up to [`LONGEST`] while it never serves.
const SHORTEST: Duration = Duration::from_millis(250);
/// A node that comes back is found within so long.
const LONGEST: Duration = Duration::from_secs(10);
/// Between two questions whether the node answers.
const PING: Duration = Duration::from_secs(20);
/// Between two sweeps of files.
const SWEEP: Duration = Duration::from_secs(3600);
/// What is known of a helper's end before its exit status is.
const CLOSED: &str = "its socket is closed";
/// Frames that wait to be written.
const WAITING: usize = 64;
/// About so many octets of them are written at a time.
const TOGETHER: usize = 1 << 17;

/// Keeps a helper running until the agent closes.
pub(super) async fn supervise(shared: Arc<Shared>) {
    let sweeper = tokio::spawn(sweep(Arc::clone(&shared)));
    let mut closing = shared.closing.subscribe();
    let mut pause = SHORTEST;
    while !*closing.borrow() {
        let mut served = false;
        let trouble = live(&shared, &mut served).await;
        shared.requests.close(&trouble);
        shared.set(State::Down(trouble));
        pause = if served {
            SHORTEST
        } else {
            (pause * 2).min(LONGEST)
        };
        tokio::select! {
            () = shared.clock.sleep(pause) => {}
            () = closed(&mut closing) => {}
        }
    }
    sweeper.abort();
}

/// Returns when the agent closes, or is gone.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn sweep(shared: Arc<Shared>) {
    loop {
        let (outgoing, now) = (Arc::clone(&shared.outgoing), shared.clock.now());
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || outgoing.sweep(now)).await {
            tracing::warn!("old payloads cannot be removed: {error}");
        }
        shared.clock.sleep(SWEEP).await;
    }
}

/// One helper, from its start to its end; what is wrong then.
async fn live(shared: &Arc<Shared>, served: &mut bool) -> Trouble {
    let (mut child, socket) = match process::start(&shared.settings) {
        Ok(started) => started,
        Err(error) => return words::unstarted(&process::program(&shared.settings), &error),
    };
    let (reader, writer) = socket.into_split();
    let (frames, waiting) = mpsc::channel(WAITING);
    let writing = tokio::spawn(write(writer, waiting));
    let mut session = Session {
        shared,
        reader,
        buffer: BytesMut::new(),
        frames,
        silent: Arc::default(),
        trouble: None,
        served,
    };
    let end = session.run().await;
    let told = session.trouble.take();
    let trouble = match (end, told) {
        (End::Closing, _) => words::closed(),
        (End::Silent, _) => words::locked(),
        (End::Gone, Some(trouble)) => trouble,
        (End::Gone, None) => words::ended(CLOSED),
        (End::Broken(error), _) => words::ended(&error.to_string()),
    };
    shared.requests.close(&trouble);
    let unexplained = trouble == words::ended(CLOSED);
    if !unexplained {
        shared.set(State::Down(trouble.clone()));
    }
    let _ = session
        .frames
        .try_send(protocol::encode(&Request::Stop, &[]).unwrap_or_default());
    // The writer ends behind the last frame, which closes the socket.
    drop(session);
    let ended = process::wait(&mut child, &shared.clock).await;
    writing.abort();
    match ended {
        Ok(status) if !status.success() && trouble == words::ended(CLOSED) => {
            words::ended(&status.to_string())
        }
        _ => trouble,
    }
}

async fn write(mut writer: OwnedWriteHalf, mut waiting: mpsc::Receiver<Vec<u8>>) {
    while let Some(mut frames) = waiting.recv().await {
        // Those who were answered together ask together: let them, and whatever is there goes with it.
        tokio::task::yield_now().await;
        while frames.len() < TOGETHER
            && let Ok(frame) = waiting.try_recv()
        {
            frames.extend_from_slice(&frame);
        }
        if writer.write_all(&frames).await.is_err() {
            return;
        }
    }
}

/// Why a conversation is over.
enum End {
    /// The agent closes.
    Closing,
    /// The helper did not answer.
    Silent,
    /// The helper is gone.
    Gone,
    /// What it says is not understood.
    Broken(io::Error),
}

struct Session<'a> {
    shared: &'a Arc<Shared>,
    reader: OwnedReadHalf,
    buffer: BytesMut,
    frames: mpsc::Sender<Vec<u8>>,
    /// The helper did not answer a request.
    silent: Arc<Notify>,
    /// What the helper said last.
    trouble: Option<Trouble>,
    served: &'a mut bool,
}

impl Session<'_> {
    async fn run(&mut self) -> End {
        let shared = self.shared;
        let mut closing = shared.closing.subscribe();
        let silent = Arc::clone(&self.silent);
        let mut said_hello = false;
        let mut pinging = Box::pin(shared.clock.sleep(PING));
        loop {
            self.buffer.reserve(READ);
            tokio::select! {
                read = self.reader.read_buf(&mut self.buffer) => match read {
                    Ok(0) | Err(_) => return End::Gone,
                    Ok(_) => loop {
                        match protocol::decode::<Event>(&mut self.buffer) {
                            Ok(None) => break,
                            Ok(Some((event, _))) => {
                                said_hello = true;
                                if let Err(error) = self.take(event).await {
                                    return End::Broken(error);
                                }
                            }
                            Err(error) => return End::Broken(error.into()),
                        }
                    },
                },
                () = shared.deliveries.tell.notified() => self.tell_done(),
                () = silent.notified() => return End::Silent,
                () = closed(&mut closing) => return End::Closing,
                () = &mut pinging => {
                    if !said_hello {
                        return End::Silent;
                    }
                    self.ping();
                    pinging = Box::pin(shared.clock.sleep(PING));
                }
            }
        }
    }

    async fn take(&mut self, event: Event) -> io::Result<()> {
        let shared = self.shared;
        match event {
            Event::Hello {
                protocol: VERSION,
                process,
            } => {
                tracing::debug!(process, "ION's helper is there");
                self.start().await
            }
            Event::Hello { protocol, .. } => Err(io::Error::other(format!(
                "it speaks version {protocol} of the protocol, not {VERSION}"
            ))),
            Event::Spool => shared.deliveries.scan().await,
            Event::Up => {
                *self.served = true;
                self.trouble = None;
                shared
                    .requests
                    .open(self.frames.clone(), Arc::clone(&self.silent));
                shared.set(State::Up);
                Ok(())
            }
            Event::Down(trouble) => {
                self.trouble = Some(trouble.clone());
                shared.set(State::Down(trouble));
                Ok(())
            }
            Event::Answer { id, outcome } => {
                shared.requests.answer(id, outcome);
                Ok(())
            }
            Event::Delivered {
                segment,
                offset,
                octets,
            } => {
                shared.deliveries.note(Place {
                    segment,
                    offset,
                    octets,
                });
                Ok(())
            }
            Event::Warning { text } => {
                tracing::warn!("{text}");
                Ok(())
            }
        }
    }

    async fn start(&self) -> io::Result<()> {
        let settings = &self.shared.settings;
        let start = Request::Start {
            protocol: VERSION,
            endpoint: settings.endpoint.to_string(),
            spool: settings.spool(),
            largest: settings.largest,
        };
        let frame = protocol::encode(&start, &[])?;
        self.frames
            .send(frame)
            .await
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn tell_done(&self) {
        let (deliveries, octets) = self.shared.deliveries.take_done();
        if deliveries == 0 {
            return;
        }
        let Ok(frame) = protocol::encode(&Request::Done { deliveries, octets }, &[]) else {
            return;
        };
        // Not waited for here: a helper that is slow to read may be waiting for us to read.
        let frames = self.frames.clone();
        tokio::spawn(async move { frames.send(frame).await });
    }

    /// Asks whether the node answers; silence ends the session through the request's own limit.
    fn ping(&self) {
        let shared = Arc::clone(self.shared);
        if *shared.state.borrow() == State::Up {
            tokio::spawn(async move { shared.requests.ask(|id| Request::Ping { id }, &[]).await });
        }
    }
}
