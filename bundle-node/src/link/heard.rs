//! Silence: nobody waits for ever for octets, and nobody is cut off while they come, however slowly.

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, ReadBuf};

use super::End;
use crate::custody::Core;

/// Whether something was heard lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<AtomicBool>);

impl Heard {
    /// Waits for `reading`, for as long as no silence lasts longer than `silence`, or twice as long.
    pub(crate) async fn within<T>(
        &self,
        core: &Core,
        silence: Duration,
        reading: impl Future<Output = Result<T, End>>,
    ) -> Result<T, End> {
        let mut reading = pin!(reading);
        self.0.store(false, Ordering::Relaxed);
        loop {
            if let Ok(read) = core.clock.timeout(silence, reading.as_mut()).await {
                return read;
            }
            if !self.0.swap(false, Ordering::Relaxed) {
                return Err(End::Silent);
            }
        }
    }
}

/// A stream that is listened to.
pub(crate) struct Listening<S> {
    pub(crate) stream: S,
    pub(crate) heard: Heard,
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        if into.filled().len() > before {
            self.heard.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}
