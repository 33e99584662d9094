//! The mail on standard input: streamed, and kept as long as the request may have to be repeated.
//!
//! A mail that fits into [`SMALL`] octets is kept in memory. Of a larger one a copy goes to an unnamed temporary file
//! while it is streamed; where there is no room for that file, the mail is sent once and not repeated.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    sync::{Arc, Mutex},
};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::connection::{self, Body};

/// Octets that are read before the request starts. A mail of at most this size has a length in its request.
const SMALL: usize = 256 * 1024;
/// Octets per chunk.
const CHUNK: usize = 64 * 1024;

/// What a repeat is sent from.
#[derive(Default)]
pub(crate) struct Copy {
    /// An unnamed file; absent where there is no room for it.
    file: Option<File>,
    /// Whether the mail was read to its end.
    whole: bool,
}

type SharedCopy = Arc<Mutex<Copy>>;

/// A mail that is being handed over.
pub(crate) enum Input {
    /// All of it.
    Small(Bytes),
    /// Its beginning, and where the rest comes from.
    Large {
        /// What was read.
        start: Bytes,
        /// The rest.
        rest: Box<dyn AsyncRead + Send + Unpin>,
    },
    /// It was streamed; the copy serves a repeat, if it is whole.
    Streamed {
        /// The copy.
        copy: SharedCopy,
    },
}

impl Input {
    /// Reads the beginning of `source`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn read(mut source: impl AsyncRead + Send + Unpin + 'static) -> io::Result<Self> {
        let mut start = BytesMut::with_capacity(8 * 1024);
        while start.len() <= SMALL {
            if source.read_buf(&mut start).await? == 0 {
                return Ok(Self::Small(start.freeze()));
            }
        }
        Ok(Self::Large {
            start: start.freeze(),
            rest: Box::new(source),
        })
    }

    /// The beginning of the mail, and whether it is all of it; `None` once it was streamed.
    pub(crate) fn start(&mut self) -> Option<(&mut Bytes, bool)> {
        match self {
            Self::Small(octets) => Some((octets, true)),
            Self::Large { start, .. } => Some((start, false)),
            Self::Streamed { .. } => None,
        }
    }

    /// The body of the next attempt; `None` when the mail cannot be sent again.
    pub(crate) fn body(&mut self) -> Option<Body> {
        match std::mem::replace(self, Self::Small(Bytes::new())) {
            Self::Small(octets) => {
                *self = Self::Small(octets.clone());
                Some(connection::full(octets))
            }
            Self::Large { start, rest } => {
                let copy = SharedCopy::default();
                if let Ok(mut copy) = copy.lock() {
                    copy.file = tempfile::tempfile().ok();
                }
                *self = Self::Streamed { copy: copy.clone() };
                Some(streamed(start, rest, copy))
            }
            Self::Streamed { copy } => {
                let mut copy = copy.lock().ok()?;
                let mut file = copy.file.take().filter(|_| copy.whole)?;
                file.rewind().ok()?;
                Some(from_file(file))
            }
        }
    }
}

/// The start, then the rest, both into the copy as well.
fn streamed(start: Bytes, rest: Box<dyn AsyncRead + Send + Unpin>, copy: SharedCopy) -> Body {
    let chunks = stream::unfold((Some(start), Some(rest)), move |(start, rest)| {
        let copy = copy.clone();
        async move {
            if let Some(start) = start {
                keep(&copy, &start);
                return Some((Ok(Frame::data(start)), (None, rest)));
            }
            let mut source = rest?;
            let mut chunk = BytesMut::with_capacity(CHUNK);
            match source.read_buf(&mut chunk).await {
                Ok(0) => {
                    if let Ok(mut copy) = copy.lock() {
                        copy.whole = true;
                    }
                    None
                }
                Ok(_) => {
                    keep(&copy, &chunk);
                    Some((Ok(Frame::data(chunk.freeze())), (None, Some(source))))
                }
                // The request is cut off, so the agent cannot take the beginning for the whole.
                Err(error) => Some((Err(error), (None, None))),
            }
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(chunks))
}

/// Appends to the copy, and gives it up when there is no room. (A short blocking write: nothing else runs here.)
fn keep(copy: &SharedCopy, octets: &[u8]) {
    let Ok(mut copy) = copy.lock() else { return };
    let written = copy.file.as_mut().map(|file| file.write_all(octets));
    if !matches!(written, Some(Ok(()))) {
        copy.file = None;
    }
}

fn from_file(file: File) -> Body {
    let chunks = stream::unfold(Some(file), |file| async move {
        let mut file = file?;
        let mut chunk = vec![0; CHUNK];
        match file.read(&mut chunk) {
            Ok(0) => None,
            Ok(read) => {
                chunk.truncate(read);
                Some((Ok(Frame::data(Bytes::from(chunk))), Some(file)))
            }
            Err(error) => Some((Err(error), None)),
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn octets(body: Body) -> io::Result<Bytes> {
        body.collect().await.map(|whole| whole.to_bytes())
    }

    #[tokio::test]
    async fn a_mail_of_any_size_can_be_sent_twice() {
        for size in [0, 1, SMALL, SMALL + 1, 3 * SMALL + 7] {
            let mail: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
            let mut input = Input::read(io::Cursor::new(mail.clone())).await.unwrap();
            for _ in 0..2 {
                let body = input.body().unwrap();
                assert!(octets(body).await.unwrap() == mail, "{size}");
            }
        }
    }

    #[tokio::test]
    async fn a_mail_that_was_not_read_to_its_end_is_not_repeated() {
        let mut input = Input::read(io::Cursor::new(vec![1; 3 * SMALL])).await.unwrap();
        let mut body = input.body().unwrap();
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert!(input.body().is_none());
    }

    #[tokio::test]
    async fn a_pipe_that_breaks_cuts_the_request_off() {
        struct Broken(usize);
        impl AsyncRead for Broken {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                into: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                if self.0 == 0 {
                    return std::task::Poll::Ready(Err(io::Error::other("gone")));
                }
                self.0 -= 1;
                into.put_slice(&[b'x'; 1024]);
                std::task::Poll::Ready(Ok(()))
            }
        }
        let mut input = Input::read(Broken(2 * SMALL / 1024)).await.unwrap();
        let body = input.body().unwrap();
        assert!(octets(body).await.is_err());
        assert!(Input::read(Broken(3)).await.is_err());
    }
}
