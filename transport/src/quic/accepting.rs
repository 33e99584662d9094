//! Requests of a peer, from their first octet on.
//!
//! A stream opens all those with lower numbers (RFC 9000 section 2.1), and what it carries may overtake what they do: a small or
//! urgent mail is here long before the large one that was begun earlier has said anything. Nothing is asked of them before they do.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, Stream};
use quinn::{RecvStream, SendStream};

/// A request stream that is being accepted.
type Next =
    Pin<Box<dyn Future<Output = Result<(SendStream, RecvStream), quinn::ConnectionError>> + Send + Sync>>;

/// A request stream on which nothing has come yet; nothing for one that was given up.
type Silent = Pin<Box<dyn Future<Output = Option<Begun>> + Send + Sync>>;

/// A request stream and the first octets on it.
pub(super) struct Begun {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    pub(super) first: Bytes,
}

/// Accepts request streams.
#[derive(Default)]
pub(super) struct Accepting {
    next: Option<Next>,
    silent: FuturesUnordered<Silent>,
}

impl Accepting {
    /// The next stream that has begun.
    pub(super) fn poll(
        &mut self,
        connection: &quinn::Connection,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Begun, quinn::ConnectionError>> {
        loop {
            let next = self.next.get_or_insert_with(|| {
                let connection = connection.clone();
                Box::pin(async move { connection.accept_bi().await })
            });
            let Poll::Ready(accepted) = next.as_mut().poll(cx) else {
                break;
            };
            self.next = None;
            let mut silent: Silent = Box::pin(first_octets(accepted?));
            // Most come with their first octets.
            match silent.as_mut().poll(cx) {
                Poll::Ready(Some(begun)) => return Poll::Ready(Ok(begun)),
                Poll::Ready(None) => {}
                Poll::Pending => self.silent.push(silent),
            }
        }
        while let Some(begun) = ready!(Pin::new(&mut self.silent).poll_next(cx)) {
            if let Some(begun) = begun {
                return Poll::Ready(Ok(begun));
            }
        }
        Poll::Pending
    }
}

async fn first_octets((mut send, mut recv): (SendStream, RecvStream)) -> Option<Begun> {
    match recv.read_chunk(usize::MAX, true).await {
        Ok(Some(first)) => Some(Begun {
            send,
            recv,
            first: first.bytes,
        }),
        Ok(None) | Err(_) => {
            // Ended, reset or lost before it said anything; dropped, it would look like an empty answer.
            let _ = send.reset(h3_code(h3::error::Code::H3_REQUEST_INCOMPLETE));
            None
        }
    }
}

fn h3_code(code: h3::error::Code) -> quinn::VarInt {
    quinn::VarInt::from_u64(code.value()).unwrap_or(quinn::VarInt::MAX)
}
