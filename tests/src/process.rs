//! A process that ends with the test.

use std::{
    ffi::OsStr,
    fs,
    fs::OpenOptions,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use crate::{Site, peer, wait};

/// A running program. It leads a process group of its own, its output goes to `NAME.log` in the site's folder, the kernel
/// kills it when the test's thread dies, and dropping it ends the whole group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

/// What `kill` sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: please end.
    Term,
    /// SIGKILL: as in a power cut.
    Kill,
    /// SIGSTOP: no answer any more.
    Stop,
    /// SIGCONT: on again.
    Continue,
}

impl Process {
    /// Starts `program` with `arguments`.
    pub fn start<A: AsRef<OsStr>>(
        site: &Site,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let log = site.path(&format!("{name}.log"));
        let output = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        // setpriv and not a hook between fork and exec: no unsafe code, and it works behind strace too.
        let setpriv = peer::program("/usr/bin/setpriv", "util-linux");
        let child = Command::new(setpriv)
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()));
        Self {
            name: name.to_owned(),
            child,
            log,
            ended: None,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it printed.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Waits until `ready`; fails the test when the process ends before, or after a minute.
    #[track_caller]
    pub fn wait_ready(&mut self, mut ready: impl FnMut() -> bool) {
        let mut ended = None;
        let came = wait::holds_within(Duration::from_secs(60), || {
            ended = self.ended();
            ended.is_some() || ready()
        });
        if let Some(status) = ended {
            panic!(
                "{} ended with {status} instead of getting ready:\n{}",
                self.name,
                self.output()
            );
        }
        assert!(came, "{} did not get ready:\n{}", self.name, self.output());
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let name = self.name.clone();
        wait::until_some(&format!("the end of {name}"), limit, || self.ended())
    }

    /// Sends a signal to the whole group.
    pub fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Term => "-TERM",
            Signal::Kill => "-KILL",
            Signal::Stop => "-STOP",
            Signal::Continue => "-CONT",
        };
        // The group may be gone already.
        let _ = Command::new("/bin/kill")
            .args([name, "--", &format!("-{}", self.child.id())])
            .stderr(Stdio::null())
            .status();
    }

    /// `kill -9` of the whole group, and waits until it is gone.
    #[track_caller]
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::Kill);
            self.wait_end(Duration::from_secs(20));
        }
        // Behind strace the program is not our child: it may outlive strace by a moment, and hold its port.
        let group = self.id();
        wait::until("the end of the process group", Duration::from_secs(20), || {
            !group_lives(group)
        });
    }

    /// SIGTERM, and SIGKILL when that does not end it within ten seconds.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        if self.ended().is_none() {
            self.signal(Signal::Term);
            if !wait::holds_within(Duration::from_secs(10), || self.ended().is_some()) {
                self.signal(Signal::Kill);
                let _ = self.child.wait();
            }
        }
        self.ended()
    }

    /// The most memory that it ever held, in octets (`VmHWM`).
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
        kib * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
        // What the leader left behind.
        self.signal(Signal::Kill);
    }
}

/// Whether a process group has a member that is not a zombie.
fn group_lives(group: u32) -> bool {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .any(|stat| {
            // PID (NAME) STATE PARENT GROUP ...; the name may hold anything.
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            let state = fields.next();
            state != Some("Z") && fields.nth(1) == Some(group.to_string().as_str())
        })
}

/// Whether all threads of a process are in a tracer's hands.
pub(crate) fn is_traced(id: &str) -> bool {
    let threads: Vec<String> = fs::read_dir(format!("/proc/{id}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
        .collect();
    !threads.is_empty() && !threads.iter().any(|status| status.contains("TracerPid:\t0\n"))
}

/// Whether a process was ended by SIGKILL.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}

/// What a short-lived command printed.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a short-lived command with `input` on its standard input.
pub fn run(command: &mut Command, input: &[u8]) -> Finished {
    use std::io::Write;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // A command that does not read its input breaks the pipe; that is not our failure.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    });
    Finished {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
