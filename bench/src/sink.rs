//! Postfix's smtp-sink: the far SMTP server of both sides.

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lightpost_clock::{Clock, Instant};
use tokio::io::AsyncReadExt;

use crate::{
    Result,
    process::{free_address, is_root},
};

const SINK: &str = "/usr/sbin/smtp-sink";
/// How long nothing may arrive before a run is given up.
const STALL: Duration = Duration::from_secs(60);

/// A running sink that counts.
#[derive(Debug)]
pub(crate) struct Sink {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    mails: Arc<AtomicUsize>,
    _child: tokio::process::Child,
}

impl Sink {
    /// Starts one.
    pub(crate) async fn start(clock: &Clock) -> Result<Self> {
        let address = free_address()?;
        let mut command = tokio::process::Command::new(SINK);
        if is_root() {
            command.args(["-u", "nobody"]);
        }
        let mut child = command
            .args(["-c", &address.to_string(), "1024"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                format!("{SINK}: {error}; install Debian's package postfix: apt-get install postfix")
            })?;
        let mails = Arc::new(AtomicUsize::new(0));
        let output = child.stdout.take().ok_or("smtp-sink has no output")?;
        tokio::spawn(count(output, mails.clone()));
        let started = clock.instant();
        while std::net::TcpStream::connect(address).is_err() {
            if started.elapsed() > Duration::from_secs(10) {
                return Err("smtp-sink does not listen".into());
            }
            clock.sleep(Duration::from_millis(10)).await;
        }
        Ok(Self {
            address,
            mails,
            _child: child,
        })
    }

    /// Mails that arrived so far.
    pub(crate) fn mails(&self) -> usize {
        self.mails.load(Ordering::Relaxed)
    }

    /// Waits until `mails` mails have arrived; the time at which the last did.
    pub(crate) async fn arrived(&self, mails: usize, clock: &Clock) -> Result<Instant> {
        let mut last = (self.mails(), clock.instant());
        loop {
            let count = self.mails();
            if count >= mails {
                return Ok(clock.instant());
            }
            if count > last.0 {
                last = (count, clock.instant());
            } else if last.1.elapsed() > STALL {
                return Err(format!(
                    "only {count} of {mails} mails arrived, and none for {} s",
                    STALL.as_secs()
                ));
            }
            clock.sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Reads its counters: `sess=1 quit=0 mesg=17`, each behind a carriage return.
async fn count(mut output: tokio::process::ChildStdout, mails: Arc<AtomicUsize>) {
    let (mut text, mut chunk) = (String::new(), [0; 4096]);
    while let Ok(read) = output.read(&mut chunk).await {
        if read == 0 {
            return;
        }
        text.push_str(&String::from_utf8_lossy(chunk.get(..read).unwrap_or_default()));
        if let Some(count) = latest(&text) {
            mails.store(count, Ordering::Relaxed);
        }
        let read = text.rfind('\r').map_or(0, |end| end + 1);
        text.drain(..read);
    }
}

/// The last complete count in `text`.
fn latest(text: &str) -> Option<usize> {
    let line = text.rsplit('\r').nth(1)?;
    line.split("mesg=").nth(1)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::latest;

    #[test]
    fn the_last_complete_count() {
        assert_eq!(latest("sess=0 quit=0 mesg=1\rsess=0 quit=0 mesg=2\r"), Some(2));
        assert_eq!(latest("sess=0 quit=0 mesg=1\rsess=0 quit=0 mesg=2"), Some(1));
        assert_eq!(latest("sess=0 qu"), None);
    }
}
