//! The conversation with the relay.

use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    signal::unix::Signal,
    sync::mpsc,
};

use super::{HelperError, numbers};
use crate::protocol::{self, Event, FrameError, READ, Request, VERSION};

/// What the relay asks for at the start.
pub(super) struct Start {
    pub(super) endpoint: String,
    pub(super) number: u64,
    pub(super) service: u32,
    pub(super) spool: PathBuf,
    pub(super) largest: u64,
}

/// Where events go; what is told after the relay's end is lost with it.
#[derive(Clone)]
pub(super) struct Events(mpsc::UnboundedSender<Vec<Event>>);

impl Events {
    pub(super) fn channel() -> (Self, mpsc::UnboundedReceiver<Vec<Event>>) {
        let (events, told) = mpsc::unbounded_channel();
        (Self(events), told)
    }

    pub(super) fn tell(&self, event: Event) {
        self.tell_all(vec![event]);
    }

    /// Tells of several at a time, which the relay reads at a time.
    pub(super) fn tell_all(&self, events: Vec<Event>) {
        let _ = self.0.send(events);
    }
}

/// Writes events to the relay.
pub(super) async fn tell(mut writer: OwnedWriteHalf, mut told: mpsc::UnboundedReceiver<Vec<Event>>) {
    while let Some(events) = told.recv().await {
        let mut frames = Vec::new();
        add(&mut frames, &events);
        // Whatever else is there goes with it.
        while frames.len() < 1 << 16
            && let Ok(events) = told.try_recv()
        {
            add(&mut frames, &events);
        }
        if writer.write_all(&frames).await.is_err() {
            return;
        }
    }
}

fn add(frames: &mut Vec<u8>, events: &[Event]) {
    for event in events {
        frames.extend(protocol::encode(event, &[]).unwrap_or_default());
    }
}

/// The relay's end of the conversation; SIGTERM counts as its end.
pub(super) struct Relay {
    pub(super) reader: OwnedReadHalf,
    pub(super) buffer: BytesMut,
    pub(super) terminate: Signal,
}

impl Relay {
    /// The next request, and what was read with it; as [`Relay::next`].
    pub(super) async fn several(&mut self) -> Result<Option<Vec<(Request, Bytes)>>, FrameError> {
        let Some(first) = self.next().await? else {
            return Ok(None);
        };
        let mut requests = vec![first];
        while let Some(next) = protocol::decode(&mut self.buffer)? {
            requests.push(next);
        }
        Ok(Some(requests))
    }

    /// The next request; `None` when the relay is gone. Nothing is lost when this is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<(Request, Bytes)>, FrameError> {
        loop {
            if let Some(frame) = protocol::decode(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ);
            tokio::select! {
                read = self.reader.read_buf(&mut self.buffer) => match read {
                    Ok(0) | Err(_) => return Ok(None),
                    Ok(_) => {}
                },
                _ = self.terminate.recv() => return Ok(None),
            }
        }
    }

    /// Returns when the relay wants the end. Before the node is open nothing else is asked; what is done then was there before this helper.
    pub(super) async fn end(&mut self) {
        while let Ok(Some((Request::Done { .. }, _))) = self.next().await {}
    }

    pub(super) async fn start(&mut self) -> Result<Start, HelperError> {
        let Ok(Some((
            Request::Start {
                protocol: VERSION,
                endpoint,
                spool,
                largest,
            },
            _,
        ))) = self.next().await
        else {
            return Err(HelperError::Protocol);
        };
        let (number, service) = numbers(&endpoint).ok_or(HelperError::Protocol)?;
        Ok(Start {
            endpoint,
            number,
            service,
            spool,
            largest,
        })
    }
}
