//! dtn7's bundle node `dtnd`, from crates.io, with its tools.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
};

use crate::{Process, Site, peer};

/// What it speaks with its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// MTCP.
    Mtcp,
    /// TCPCLv4.
    Tcp,
}

/// A running `dtnd`.
#[derive(Debug)]
pub struct Dtnd {
    /// Where it takes bundles.
    pub address: SocketAddr,
    web: u16,
    arguments: Vec<String>,
    process: Process,
}

impl Dtnd {
    /// Starts node `ipn:number` with service 25, next to the nodes of these numbers at these addresses.
    pub fn start(
        site: &Site,
        layer: Layer,
        number: u32,
        address: SocketAddr,
        neighbours: &[(u32, SocketAddr)],
    ) -> Self {
        let layer = match layer {
            Layer::Mtcp => "mtcp",
            Layer::Tcp => "tcp",
        };
        let folder = site.make_folder(&format!("dtnd-{number}"));
        // Its web interface listens on all addresses, so the port must be one that nobody has anywhere.
        let web = TcpListener::bind("0.0.0.0:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut arguments: Vec<String> = [
            "-4",
            "-r",
            "epidemic",
            "-i",
            "0",
            "--disable_nd",
            "-j",
            "1s",
            "-D",
            "sled",
            "-e",
            "25",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.extend(["-n".to_owned(), number.to_string()]);
        arguments.extend(["-w".to_owned(), web.to_string()]);
        arguments.extend(["-W".to_owned(), folder.display().to_string()]);
        arguments.extend([
            "-C".to_owned(),
            format!("{layer}:port={}:bind={}", address.port(), address.ip()),
        ]);
        for (number, neighbour) in neighbours {
            arguments.extend(["-s".to_owned(), format!("{layer}://{neighbour}/{number}")]);
        }
        let process = spawn(site, &arguments, web);
        Self {
            address,
            web,
            arguments,
            process,
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, with the bundles that it had.
    pub fn start_again(&mut self, site: &Site) {
        self.process = spawn(site, &self.arguments, self.web);
    }

    /// What it says of the bundles that it has, with `dtnquery`.
    pub fn bundles(&self) -> String {
        let output = Command::new(program("dtnquery"))
            .args(["-p", &self.web.to_string(), "bundles"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Sends a bundle with `dtnsend`.
    pub fn send(&self, site: &Site, source: &str, destination: &str, payload: &[u8]) {
        let file = site.write("dtnsend.payload", payload);
        let output = Command::new(program("dtnsend"))
            .args(["-p", &self.web.to_string(), "-s", source, "-r", destination])
            .arg(file)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "dtnsend: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The payload of the next bundle for its service 25, if there is one, with `dtnrecv`.
    pub fn receive(&self, site: &Site) -> Option<Vec<u8>> {
        let file = site.path("dtnrecv.payload");
        let output = Command::new(program("dtnrecv"))
            .args(["-p", &self.web.to_string(), "-e", "25", "-o"])
            .arg(&file)
            .output()
            .unwrap();
        if !output.status.success() {
            return None;
        }
        let payload = std::fs::read(&file).ok();
        drop(std::fs::remove_file(&file));
        payload
    }
}

fn program(name: &str) -> PathBuf {
    peer::built(&format!("dtn7/bin/{name}"), "dtn7")
}

fn spawn(site: &Site, arguments: &[String], web: u16) -> Process {
    let mut process = Process::start(site, "dtnd", &program("dtnd"), arguments);
    process.wait_ready(|| crate::wait::listens(SocketAddr::from(([127, 0, 0, 1], web))));
    process
}
