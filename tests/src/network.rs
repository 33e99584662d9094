//! A network with hosts of a test's own, so that the samples of `deploy/bundles` can be run as they stand: their addresses and folders are there.

use std::{fs, path::PathBuf};

use crate::{Process, Site, peer};

/// Addresses 192.0.2.1 to 192.0.2.9 (TEST-NET-1, RFC 5737), which no machine has, and all of 127.0.0.0/8.
#[derive(Debug)]
pub struct Network {
    _holder: Process,
}

impl Network {
    /// Makes one, and moves this thread into it: what it and its children connect and listen to from now on is there.
    pub fn join(site: &Site) -> Self {
        peer::require_root("a network of the test's own");
        peer::program("/usr/sbin/ip", "iproute2");
        let ready = site.path("network.ready");
        let script = format!(
            "ip link set lo up && for host in 1 2 3 4 5 6 7 8 9; do ip address add 192.0.2.$host/32 dev lo || exit; done && \
             touch '{}' && exec sleep infinity",
            ready.display()
        );
        let unshare = peer::program("/usr/bin/unshare", "util-linux");
        let arguments = ["--net", "--", "/bin/sh", "-c", &script];
        let mut holder = Process::start(site, "network", &unshare, arguments);
        holder.wait_ready(|| ready.exists());
        let namespace = fs::File::open(format!("/proc/{}/ns/net", holder.id())).unwrap();
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&namespace),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .unwrap();
        Self { _holder: holder }
    }
}

/// A host with `/var/lib` of its own.
#[derive(Debug)]
pub struct Host {
    holder: Process,
}

impl Host {
    /// Makes one on the network that the thread is in, with these folders.
    pub fn new(site: &Site, name: &str, folders: &[&str]) -> Self {
        peer::require_root("hosts of the test's own");
        let ready = site.path(&format!("{name}.ready"));
        let script = format!(
            "mount -t tmpfs tmpfs /var/lib && mkdir -p {} && touch '{}' && exec sleep infinity",
            folders.join(" "),
            ready.display()
        );
        let unshare = peer::program("/usr/bin/unshare", "util-linux");
        let arguments = [
            "--mount",
            "--propagation",
            "private",
            "--",
            "/bin/sh",
            "-c",
            &script,
        ];
        let mut holder = Process::start(site, &format!("{name}-host"), &unshare, arguments);
        holder.wait_ready(|| ready.exists());
        Self { holder }
    }

    /// A path of the host's own file system, as it is seen from here.
    pub fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.holder.id()))
    }

    /// Copies a file of the repository there.
    pub fn install(&self, file: &str, path: &str) {
        fs::copy(peer::root().join(file), self.inside(path)).unwrap();
    }

    /// What runs a program there: nsenter and its arguments.
    pub fn runner(&self) -> (PathBuf, Vec<String>) {
        let target = self.holder.id().to_string();
        let arguments = ["--target", &target, "--mount", "--"].map(String::from);
        (peer::program("/usr/bin/nsenter", "util-linux"), arguments.into())
    }

    /// Starts a program there.
    pub fn start(&self, site: &Site, name: &str, program: &std::path::Path, arguments: &[String]) -> Process {
        let (nsenter, mut all) = self.runner();
        all.push(program.display().to_string());
        all.extend_from_slice(arguments);
        Process::start(site, name, &nsenter, all)
    }
}
