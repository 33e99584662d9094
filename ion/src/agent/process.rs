//! Starts and ends the helper process.

use std::{
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use lightpost_clock::Clock;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    net::UnixStream,
    process::{Child, Command},
};

use super::Settings;

/// How long a helper may take to end when it is asked, before it is asked by SIGTERM. There is nothing after that.
const ASKED: Duration = Duration::from_secs(15);

/// This program, even when its file was replaced since.
const SELF: &str = "/proc/self/exe";

/// The program that is started.
pub(super) fn program(settings: &Settings) -> PathBuf {
    settings.program.clone().unwrap_or_else(|| SELF.into())
}

/// Starts a helper, in a process group of its own: a signal to the relay's group, SIGKILL above all, does not reach it.
pub(super) fn start(settings: &Settings) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut command = Command::new(program(settings));
    command
        .arg0("lightpost")
        .arg("ion-agent")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .process_group(0);
    if let Some(folder) = &settings.node {
        command.env("ION_NODE_WDNAME", folder).current_dir(folder);
    }
    if let Some(folder) = &settings.nodes {
        command.env("ION_NODE_LIST_DIR", folder);
    }
    if let Some(folder) = &settings.libraries {
        command.env("LD_LIBRARY_PATH", search_path(folder));
    }
    let child = command.spawn()?;
    Ok((child, UnixStream::from_std(ours)?))
}

fn search_path(folder: &Path) -> OsString {
    let mut path = folder.as_os_str().to_owned();
    if let Some(inherited) = std::env::var_os("LD_LIBRARY_PATH") {
        path.push(":");
        path.push(inherited);
    }
    path
}

/// Waits for the end of a helper that was asked to end, however long it takes. It is never killed: see the crate's documentation.
pub(super) async fn wait(child: &mut Child, clock: &Clock) -> io::Result<ExitStatus> {
    if let Ok(ended) = clock.timeout(ASKED, child.wait()).await {
        return ended;
    }
    let id = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(id) = id {
        tracing::warn!("ION's helper does not end; SIGTERM");
        let _ = kill_process(id, Signal::TERM);
    }
    child.wait().await
}
