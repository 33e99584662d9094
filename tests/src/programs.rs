//! The release binary as a client or a gateway.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Process, Site,
    http::{Answer, Request},
    network::Host,
    peer,
    process::{self, Finished},
    wait,
};

/// A client or a gateway with its configuration; started, killed and started again at will.
#[derive(Debug)]
pub struct Program {
    role: &'static str,
    name: String,
    /// Its REST interface: ingestion and operation of a client, operation of a gateway.
    pub api: SocketAddr,
    ready: Vec<SocketAddr>,
    /// The configuration file.
    pub configuration: PathBuf,
    host: Option<Arc<Host>>,
    process: Option<Process>,
}

/// Where a program is killed: on entering the `nth` of some system calls on one of its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The calls' names, with commas.
    pub calls: &'static str,
    /// Which files or folders they have to be on, below the site's folder, for a program with several databases; empty: on any.
    pub files: &'static [&'static str],
    /// Which of them, from 1.
    pub nth: u32,
}

/// What a record of calls tells apart.
const RECORDED: &str = "fsync,fdatasync,sendmsg,sendmmsg";

impl Fault {
    /// On calls on any file.
    pub const fn new(calls: &'static str, nth: u32) -> Self {
        Self {
            calls,
            files: &[],
            nth,
        }
    }

    /// strace's arguments.
    fn strace(self, site: &Site, record: Option<&Path>) -> Vec<String> {
        let Self { calls, files, nth } = self;
        let (file, traced) = match record {
            Some(file) => (file.display().to_string(), format!("{calls},{RECORDED}")),
            None => ("/dev/null".into(), calls.to_owned()),
        };
        // Without --seccomp-bpf, with which strace 6.1 counts no further than the first call.
        let mut arguments: Vec<String> = ["-f", "-qq", "-o"].map(String::from).into();
        arguments.extend([
            file,
            "-e".into(),
            format!("trace={traced}"),
            "-e".into(),
            format!("inject={calls}:signal=KILL:when={nth}"),
        ]);
        // Calls on other files are neither recorded nor counted.
        for file in files {
            arguments.extend(["-P".into(), site.folder().join(file).display().to_string()]);
        }
        arguments
    }
}

impl Program {
    /// A client (`role` "client") or a gateway ("server") by a configuration text; not started.
    pub fn new(
        site: &Site,
        role: &'static str,
        name: &str,
        api: SocketAddr,
        other: &[SocketAddr],
        configuration: &str,
    ) -> Self {
        let mut ready = vec![api];
        ready.extend_from_slice(other);
        Self {
            role,
            name: name.to_owned(),
            api,
            ready,
            configuration: site.write(&format!("{name}.toml"), configuration),
            host: None,
            process: None,
        }
    }

    /// From now on it runs on this host.
    pub fn on(&mut self, host: Arc<Host>) {
        self.host = Some(host);
    }

    fn arguments(&self) -> Vec<String> {
        vec![
            self.role.into(),
            "--config".into(),
            self.configuration.display().to_string(),
        ]
    }

    /// Starts it and waits until it listens.
    pub fn start(&mut self, site: &Site) {
        self.launch(site, &peer::lightpost(), self.arguments());
        self.wait_ready();
    }

    /// Starts it without waiting.
    pub fn start_unready(&mut self, site: &Site) {
        self.launch(site, &peer::lightpost(), self.arguments());
    }

    /// Starts it under strace, which kills it at `fault` and writes its commits and datagrams to `record`; does not wait, for it
    /// may die at once.
    pub fn start_with_fault(&mut self, site: &Site, fault: Fault, record: Option<&Path>) {
        let strace = peer::program("/usr/bin/strace", "strace");
        let mut arguments = fault.strace(site, record);
        arguments.extend(["/usr/bin/setpriv", "--pdeathsig", "KILL", "--"].map(String::from));
        arguments.push(peer::lightpost().display().to_string());
        arguments.extend(self.arguments());
        self.launch(site, &strace, arguments);
    }

    /// The same for the running program: its calls are counted from now on. Returns strace.
    #[track_caller]
    pub fn fault_from_now(&mut self, site: &Site, fault: Fault, record: Option<&Path>) -> Process {
        let strace = peer::program("/usr/bin/strace", "strace");
        let mut arguments = fault.strace(site, record);
        let id = self.process().id().to_string();
        arguments.extend(["-p".into(), id.clone()]);
        let mut strace = Process::start(site, "strace", &strace, arguments);
        strace.wait_ready(|| process::is_traced(&id));
        strace
    }

    fn launch(&mut self, site: &Site, program: &Path, arguments: Vec<String>) {
        self.process = None;
        self.process = Some(match &self.host {
            Some(host) => host.start(site, &self.name, program, &arguments),
            None => Process::start(site, &self.name, program, arguments),
        });
    }

    /// Waits until it listens everywhere.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let ready = self.ready.clone();
        self.process()
            .wait_ready(|| ready.iter().all(|address| wait::listens(*address)));
    }

    /// Its process.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the program was started")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM and the end.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop();
        }
    }

    /// Asks its REST interface.
    pub fn ask(&self, request: &Request) -> io::Result<Answer> {
        request.send(self.api)
    }

    /// Hands over a mail that has to be accepted; returns its id.
    #[track_caller]
    pub fn submit(&self, from: &str, to: &[&str], message: &[u8]) -> String {
        let answer = self.ask(&Request::mail(from, to, message)).unwrap();
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// A message with its history.
    pub fn message(&self, id: &str) -> Value {
        self.ask(&Request::get(&format!("/v1/messages/{id}")))
            .map_or(Value::Null, |answer| answer.json())
    }

    /// All messages, whatever their status.
    pub fn messages(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let answer = self
                .ask(&Request::get(&format!("/v1/messages?limit=1000{after}")))
                .unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            let page = answer.json();
            all.extend(page["messages"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return all,
            }
        }
    }

    /// The statuses of one message's recipients.
    pub fn statuses(&self, id: &str) -> Vec<String> {
        let message = self.message(id);
        let recipients = message["recipients"].as_array().cloned().unwrap_or_default();
        recipients
            .iter()
            .map(|recipient| recipient["status"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Waits until all recipients of a message have `status`.
    #[track_caller]
    pub fn wait_status(&self, id: &str, status: &str, limit: Duration) {
        let came = wait::holds_within(limit, || {
            let statuses = self.statuses(id);
            !statuses.is_empty() && statuses.iter().all(|now| now == status)
        });
        assert!(
            came,
            "{id} is not {status} within {limit:?}:\n{:#}",
            self.message(id)
        );
    }

    /// Messages that are not done; `None` when it does not answer.
    pub fn unfinished(&self) -> Option<u64> {
        self.ask(&Request::get("/v1/totals")).ok()?.json()["messages"].as_u64()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a short-lived command of the binary.
pub fn lightpost(arguments: &[&str], input: &[u8]) -> Finished {
    process::run(Command::new(peer::lightpost()).args(arguments), input)
}

/// The release binary where a user without rights can run it: the checkout may lie in a folder of root's.
pub fn public_binary(site: &Site) -> PathBuf {
    let copy = site.path("bin/lightpost");
    fs::copy(peer::lightpost(), &copy).unwrap();
    copy
}
