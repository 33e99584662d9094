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
use crate::protocol::{self, Event, FrameError, Request, VERSION};

/// What the relay asks for at the start.
pub(super) struct Start {
    pub(super) endpoint: String,
    pub(super) number: u64,
    pub(super) service: u32,
    pub(super) spool: PathBuf,
    pub(super) largest: u64,
}

/// Writes events to the relay.
pub(super) async fn tell(mut writer: OwnedWriteHalf, mut told: mpsc::UnboundedReceiver<Event>) {
    while let Some(event) = told.recv().await {
        let Ok(mut frames) = protocol::encode(&event, &[]) else {
            continue;
        };
        // Whatever else is there goes with it.
        while frames.len() < 1 << 16
            && let Ok(event) = told.try_recv()
        {
            frames.extend(protocol::encode(&event, &[]).unwrap_or_default());
        }
        if writer.write_all(&frames).await.is_err() {
            return;
        }
    }
}

/// The relay's end of the conversation; SIGTERM counts as its end.
pub(super) struct Relay {
    pub(super) reader: OwnedReadHalf,
    pub(super) buffer: BytesMut,
    pub(super) terminate: Signal,
}

impl Relay {
    /// The next request; `None` when the relay is gone. Nothing is lost when this is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<(Request, Bytes)>, FrameError> {
        loop {
            if let Some(frame) = protocol::decode(&mut self.buffer)? {
                return Ok(Some(frame));
            }
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
