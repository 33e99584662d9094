//! The two halves of a request stream, over quinn's own streams: h3-quinn hides them, and with them their priority.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use super::frames::{Excess, Frames};

/// The sending half: reset, not finished, when it is dropped before its end.
pub(crate) struct Sending<B: Buf> {
    stream: quinn::SendStream,
    id: StreamId,
    writing: Option<WriteBuf<B>>,
    unfinished: bool,
}

impl<B: Buf> Sending<B> {
    /// One that sends before those of a lower priority; among equals octet by octet in turn.
    pub(super) fn new(stream: quinn::SendStream, id: StreamId, priority: i32) -> Self {
        // One that is closed already sends nothing.
        let _ = stream.set_priority(priority);
        Self {
            stream,
            id,
            writing: None,
            unfinished: true,
        }
    }
}

impl<B: Buf> Drop for Sending<B> {
    fn drop(&mut self) {
        if self.unfinished {
            quic::SendStream::reset(self, Code::H3_REQUEST_CANCELLED.value());
        }
    }
}

impl<B: Buf> quic::SendStream<B> for Sending<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let Some(data) = &mut self.writing {
            while data.has_remaining() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk()));
                data.advance(written.map_err(not_written)?);
            }
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            // Of h3 only.
            return Err(StreamErrorIncoming::ConnectionErrorIncoming {
                connection_error: ConnectionErrorIncoming::InternalError(
                    "data before the stream was ready for it".to_owned(),
                ),
            });
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let finished = self.stream.finish();
        self.unfinished = finished.is_err();
        Poll::Ready(finished.map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, code: u64) {
        self.unfinished = false;
        // One that is closed already needs none.
        let _ = self.stream.reset(VarInt::from_u64(code).unwrap_or(VarInt::MAX));
    }

    fn send_id(&self) -> StreamId {
        self.id
    }
}

/// The receiving half: its end counts only between two frames.
pub(crate) struct Receiving {
    stream: quinn::RecvStream,
    id: StreamId,
    frames: Frames,
    /// What was read and belongs to later pieces.
    rest: Bytes,
}

/// A peer ended a request or response in the middle of a frame.
#[derive(Debug, thiserror::Error)]
#[error("the stream ended in the middle of a frame")]
struct Truncated;

impl Receiving {
    pub(super) fn new(stream: quinn::RecvStream, id: StreamId) -> Self {
        Self {
            stream,
            id,
            frames: Frames::default(),
            rest: Bytes::new(),
        }
    }

    /// Puts in front what was read of the stream before.
    pub(super) fn precede(&mut self, first: Bytes) {
        self.rest = first;
    }

    fn refuse(&mut self, excess: Excess) -> StreamErrorIncoming {
        self.rest.clear();
        quic::RecvStream::stop_sending(self, Code::H3_EXCESSIVE_LOAD.value());
        StreamErrorIncoming::Unknown(Box::new(excess))
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        // Dropped while it is pending it loses nothing, and wakes all the same: quinn keeps the waker with the stream.
        let chunk = ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx));
        Poll::Ready(match chunk {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            Err(error) => Err(not_read(error)),
        })
    }
}

impl quic::RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            match self.frames.next(&mut self.rest) {
                Ok(Some(piece)) => return Poll::Ready(Ok(Some(piece))),
                Ok(None) => {}
                Err(excess) => return Poll::Ready(Err(self.refuse(excess))),
            }
            match ready!(self.poll_chunk(cx))? {
                Some(data) => self.rest = data,
                None if self.frames.between() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(Truncated)))),
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        // One that is at its end needs none.
        let _ = self.stream.stop(VarInt::from_u64(code).unwrap_or(VarInt::MAX));
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}

/// A stream's id as h3 has it.
pub(super) fn stream_id(id: quinn::StreamId) -> Result<StreamId, ConnectionErrorIncoming> {
    let number: u64 = VarInt::from(id).into_inner();
    StreamId::try_from(number).map_err(|error| ConnectionErrorIncoming::InternalError(error.to_string()))
}

/// Why a connection ended, as h3 has it.
pub(super) fn ended(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => ConnectionErrorIncoming::ApplicationClose {
            error_code: close.error_code.into_inner(),
        },
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn not_read(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        ReadError::ConnectionLost(error) => StreamErrorIncoming::ConnectionErrorIncoming {
            connection_error: ended(error),
        },
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn not_written(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        WriteError::ConnectionLost(error) => StreamErrorIncoming::ConnectionErrorIncoming {
            connection_error: ended(error),
        },
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}
