//! Between h3 and quinn: request streams that never end cleanly unless they were finished.
//!
//! Three habits of the layers below would make half a mail look like a whole one, or bring a task down, and are cured here:
//! quinn *finishes* a send stream that is dropped half-way; h3 0.0.8 takes the end of a stream inside a DATA frame
//! for the end of the body when the last octets came earlier; and h3-quinn panics on `stop_sending` while a read is pending.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
};

/// A connection for h3.
pub(crate) struct Connection(h3_quinn::Connection);

impl Connection {
    pub(crate) fn new(connection: quinn::Connection) -> Self {
        Self(h3_quinn::Connection::new(connection))
    }
}

impl<B: Buf> quic::Connection<B> for Connection {
    type RecvStream = h3_quinn::RecvStream;
    type OpenStreams = Opener;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::RecvStream, ConnectionErrorIncoming>> {
        quic::Connection::<B>::poll_accept_recv(&mut self.0, cx)
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, ConnectionErrorIncoming>> {
        quic::Connection::<B>::poll_accept_bidi(&mut self.0, cx).map_ok(Bidi::new)
    }

    fn opener(&self) -> Opener {
        Opener(quic::Connection::<B>::opener(&self.0))
    }
}

impl<B: Buf> quic::OpenStreams<B> for Connection {
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
    /// Whether no read is pending.
    idle: bool,
}

/// A peer ended a request or response in the middle of a frame.
#[derive(Debug, thiserror::Error)]
#[error("the stream ended in the middle of a frame")]
struct Truncated;

impl quic::RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let polled = self.inner.poll_data(cx);
        self.idle = polled.is_ready();
        match ready!(polled)? {
            Some(data) => {
                self.frames.feed(&data);
                Poll::Ready(Ok(Some(data)))
            }
            None if self.frames.between() => Poll::Ready(Ok(None)),
            None => Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(Truncated)))),
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

/// Follows the frames of a request stream (RFC 9114 section 7.1: type and length as variable-length integers, payload).
#[derive(Debug, Default)]
struct Frames {
    head: [u8; 16],
    head_length: usize,
    payload: u64,
}

impl Frames {
    fn between(&self) -> bool {
        self.head_length == 0 && self.payload == 0
    }

    fn feed(&mut self, mut data: &[u8]) {
        while let Some(first) = data.first() {
            if self.payload > 0 {
                let taken = self.payload.min(data.len() as u64);
                self.payload -= taken;
                data = &data[taken as usize..];
                continue;
            }
            self.head[self.head_length] = *first;
            self.head_length += 1;
            data = &data[1..];
            if let Some(length) = self.length() {
                self.payload = length;
                self.head_length = 0;
            }
        }
    }

    /// The length field, once the head is whole.
    fn length(&self) -> Option<u64> {
        let kind = 1usize << (self.head[0] >> 6);
        if self.head_length <= kind {
            return None;
        }
        let octets = 1usize << (self.head[kind] >> 6);
        if self.head_length < kind + octets {
            return None;
        }
        let first = u64::from(self.head[kind] & 0x3f);
        let rest = &self.head[kind + 1..kind + octets];
        Some(
            rest.iter()
                .fold(first, |value, octet| value << 8 | u64::from(*octet)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_counts_only_between_frames() {
        // HEADERS of 3 octets, DATA of 300 (two-octet length), an unknown frame with a four-octet type and no payload.
        let mut stream = vec![1, 3, b'a', b'b', b'c', 0, 0x41, 0x2c];
        stream.extend([7; 300]);
        stream.extend([0x80, 0, 0x12, 0x34, 0]);
        let ends = [5, 308, 313];
        for chunk in [1, 2, 3, 7, 64, 313] {
            let (mut frames, mut at) = (Frames::default(), 0);
            for part in stream.chunks(chunk) {
                frames.feed(part);
                at += part.len();
                assert_eq!(frames.between(), ends.contains(&at), "chunk {chunk}, at {at}");
            }
        }
    }
}
