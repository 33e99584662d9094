//! What is written: answers before bundles, and something at least as often as was agreed.

use bytes::Bytes;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt, BufWriter},
    sync::mpsc,
};

use super::{contact::Terms, message::Message};
use crate::{custody::Core, link::End};

/// Octets gathered before they are written.
const GATHER: usize = 64 * 1024;

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
            match terms.keepalive {
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
        if let Err(error) = write(&mut stream, first, &mut answers, &mut segments).await {
            return error.into();
        }
    }
}

/// Writes `first` and all that is there.
async fn write<W: AsyncWrite + Unpin>(
    stream: &mut BufWriter<W>,
    first: Frame,
    answers: &mut mpsc::Receiver<Frame>,
    segments: &mut mpsc::Receiver<Frame>,
) -> std::io::Result<()> {
    let mut next = Some(first);
    while let Some(frame) = next {
        stream.write_all(&frame.head).await?;
        stream.write_all(&frame.body).await?;
        next = answers.try_recv().or_else(|_| segments.try_recv()).ok();
    }
    stream.flush().await
}
