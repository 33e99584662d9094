//! Real ION nodes, where ION is installed: each in namespaces of its own, so that it is a host of its own to ION.
//!
//! ION is not among the peers that the registries have; a test that needs it asks [`installed`] first, which says so when it is missing.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;

use crate::{Process, Site, peer, wait};

/// The folder of the node in its own file system, as the samples in `deploy/ion` have it.
pub const FOLDER: &str = "/var/lib/ion";

/// Whether ION is installed; says so on standard output when it is not.
pub fn installed() -> bool {
    let found = is_on_path();
    if !found {
        println!("not run: ionadmin is not on the PATH");
    }
    found
}

/// Whether ION is installed.
pub fn is_on_path() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("ionadmin").exists())
}

/// A node, with the samples of `deploy/ion` as they stand.
#[derive(Debug)]
pub struct Node {
    /// `earth` or `moon`.
    pub name: &'static str,
    /// Its number.
    pub number: u32,
    /// The folder of its samples.
    samples: PathBuf,
    host: Process,
}

impl Node {
    /// The two nodes of the samples, started.
    pub fn pair(site: &Site) -> [Self; 2] {
        Self::pair_with(site, |_, text| text)
    }

    /// The two nodes of the samples, each changed by `change` as in [`Node::install`], started.
    pub fn pair_with(site: &Site, change: impl Fn(&str, String) -> String) -> [Self; 2] {
        let earth = Site::new();
        let moon = Site::new();
        let hosts = format!(
            "127.0.0.1 localhost\n{} earth.example\n{} moon.example\n",
            earth.ip(),
            moon.ip()
        );
        // They hold the addresses for the life of the test.
        std::mem::forget((earth, moon));
        let hosts = site.write("hosts", hosts);
        ["earth", "moon"].map(|name| {
            let node = Self::host(site, name, &hosts);
            node.install(&change);
            node.start();
            node
        })
    }

    /// A host for the node: memory, semaphores, `/var/lib` and names of its own.
    pub fn host(site: &Site, name: &'static str, hosts: &Path) -> Self {
        peer::require_root("namespaces for ION");
        let ready = site.path(&format!("{name}.ready"));
        let script = format!(
            "mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs /var/lib && mkdir {FOLDER} && mount --bind '{}' /etc/hosts && \
             touch '{}' && exec sleep infinity",
            hosts.display(),
            ready.display()
        );
        let unshare = peer::program("/usr/bin/unshare", "util-linux");
        let arguments = [
            "--ipc",
            "--mount",
            "--propagation",
            "private",
            "--",
            "/bin/sh",
            "-c",
            &script,
        ];
        let mut host = Process::start(site, &format!("{name}-host"), &unshare, arguments);
        host.wait_ready(|| ready.exists());
        let number = if name == "earth" { 1 } else { 2 };
        let samples = peer::root().join("deploy/ion").join(name);
        Self {
            name,
            number,
            samples,
            host,
        }
    }

    /// The node of `deploy/bundles/ion` between two Lightposts, started.
    pub fn relay(site: &Site) -> Self {
        let hosts = site.write("hosts", "127.0.0.1 localhost\n");
        let mut node = Self::host(site, "relay", &hosts);
        node.number = 3;
        node.samples = peer::root().join("deploy/bundles/ion");
        node.install(|_, text| text);
        node.start();
        node
    }

