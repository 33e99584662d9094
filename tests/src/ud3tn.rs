//! uD3TN's bundle node, where it is installed.
//!
//! It is not among the peers that the registries have; a test that needs it asks [`installed`] first, which says so when it is missing.

use std::{net::SocketAddr, time::Duration};

use crate::{Process, Site, network::Host, wait};

/// Whether uD3TN and `aap-config`, which tells it its neighbours, are installed; says so when they are not.
pub fn installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = ["ud3tn", "aap-config"]
        .into_iter()
        .find(|program| !std::env::split_paths(&path).any(|folder| folder.join(program).exists()));
    if let Some(program) = missing {
        println!("not run: {program} is not on the PATH");
    }
    missing.is_none()
}

/// Node 3 on a host of its own, with the sample of `deploy/bundles/ud3tn` as it stands.
#[derive(Debug)]
pub struct Ud3tn {
    host: Host,
    process: Process,
}

impl Ud3tn {
    /// Starts it, and waits until it knows its neighbours: it drops bundles for others.
    pub fn sample(site: &Site) -> Self {
        let host = Host::new(site, "ud3tn", &["/var/lib/ud3tn"]);
        host.install("deploy/bundles/ud3tn/node.sh", "/var/lib/ud3tn/node.sh");
        let process = spawn(site, &host);
        let mut node = Self { host, process };
        node.wait_ready(1);
        node
    }

    /// `kill -9`, and starts it again, without the bundles that it had.
    pub fn kill_and_start(&mut self, site: &Site) {
        self.process.kill();
        self.process = spawn(site, &self.host);
        self.wait_ready(2);
    }

    /// Waits until it has noticed that a neighbour is away.
    pub fn misses(&self, neighbour: &str) {
        let refused = format!("Failed to connect to [{neighbour}]");
        wait::until(&refused, Duration::from_secs(60), || {
            self.process.output().contains(&refused)
        });
    }

    fn wait_ready(&mut self, starts: usize) {
        let address = SocketAddr::from(([192, 0, 2, 3], 4556));
        self.process.wait_ready(|| wait::listens(address));
        for neighbour in ["ipn:1.0", "ipn:2.0"] {
            let known = format!("Scheduled contact with \"{neighbour}\" started");
            wait::until(&known, Duration::from_secs(60), || {
                self.process.output().matches(&known).count() == starts
            });
        }
    }
}

fn spawn(site: &Site, host: &Host) -> Process {
    let script = ["/var/lib/ud3tn/node.sh".to_owned()];
    host.start(site, "ud3tn", "/bin/sh".as_ref(), &script)
}
