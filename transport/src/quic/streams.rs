//! Between h3 and quinn: request streams that never end cleanly unless they were finished.
//!
//! Four habits of the layers below would make half a mail look like a whole one, bring a task down, or let a stranger fill the
//! memory, and are cured here: quinn *finishes* a send stream that is dropped half-way; h3 0.0.8 takes the end of a stream
//! inside a DATA frame for the end of the body when the last octets came earlier; h3-quinn panics on `stop_sending` while a
//! read is pending; and h3 keeps frames of any length in memory (see [`super::frames`]).

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
};

use tokio::sync::oneshot;

pub(crate) use super::halves::{Receiving, Sending};
use super::{
    accepting::Accepting,
    halves::{ended, stream_id},
    unidirectional::Unidirectional,
};

tokio::task_local! {
    /// The priority of the streams that are opened within. h3 opens a request's stream itself, and passes nothing on to who opens it.
    pub(crate) static PRIORITY: i32;
}

/// A request stream on its way.
type Opening = Pin<
    Box<
        dyn Future<Output = Result<(quinn::SendStream, quinn::RecvStream), quinn::ConnectionError>>
            + Send
            + Sync,
    >,
>;

/// A connection for h3.
pub(crate) struct Connection {
    inner: h3_quinn::Connection,
    quic: quinn::Connection,
    accepting: Accepting,
    opening: Option<Opening>,
    /// Until this comes, no stream of the peer's is accepted.
    verdict: Option<oneshot::Receiver<()>>,
}

impl Connection {
    pub(crate) fn new(connection: quinn::Connection) -> Self {
        Self {
            inner: h3_quinn::Connection::new(connection.clone()),
            quic: connection,
            accepting: Accepting::default(),
            opening: None,
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
        let accepted = ready!(self.accepting.poll(&self.quic, cx));
        Poll::Ready(accepted.map_err(ended).and_then(|begun| {
            Bidi::new((begun.send, begun.recv)).map(|mut bidi| {
                bidi.recv.precede(begun.first);
                bidi
            })
        }))
    }

    fn opener(&self) -> Opener {
        Opener {
            inner: quic::Connection::<B>::opener(&self.inner),
            quic: self.quic.clone(),
            opening: None,
        }
    }
}

impl<B: Buf> quic::OpenStreams<B> for Connection {
    type BidiStream = Bidi<B>;
    type SendStream = h3_quinn::SendStream<B>;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        poll_open(&self.quic, &mut self.opening, cx)
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
pub(crate) struct Opener {
    inner: h3_quinn::OpenStreams,
    quic: quinn::Connection,
    opening: Option<Opening>,
}

impl Clone for Opener {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            quic: self.quic.clone(),
            opening: None,
        }
    }
}

fn poll_open<B: Buf>(
    connection: &quinn::Connection,
    opening: &mut Option<Opening>,
    cx: &mut Context<'_>,
) -> Poll<Result<Bidi<B>, StreamErrorIncoming>> {
    let open = opening.get_or_insert_with(|| {
        let connection = connection.clone();
        Box::pin(async move { connection.open_bi().await })
    });
    let opened = ready!(open.as_mut().poll(cx));
    *opening = None;
    let opened = opened.map_err(ended).and_then(Bidi::new);
    Poll::Ready(
        opened.map_err(|connection_error| StreamErrorIncoming::ConnectionErrorIncoming { connection_error }),
    )
}

impl<B: Buf> quic::OpenStreams<B> for Opener {
    type BidiStream = Bidi<B>;
    type SendStream = h3_quinn::SendStream<B>;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        poll_open(&self.quic, &mut self.opening, cx)
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

/// A request stream.
pub(crate) struct Bidi<B: Buf> {
    send: Sending<B>,
    recv: Receiving,
}

impl<B: Buf> Bidi<B> {
    fn new((send, recv): (quinn::SendStream, quinn::RecvStream)) -> Result<Self, ConnectionErrorIncoming> {
        let id = stream_id(send.id())?;
        let priority = PRIORITY.try_with(|priority| *priority).unwrap_or_default();
        Ok(Self {
            send: Sending::new(send, id, priority),
            recv: Receiving::new(recv, id),
        })
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
