//! What is written: answers before bundles, and something at least as often as was agreed.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt, BufWriter},
    sync::mpsc,
};

use super::{contact::Terms, message::Message};
use crate::{custody::Core, link::End};

/// Octets gathered before they are written.
const GATHER: usize = 64 * 1024;

/// How long one frame may take: whoever reads no faster holds a connection for nothing.
const STUCK: Duration = Duration::from_secs(600);

/// What is to be written.
pub(super) struct Frame {
    pub(super) head: Bytes,
    pub(super) body: Bytes,
}

impl From<Message> for Frame {
    fn from(message: Message) -> Self {
        Self {
            head: message.encode(),
            body: Bytes::new(),
        }
    }
}

/// Writes until the session ends; pends when there is nothing.
pub(super) async fn run<W: AsyncWrite + Unpin>(
    core: &Core,
    stream: W,
    terms: &Terms,
    mut answers: mpsc::Receiver<Frame>,
    mut segments: mpsc::Receiver<Frame>,
) -> End {
    let mut stream = BufWriter::with_capacity(GATHER, stream);
    loop {
        let silence = async {
            match terms.quiet() {
                Some(span) => core.clock.sleep(span).await,
                None => std::future::pending().await,
            }
        };
        let first = tokio::select! {
            biased;
            Some(frame) = answers.recv() => frame,
            Some(frame) = segments.recv() => frame,
            () = silence => Message::Keepalive.into(),
        };
        let mut next = Some(first);
        while let Some(frame) = next {
            match core.clock.timeout(STUCK, write(&mut stream, &frame)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.into(),
                Err(_) => return End::Silent,
            }
            next = answers.try_recv().or_else(|_| segments.try_recv()).ok();
        }
        match core.clock.timeout(STUCK, stream.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return End::Silent,
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(stream: &mut BufWriter<W>, frame: &Frame) -> std::io::Result<()> {
    stream.write_all(&frame.head).await?;
    stream.write_all(&frame.body).await
}
