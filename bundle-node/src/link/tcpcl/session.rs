//! A session under way, and its end.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    sync::{Notify, mpsc},
};

use super::{
    super::heard::{Heard, Listening},
    contact::{SEGMENT, Terms},
    inlet::{self, Inlet},
    message::{self, Message, REPLY, rejection, termination},
    outlet::{self, Frame},
    transmit::Transmit,
};
use crate::{
    custody::Core,
    link::{End, peer::Peer},
};

/// Answers that may wait to be written. A neighbour sends far fewer bundles before it reads some.
const ANSWERS: usize = 4096;
/// Segments that may wait to be written.
const SEGMENTS: usize = 16;
/// Octets read at once.
const READ: usize = 64 * 1024;
/// How long a session lives on silence where no keepalive was agreed upon.
const IDLE: Duration = Duration::from_secs(600);
/// How long an ending session waits for what was begun.
const ENDING: Duration = Duration::from_secs(5);
/// How long the last words of a session have to be written.
const LAST_WORDS: Duration = Duration::from_millis(100);

struct Session<'a> {
    core: &'a Arc<Core>,
    terms: &'a Terms,
    peer: Option<&'a Arc<Peer>>,
    transmit: Transmit,
    answers: mpsc::Sender<Frame>,
    /// The other node said that it ends the session.
    ending: Notify,
}

/// Runs a session until it ends. `peer` is whose bundles leave on it; `name` is what the other node is called in the log.
pub(super) async fn run<S: AsyncRead + AsyncWrite>(
    core: &Arc<Core>,
    stream: S,
    terms: &Terms,
    peer: Option<&Arc<Peer>>,
    name: &str,
) -> End {
    let (reading, writing) = tokio::io::split(stream);
    let (answers, waiting_answers) = mpsc::channel(ANSWERS);
    let (segments, waiting_segments) = mpsc::channel(SEGMENTS);
    let (due, waiting_due) = mpsc::channel(ANSWERS);
    let session = Session {
        core,
        terms,
        peer,
        transmit: Transmit::new(),
        answers: answers.clone(),
        ending: Notify::new(),
    };
    let inlet = Inlet::new(core, name, due);
    let transmitting = async {
        match peer {
            Some(peer) => session.transmit.run(core, peer, terms, segments).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        end = session.read(BufReader::with_capacity(READ, reading), inlet) => end,
        end = outlet::run(core, writing, terms, waiting_answers, waiting_segments) => end,
        end = inlet::answers(core, waiting_due, answers) => end,
        end = transmitting => end,
        end = session.parting() => end,
    }
}

impl Session<'_> {
    /// Reads until the session ends.
    async fn read<R: AsyncRead + Unpin>(&self, stream: R, mut inlet: Inlet<'_>) -> End {
        let silence = self.terms.keepalive.map_or(IDLE, |span| span * 2);
        let heard = Heard::default();
        let mut stream = Listening {
            stream,
            heard: heard.clone(),
        };
        loop {
            let next = heard.within(self.core, silence, message::read(&mut stream, SEGMENT));
            let end = match next.await {
                Ok(Some(message)) => match self.message(message, &mut inlet).await {
                    Ok(()) => continue,
                    Err(end) => end,
                },
                Ok(None) => End::Over,
                Err(end) => end,
            };
            if matches!(end, End::Silent) {
                self.say(Message::Term {
                    flags: 0,
                    reason: termination::IDLE,
                });
            }
            if matches!(end, End::Silent | End::Violation(_)) {
                self.core.clock.sleep(LAST_WORDS).await;
            }
            return end;
        }
    }

    async fn message(&self, message: Message, inlet: &mut Inlet<'_>) -> Result<(), End> {
        match message {
            Message::Segment(segment) => inlet.segment(segment).await,
            Message::Ack { transfer, length, .. } => self.transmit.acknowledged(self.core, transfer, length),
            Message::Refuse { transfer, reason } => {
                if let Some(peer) = self.peer {
                    self.transmit.refused(self.core, peer, transfer, reason);
                }
                Ok(())
            }
            Message::Keepalive if inlet.stalled() => Err(End::Silent),
            Message::Keepalive => Ok(()),
            Message::Term { flags, reason } => {
                if flags & REPLY == 0 {
                    self.say(Message::Term { flags: REPLY, reason });
                }
                self.ending.notify_one();
                Ok(())
            }
            Message::Reject { reason, header } => Err(End::Violation(format!(
                "it rejects a message of type {header} (reason {reason})"
            ))),
            Message::Init(_) => Err(End::Violation("it introduces itself twice".to_owned())),
            Message::Unknown(kind) => {
                self.say(Message::Reject {
                    reason: rejection::UNKNOWN_TYPE,
                    header: kind,
                });
                Err(End::Violation(format!(
                    "it sends a message of type {kind}, which there is not"
                )))
            }
        }
    }

    /// Ends the session when the node stops or the other node says so: what was begun may be finished.
    async fn parting(&self) -> End {
        tokio::select! {
            () = self.core.stop.cancelled() => {
                self.transmit.stop();
                self.say(Message::Term { flags: 0, reason: termination::UNKNOWN });
                drop(self.core.clock.timeout(ENDING, async {
                    self.transmit.settled().await;
                    self.ending.notified().await;
                }).await);
            }
            () = self.ending.notified() => {
                self.transmit.stop();
                // The other one closes the connection, once it has what it waits for.
                self.core.clock.sleep(ENDING).await;
            }
        }
        End::Over
    }

    fn say(&self, message: Message) {
        // Where thousands of answers wait already nobody reads.
        drop(self.answers.try_send(message.into()));
    }
}
