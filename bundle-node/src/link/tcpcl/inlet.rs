//! Bundles that come: put together from segments, and acknowledged in the order in which they came, once they are on disk.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lightpost_clock::Instant;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    message::{END, Message, START, Segment, refusal},
    outlet::Frame,
};
use crate::{
    count::Count,
    custody::Core,
    ingress::{Refusal, Taken},
    link::End,
};

/// How long a transfer may rest between two segments: it holds room that others could have.
const STALLED: Duration = Duration::from_secs(600);

/// An acknowledgement, in its turn.
pub(super) struct Due {
    answer: Message,
    /// What has to be on disk before.
    taken: Option<Taken>,
    /// Its octets' share of what may be under way.
    _room: Option<Room>,
}

/// Octets of a bundle under way.
#[derive(Default)]
struct Room {
    permit: Option<OwnedSemaphorePermit>,
    kib: usize,
}

/// A transfer under way.
#[derive(Default)]
struct Transfer {
    id: u64,
    data: BytesMut,
    room: Room,
    total: Option<u64>,
}

/// The state of the bundles that come on one connection.
pub(super) struct Inlet<'a> {
    core: &'a Core,
    peer: &'a str,
    due: mpsc::Sender<Due>,
    current: Option<Transfer>,
    /// The transfer that was refused and whose segments may still come.
    refused: Option<u64>,
    /// When the last segment came.
    heard: Instant,
}

impl<'a> Inlet<'a> {
    pub(super) fn new(core: &'a Core, peer: &'a str, due: mpsc::Sender<Due>) -> Self {
        Self {
            core,
            peer,
            due,
            current: None,
            refused: None,
            heard: core.clock.instant(),
        }
    }

    /// Whether a transfer rests for too long.
    pub(super) fn stalled(&self) -> bool {
        self.current.is_some() && self.core.clock.instant().duration_since(self.heard) > STALLED
    }

    /// Takes a segment.
    pub(super) async fn segment(&mut self, segment: Segment) -> Result<(), End> {
        self.heard = self.core.clock.instant();
        if self.refused == Some(segment.transfer) {
            return Ok(());
        }
        let mut transfer = self.transfer(&segment)?;
        let most = self.core.config.limits.bundle;
        let length = transfer.data.len() as u64 + segment.data.len() as u64;
        if segment.strange {
            return self.refuse(segment.transfer, refusal::EXTENSION_FAILURE).await;
        }
        let octets = length.max(transfer.total.unwrap_or(0));
        if octets > most {
            let what =
                format!("a bundle of {octets} octets or more, although {most} are the most; it is refused");
            self.core
                .counters
                .fault(Count::TooLarge, &self.core.clock, self.peer, &what);
            return self.refuse(segment.transfer, refusal::NOT_ACCEPTABLE).await;
        }
        if !transfer.room.hold(self.core, length) {
            self.core.counters.add(Count::NoRoom);
            return self.refuse(segment.transfer, refusal::NO_RESOURCES).await;
        }
        let ended = segment.flags & END != 0;
        if ended && transfer.data.is_empty() {
            return self.complete(transfer, segment.flags, segment.data).await;
        }
        transfer.data.extend_from_slice(&segment.data);
        if ended {
            let data = std::mem::take(&mut transfer.data).freeze();
            return self.complete(transfer, segment.flags, data).await;
        }
        self.current = Some(transfer);
        self.answer(Due {
            answer: Message::Ack {
                flags: segment.flags,
                transfer: segment.transfer,
                length,
            },
            taken: None,
            _room: None,
        })
        .await
    }

    /// The transfer that a segment belongs to.
    fn transfer(&mut self, segment: &Segment) -> Result<Transfer, End> {
        match self.current.take() {
            None if segment.flags & START != 0 => Ok(Transfer {
                id: segment.transfer,
                total: segment.total,
                ..Transfer::default()
            }),
            None => Err(End::Violation(
                "a segment of a transfer that did not begin".to_owned(),
            )),
            Some(current) if current.id == segment.transfer && segment.flags & START == 0 => Ok(current),
            Some(_) => Err(End::Violation("a transfer begins within another".to_owned())),
        }
    }

    async fn complete(&mut self, transfer: Transfer, flags: u8, data: Bytes) -> Result<(), End> {
        let length = data.len() as u64;
        if transfer.total.is_some_and(|it| it != length) {
            return Err(End::Violation(
                "a transfer has not the length that it announced".to_owned(),
            ));
        }
        match self.core.accept(data, self.peer).await {
            Ok(taken) => {
                let answer = Message::Ack {
                    flags,
                    transfer: transfer.id,
                    length,
                };
                self.answer(Due {
                    answer,
                    taken: Some(taken),
                    _room: Some(transfer.room),
                })
                .await
            }
            Err(refused) => self.refuse(transfer.id, reason(refused)).await,
        }
    }

    async fn refuse(&mut self, transfer: u64, reason: u8) -> Result<(), End> {
        self.refused = Some(transfer);
        self.answer(Due {
            answer: Message::Refuse { reason, transfer },
            taken: None,
            _room: None,
        })
        .await
    }

    async fn answer(&self, due: Due) -> Result<(), End> {
        self.due.send(due).await.map_err(|_| End::Over)
    }
}

impl Room {
    /// Makes it `octets`; whether there was room.
    fn hold(&mut self, core: &Core, octets: u64) -> bool {
        let kib = usize::try_from(octets.div_ceil(1024)).unwrap_or(usize::MAX);
        let more = kib.saturating_sub(self.kib);
        if more == 0 {
            return true;
        }
        let Ok(many) = u32::try_from(more) else {
            return false;
        };
        let Ok(permit) = std::sync::Arc::clone(&core.inbound).try_acquire_many_owned(many) else {
            return false;
        };
        self.kib = kib;
        match &mut self.permit {
            Some(first) => first.merge(permit),
            None => self.permit = Some(permit),
        }
        true
    }
}

const fn reason(refused: Refusal) -> u8 {
    match refused {
        Refusal::NoRoom => refusal::NO_RESOURCES,
        Refusal::Unacceptable => refusal::NOT_ACCEPTABLE,
    }
}

/// Gives the answers in order, each when it is true.
pub(super) async fn answers(core: &Core, mut due: mpsc::Receiver<Due>, out: mpsc::Sender<Frame>) -> End {
    while let Some(next) = due.recv().await {
        let answer = match next.taken {
            None => next.answer,
            Some(taken) => match (core.settled(taken).await, next.answer) {
                (Err(refused), Message::Ack { transfer, .. }) => Message::Refuse {
                    reason: reason(refused),
                    transfer,
                },
                (_, answer) => answer,
            },
        };
        if out.send(answer.into()).await.is_err() {
            break;
        }
    }
    End::Over
}
