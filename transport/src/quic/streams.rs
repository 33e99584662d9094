//! Between h3 and quinn: request streams that never end cleanly unless they were finished.
//!
//! Four habits of the layers below would make half a mail look like a whole one, bring a task down, or let a stranger fill the
//! memory, and are cured here: quinn *finishes* a send stream that is dropped half-way; h3 0.0.8 takes the end of a stream
//! inside a DATA frame for the end of the body when the last octets came earlier; h3-quinn panics on `stop_sending` while a
//! read is pending; and h3 keeps frames of any length in memory (see [`super::frames`]).

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
};

use tokio::sync::oneshot;

use super::{
    frames::{Excess, Frames},
    unidirectional::Unidirectional,
};

/// A connection for h3.
pub(crate) struct Connection {
    inner: h3_quinn::Connection,
    quic: quinn::Connection,
    /// Until this comes, no stream of the peer's is accepted.
    verdict: Option<oneshot::Receiver<()>>,
}

impl Connection {
    pub(crate) fn new(connection: quinn::Connection) -> Self {
        Self {
            inner: h3_quinn::Connection::new(connection.clone()),
            quic: connection,
            verdict: None,
        }
    }

    /// For early data: the peer's streams wait for `accepted`. Without it they belong to the HTTP/3 that is opened instead, and
    /// must not be taken away from it.
    pub(crate) fn early(connection: quinn::Connection, accepted: oneshot::Receiver<()>) -> Self {
        Self {
            verdict: Some(accepted),
            ..Self::new(connection)
        }
    }
}

impl<B: Buf> quic::Connection<B> for Connection {
    type RecvStream = Unidirectional;
    type OpenStreams = Opener;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::RecvStream, ConnectionErrorIncoming>> {
        if let Some(verdict) = &mut self.verdict {
            if !verdict.is_terminated() && ready!(verdict.poll_unpin(cx)).is_ok() {
                self.verdict = None;
            } else {
                // Rejected; whoever drives this is about to be ended.
                return Poll::Pending;
            }
        }
        let accepted = ready!(quic::Connection::<B>::poll_accept_recv(&mut self.inner, cx))?;
        Poll::Ready(Ok(Unidirectional::new(accepted, self.quic.clone())))
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, ConnectionErrorIncoming>> {
        quic::Connection::<B>::poll_accept_bidi(&mut self.inner, cx).map_ok(Bidi::new)
    }

    fn opener(&self) -> Opener {
        Opener(quic::Connection::<B>::opener(&self.inner))
    }
}

impl<B: Buf> quic::OpenStreams<B> for Connection {
    type BidiStream = Bidi<B>;
    type SendStream = h3_quinn::SendStream<B>;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        quic::OpenStreams::<B>::poll_open_bidi(&mut self.inner, cx).map_ok(Bidi::new)
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        quic::OpenStreams::<B>::poll_open_send(&mut self.inner, cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        quic::OpenStreams::<B>::close(&mut self.inner, code, reason);
    }
}

/// Opens streams on a connection.
#[derive(Clone)]
pub(crate) struct Opener(h3_quinn::OpenStreams);

impl<B: Buf> quic::OpenStreams<B> for Opener {
    type BidiStream = Bidi<B>;
    type SendStream = h3_quinn::SendStream<B>;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        quic::OpenStreams::<B>::poll_open_bidi(&mut self.0, cx).map_ok(Bidi::new)
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        quic::OpenStreams::<B>::poll_open_send(&mut self.0, cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        quic::OpenStreams::<B>::close(&mut self.0, code, reason);
    }
}

/// A request stream.
pub(crate) struct Bidi<B: Buf> {
    send: Sending<B>,
    recv: Receiving,
}

impl<B: Buf> Bidi<B> {
    fn new(stream: h3_quinn::BidiStream<B>) -> Self {
        let (send, recv) = quic::BidiStream::split(stream);
        let id = quic::SendStream::send_id(&send);
        Self {
            send: Sending {
                inner: send,
                unfinished: true,
            },
            recv: Receiving {
                inner: recv,
                id,
                frames: Frames::default(),
                rest: Bytes::new(),
                idle: true,
            },
        }
    }
}

impl<B: Buf> quic::BidiStream<B> for Bidi<B> {
    type SendStream = Sending<B>;
    type RecvStream = Receiving;

    fn split(self) -> (Sending<B>, Receiving) {
        (self.send, self.recv)
    }
}

impl<B: Buf> quic::SendStream<B> for Bidi<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

impl<B: Buf> quic::RecvStream for Bidi<B> {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.recv.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

/// The sending half: reset, not finished, when it is dropped before its end.
pub(crate) struct Sending<B: Buf> {
    inner: h3_quinn::SendStream<B>,
    unfinished: bool,
}

impl<B: Buf> Drop for Sending<B> {
    fn drop(&mut self) {
        if self.unfinished {
            quic::SendStream::reset(&mut self.inner, Code::H3_REQUEST_CANCELLED.value());
        }
    }
}

impl<B: Buf> quic::SendStream<B> for Sending<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.inner.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.inner.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let finished = ready!(self.inner.poll_finish(cx));
        self.unfinished = finished.is_err();
        Poll::Ready(finished)
    }

    fn reset(&mut self, code: u64) {
        self.unfinished = false;
        self.inner.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.inner.send_id()
    }
}

/// The receiving half: its end counts only between two frames.
pub(crate) struct Receiving {
    inner: h3_quinn::RecvStream,
    id: StreamId,
    frames: Frames,
    /// What was read and belongs to later pieces.
    rest: Bytes,
    /// Whether no read is pending.
    idle: bool,
}

/// A peer ended a request or response in the middle of a frame.
#[derive(Debug, thiserror::Error)]
#[error("the stream ended in the middle of a frame")]
struct Truncated;

impl Receiving {
    fn refuse(&mut self, excess: Excess) -> StreamErrorIncoming {
        self.rest.clear();
        quic::RecvStream::stop_sending(self, Code::H3_EXCESSIVE_LOAD.value());
        StreamErrorIncoming::Unknown(Box::new(excess))
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
            let polled = self.inner.poll_data(cx);
            self.idle = polled.is_ready();
            match ready!(polled)? {
                Some(data) => self.rest = data,
                None if self.frames.between() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(Truncated)))),
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        // While a read is pending the stream is lent to it; dropping the read stops the peer as well.
        if self.idle {
            self.inner.stop_sending(code);
        }
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}
