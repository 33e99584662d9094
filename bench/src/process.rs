//! Child processes that end with the run.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use lightpost_clock::Clock;

use crate::Result;

/// How long a program may take until it listens.
const START_WITHIN: Duration = Duration::from_secs(60);

/// A running program; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    /// Starts a program whose output goes to a file in `folder`.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let failed = |error: std::io::Error| format!("{name} cannot be started: {error}");
        let output = File::create(&log).map_err(failed)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            .spawn()
            .map_err(failed)?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Waits until it accepts connections on `address`.
    pub(crate) async fn listens(&mut self, address: SocketAddr, clock: &Clock) -> Result<()> {
        let started = clock.instant();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            self.runs()?;
            if started.elapsed() > START_WITHIN {
                return Err(format!(
                    "{} does not listen on {address}: {}",
                    self.name,
                    self.last_words()
                ));
            }
            clock.sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// An error with its last words when it has ended.
    pub(crate) fn runs(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("{} ended ({status}): {}", self.name, self.last_words())),
            Err(error) => Err(format!("{}: {error}", self.name)),
        }
    }

    /// The most memory that it ever had, in octets.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
            .map(|kib| kib * 1024)
    }

    /// What it printed.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Asks it to end with SIGTERM, and waits for that.
    pub(crate) async fn end(mut self, clock: &Clock) -> Result<()> {
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let asked = clock.instant();
        while self.runs().is_ok() && asked.elapsed() < START_WITHIN {
            clock.sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let output = self.output();
        let mut lines: Vec<&str> = output.lines().rev().take(3).collect();
        lines.reverse();
        lines.join(" / ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address that is free now, for TCP and UDP.
pub(crate) fn free_address() -> Result<SocketAddr> {
    for _ in 0..100 {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no free port: {error}"))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        if std::net::UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no port that is free for TCP and UDP".into())
}

/// Whether this is root.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}