    /// Copies the samples to the node, each changed by `change`, which gets its name and text.
    pub fn install(&self, change: impl Fn(&str, String) -> String) {
        for entry in fs::read_dir(&self.samples).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let text = change(&name, fs::read_to_string(entry.path()).unwrap());
            fs::write(self.inside(&format!("{FOLDER}/{name}")), text).unwrap();
        }
    }

    /// A path of the node's own file system, as it is seen from here.
    pub fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.host.id()))
    }

    /// A command on the node's host, in its folder.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(peer::program("/usr/bin/nsenter", "util-linux"));
        command
            .args(["--target", &self.host.id().to_string(), "--ipc", "--mount"])
            .arg(format!("--wd={}", self.inside(FOLDER).display()))
            .arg("--")
            .arg(program)
            .env("ION_NODE_LIST_DIR", FOLDER)
            .env("ION_NODE_WDNAME", FOLDER);
        command
    }

    /// Runs one of ION's programs; its daemons inherit what it prints to, which is therefore a file.
    pub fn run(&self, program: &str, arguments: &[&str]) {
        self.feed(program, arguments, "");
    }

    /// Runs one of ION's programs with commands on its standard input.
    pub fn feed(&self, program: &str, arguments: &[&str], input: &str) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.inside(&format!("{FOLDER}/{program}.out")))
            .unwrap();
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let ended = wait::until_some(&format!("the end of {program}"), Duration::from_secs(120), || {
            child.try_wait().unwrap()
        });
        assert!(
            ended.success(),
            "{program} {arguments:?} on {}: {ended}\n{}",
            self.name,
            self.log()
        );
    }

    /// Starts ION.
    pub fn start(&self) {
        for program in ["ionadmin", "ionsecadmin", "bpadmin", "ipnadmin"] {
            self.run(program, &[&format!("{program}.rc")]);
        }
    }

    /// Stops ION; bundles stay in its memory.
    pub fn stop(&self) {
        self.run("bpadmin", &["."]);
        self.run("ionadmin", &["."]);
    }

    /// Blocks or unblocks the way to another node, at once.
    pub fn block(&self, other: u32, blocked: bool) {
        let verb = if blocked { "b" } else { "u" };
        self.feed("bpadmin", &[], &format!("{verb} plan ipn:{other}.0\nq\n"));
    }

    /// ION's log.
    pub fn log(&self) -> String {
        let log = fs::read(self.inside(&format!("{FOLDER}/ion.log"))).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Ids of the processes with this in their command line that live on the host.
    pub fn processes(&self, part: &str) -> Vec<u32> {
        let namespace = fs::read_link(format!("/proc/{}/ns/ipc", self.host.id())).unwrap();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|id| fs::read_link(format!("/proc/{id}/ns/ipc")).is_ok_and(|it| it == namespace))
            .filter(|id| {
                let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(part)
            })
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the end of ion.log of {}", self.name);
            for line in &lines[lines.len().saturating_sub(30)..] {
                eprintln!("{line}");
            }
        }
        // Everything on the host, ION's daemons first: nobody else uses this node's memory.
        let own = self.host.id();
        for id in self.processes("").into_iter().filter(|id| *id != own) {
            let _ = Command::new("/bin/kill")
                .args(["-KILL", &id.to_string()])
                .status();
        }
    }
}

/// A program that holds an `IonAgent` on a node and does what it is told: the place of a relay.
#[derive(Debug)]
pub struct Relay {
    child: Child,
    orders: ChildStdin,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Relay {
    /// Starts it at an endpoint of the node, with a folder of its own, kept between starts; the helper's program is the one under test.
    pub fn start(node: &Node, service: u32, folder: &Path, program: &str) -> Self {
        let mut child = node
            .command(program)
            .arg(format!("ipn:{}.{service}", node.number))
            .arg(folder)
            .arg(peer::lightpost())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = Arc::clone(&told);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&line) else {
                    continue;
                };
                telling.lock().unwrap().push(value);
            }
        });
        Self { child, orders, told }
    }

    /// Tells it to do something.
    pub fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
        self.orders.flush().unwrap();
    }

    /// All that it said.
    pub fn told(&self) -> Vec<Value> {
        self.told.lock().unwrap().clone()
    }

    /// Waits until what it said fulfils `enough`, and returns it all.
    #[track_caller]
    pub fn wait(&self, what: &str, limit: Duration, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut told = Vec::new();
        let came = wait::holds_within(limit, || {
            told = self.told();
            enough(&told)
        });
        let shown = &told[told.len().saturating_sub(20)..];
        assert!(
            came,
            "{what} did not come within {limit:?}; the last lines: {shown:#?}"
        );
        told
    }

    /// Waits until its node takes bundles.
    #[track_caller]
    pub fn wait_up(&self) {
        self.wait("up", Duration::from_secs(90), |told| {
            last(told, "status") == Some(&Value::from("up"))
        });
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets it close its agent and end.
    pub fn close(mut self) {
        self.tell("close");
        let child = &mut self.child;
        let ended = wait::until_some("the relay's end", Duration::from_secs(60), || {
            child.try_wait().unwrap()
        });
        assert!(ended.success());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last value under a key.
pub fn last<'v>(told: &'v [Value], key: &str) -> Option<&'v Value> {
    told.iter().rev().find_map(|value| value.get(key))
}

/// The lines that have a key.
pub fn with<'v>(told: &'v [Value], key: &'static str) -> impl Iterator<Item = &'v Value> {
    told.iter().filter(move |value| value.get(key).is_some())
}
