//! dtn7's bundle node `dtnd`, from crates.io, with its tools.

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use crate::{Process, Site, network::Host, peer};

/// The port of the web interface in the sample.
const SAMPLE_WEB: u16 = 3000;

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
    host: Option<Arc<Host>>,
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
        Self::start_with(site, layer, number, address, neighbours, &["-r", "epidemic"])
    }

    /// The same with routes: which destinations are reached through which of the nodes. It lets a bundle go when that one has it.
    pub fn start_routed(
        site: &Site,
        layer: Layer,
        number: u32,
        address: SocketAddr,
        neighbours: &[(u32, SocketAddr)],
        routes: &[(&str, u32)],
    ) -> Self {
        let mut text = String::new();
        for (index, (destination, via)) in routes.iter().enumerate() {
            writeln!(text, "{index} ipn:* {destination} ipn:{via}.0").unwrap();
        }
        let file = site.write(&format!("dtnd-{number}.routes"), text);
        let routes = format!("static.routes={}", file.display());
        let routing = ["-r", "static", "-R", &routes];
        Self::start_with(site, layer, number, address, neighbours, &routing)
    }

    fn start_with(
        site: &Site,
        layer: Layer,
        number: u32,
        address: SocketAddr,
        neighbours: &[(u32, SocketAddr)],
        routing: &[&str],
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
        arguments.extend(routing.iter().map(|it| (*it).to_owned()));
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
        let process = spawn(site, &arguments, web, None);
        Self {
            address,
            web,
            arguments,
            host: None,
            process,
        }
    }

    /// Starts it on a host of its own, with the sample of `deploy/bundles/dtn7` as it stands.
    pub fn sample(site: &Site) -> Self {
        let host = Arc::new(Host::new(site, "dtnd", &["/var/lib/dtn7"]));
        for file in ["dtnd.toml", "routes"] {
            host.install(
                &format!("deploy/bundles/dtn7/{file}"),
                &format!("/var/lib/dtn7/{file}"),
            );
        }
        let arguments = ["-c", "/var/lib/dtn7/dtnd.toml"].map(str::to_owned).to_vec();
        let process = spawn(site, &arguments, SAMPLE_WEB, Some(&host));
        Self {
            address: SocketAddr::from(([192, 0, 2, 3], 4556)),
            web: SAMPLE_WEB,
            arguments,
            host: Some(host),
            process,
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// All that it printed.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Starts it again, with the bundles that it had.
    pub fn start_again(&mut self, site: &Site) {
        self.process = spawn(site, &self.arguments, self.web, self.host.as_deref());
    }

    /// How many bundles from there it keeps for somebody else, with `dtnquery`. Killed before it has noted that a bundle is to be
    /// forwarded, it has the bundle when it starts again but never looks at it.
    pub fn keeps(&self, source: &str) -> usize {
        let output = Command::new(program("dtnquery"))
            .args(["-p", &self.web.to_string(), "store"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| line.contains(source) && line.contains("ForwardPending"))
            .count()
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

fn spawn(site: &Site, arguments: &[String], web: u16, host: Option<&Host>) -> Process {
    let mut process = match host {
        Some(host) => host.start(site, "dtnd", &program("dtnd"), arguments),
        None => Process::start(site, "dtnd", &program("dtnd"), arguments),
    };
    process.wait_ready(|| crate::wait::listens(SocketAddr::from(([127, 0, 0, 1], web))));
    process
}
