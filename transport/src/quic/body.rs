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
use h3::server::RequestStream;
use http_body::{Frame, SizeHint};

use super::streams::Receiving;

/// A request's body. It ends without an error only when the peer has finished the stream and all announced octets came.
pub(crate) struct RequestBody {
    stream: RequestStream<Receiving, Bytes>,
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

impl RequestBody {
    pub(crate) fn new(
        stream: RequestStream<Receiving, Bytes>,
        announced: Option<u64>,
        read: Arc<AtomicU64>,
    ) -> Self {
        Self {
            stream,
            announced,
            received: 0,
            stage: Stage::Data,
            read,
        }
    }

    fn length_error(&self) -> Option<BoxError> {
        let announced = self.announced.filter(|announced| *announced != self.received)?;
        Some(Box::new(WrongLength {
            announced,
            received: self.received,
        }))
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
        if let Stage::Data = body.stage {
            let received = match ready!(body.stream.poll_recv_data(cx)) {
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
            let trailers = ready!(body.stream.poll_recv_trailers(cx));
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
