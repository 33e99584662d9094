//! A peer's unidirectional streams: control, QPACK, and what we do not know (RFC 9114 section 6.2).

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::quic::{RecvStream, StreamErrorIncoming, StreamId};
use quinn::VarInt;

use super::frames::{Excess, FRAME_LIMIT, Frames, integer};

/// H3_EXCESSIVE_LOAD (RFC 9114 section 8.1).
pub(crate) const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);
const CONTROL: u64 = 0;
const QPACK_ENCODER: u64 = 2;
const QPACK_DECODER: u64 = 3;

/// A peer's unidirectional stream: its frames are bounded, and what h3 would leave unread is read.
pub(crate) struct Unidirectional {
    /// `None` once a task of its own reads it.
    inner: Option<h3_quinn::RecvStream>,
    id: StreamId,
    connection: quinn::Connection,
    kind: Kind,
    /// What was read and belongs to later pieces.
    rest: Bytes,
    /// Whether no read is pending.
    idle: bool,
}

enum Kind {
    /// Its type has not come yet, or not whole.
    Unknown(Vec<u8>),
    /// Frames.
    Control(Frames),
    /// Something that h3 reads no farther than its type, or whose type h3 has and stops it.
    Other,
}

impl Unidirectional {
    pub(crate) fn new(stream: h3_quinn::RecvStream, connection: quinn::Connection) -> Self {
        Self {
            id: stream.recv_id(),
            inner: Some(stream),
            connection,
            kind: Kind::Unknown(Vec::new()),
            rest: Bytes::new(),
            idle: true,
        }
    }

    /// The next piece of `rest`: the type, then what the type makes of it.
    fn piece(&mut self) -> Result<Option<Bytes>, Excess> {
        match &mut self.kind {
            Kind::Control(frames) => frames.next(&mut self.rest),
            Kind::Other if self.rest.is_empty() => Ok(None),
            Kind::Other => Ok(Some(std::mem::take(&mut self.rest))),
            Kind::Unknown(octets) => {
                while let Some(octet) = self.rest.first() {
                    octets.push(*octet);
                    self.rest.advance(1);
                    if let Some((kind, _)) = integer(octets) {
                        let head = Bytes::from(std::mem::take(octets));
                        self.begin(kind);
                        return Ok(Some(head));
                    }
                }
                Ok(None)
            }
        }
    }

    fn begin(&mut self, kind: u64) {
        self.kind = match kind {
            CONTROL => Kind::Control(Frames::default()),
            _ => Kind::Other,
        };
        if let QPACK_ENCODER | QPACK_DECODER = kind
            && let Some(stream) = self.inner.take()
        {
            tokio::spawn(discard(stream, self.connection.clone(), kind));
        }
    }
}

/// Reads what h3 leaves unread. We offer no dynamic table, so an encoder has nearly nothing to say (RFC 9204 section 4.1);
/// a decoder may report each request that it gave up, for as long as the connection lives.
async fn discard(mut stream: h3_quinn::RecvStream, connection: quinn::Connection, kind: u64) {
    let mut octets = 0;
    while let Ok(Some(data)) = poll_fn(|cx| stream.poll_data(cx)).await {
        octets += data.len() as u64;
        if kind == QPACK_ENCODER && octets > FRAME_LIMIT {
            close(&connection, "QPACK instructions without a table");
            return;
        }
    }
}

fn close(connection: &quinn::Connection, why: &str) {
    connection.close(EXCESSIVE_LOAD, why.as_bytes());
}

impl RecvStream for Unidirectional {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            match self.piece() {
                Ok(Some(piece)) => return Poll::Ready(Ok(Some(piece))),
                Ok(None) => {}
                Err(excess) => {
                    // The streams that stand beside the requests cannot be lost without the connection.
                    close(&self.connection, &excess.to_string());
                    return Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(excess))));
                }
            }
            let Some(inner) = &mut self.inner else {
                return Poll::Pending;
            };
            let polled = inner.poll_data(cx);
            self.idle = polled.is_ready();
            match ready!(polled)? {
                Some(data) => self.rest = data,
                None => return Poll::Ready(Ok(None)),
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        // While a read is pending the stream is lent to it; dropping the read stops the peer as well.
        if let Some(inner) = &mut self.inner
            && self.idle
        {
            inner.stop_sending(code);
        }
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}
