//! The body of an HTTP/3 request, as axum wants it: pulled piece by piece, so that a slow reader slows the sender.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::BoxError;
use bytes::{Buf, Bytes};
use h3::{error::Code, server::RequestStream};
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;

use super::streams::Receiving;

type Incoming = RequestStream<Receiving, Bytes>;

/// A request's body. It ends without an error only when the peer has finished the stream and all announced octets came.
pub(crate) struct RequestBody {
    /// Here until the body is dropped.
    stream: Option<Incoming>,
    rest: Option<oneshot::Sender<Incoming>>,
    announced: Option<u64>,
    received: u64,
    stage: Stage,
    /// Octets of all bodies on the connection that were handed on.
    read: Arc<AtomicU64>,
}

enum Stage {
    Data,
    Trailers,
    Over,
}

/// The peer announced another length.
#[derive(Debug, thiserror::Error)]
#[error("the body has {received} octets, {announced} were announced")]
struct WrongLength {
    announced: u64,
    received: u64,
}

/// What nobody reads of a body.
pub(crate) struct Rest(oneshot::Receiver<Incoming>);

impl Rest {
    /// Says that it is not wanted: once the response is complete, so that whoever is still sending can rely on that (RFC 9114 section 4.1).
    pub(crate) fn refuse(mut self) {
        if let Ok(mut incoming) = self.0.try_recv() {
            incoming.stop_sending(Code::H3_NO_ERROR);
        }
    }
}

impl RequestBody {
    pub(crate) fn new(stream: Incoming, announced: Option<u64>, read: Arc<AtomicU64>) -> (Self, Rest) {
        let (give, rest) = oneshot::channel();
        let body = Self {
            stream: Some(stream),
            rest: Some(give),
            announced,
            received: 0,
            stage: Stage::Data,
            read,
        };
        (body, Rest(rest))
    }

    fn length_error(&self) -> Option<BoxError> {
        let announced = self.announced.filter(|announced| *announced != self.received)?;
        Some(Box::new(WrongLength {
            announced,
            received: self.received,
        }))
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(stream), Some(rest)) = (self.stream.take(), self.rest.take()) {
            // Nobody answers any more: then it is stopped at once.
            let _ = rest.send(stream);
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let body = &mut *self;
        let Some(stream) = &mut body.stream else {
            return Poll::Ready(None);
        };
        if let Stage::Data = body.stage {
            let received = match ready!(stream.poll_recv_data(cx)) {
                Ok(Some(mut part)) => Ok(Some(part.copy_to_bytes(part.remaining()))),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            match received {
                Ok(Some(part)) => {
                    body.received += part.len() as u64;
                    body.read.fetch_add(part.len() as u64, Ordering::Relaxed);
                    if body.announced.is_some_and(|announced| body.received > announced) {
                        body.stage = Stage::Over;
                        return Poll::Ready(body.length_error().map(Err));
                    }
                    return Poll::Ready(Some(Ok(Frame::data(part))));
                }
                Ok(None) => body.stage = Stage::Trailers,
                Err(error) => {
                    body.stage = Stage::Over;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
        if let Stage::Trailers = body.stage {
            // Trailers may be absent, but the stream has to end.
            let trailers = ready!(stream.poll_recv_trailers(cx));
            body.stage = Stage::Over;
            return Poll::Ready(match trailers {
                Err(error) => Some(Err(error.into())),
                Ok(_) if body.length_error().is_some() => body.length_error().map(Err),
                Ok(trailers) => trailers.map(|fields| Ok(Frame::trailers(fields))),
            });
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    fn size_hint(&self) -> SizeHint {
        match self.announced {
            Some(announced) => SizeHint::with_exact(announced.saturating_sub(self.received)),
            None => SizeHint::default(),
        }
    }
}
