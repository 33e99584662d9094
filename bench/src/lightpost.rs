//! Our two programs as they are installed: release binaries with configuration files.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use lightpost_clock::Clock;
use lightpost_sim::Pki;

use crate::{
    Result, ion,
    place::{Place, beside},
    process::{Process, free_address},
    report::Progress,
};

const AGENT: &str = "relay.earth.example";
/// The path of a bench: the loopback, which a terrestrial path comes next to.
const PATH: &str = "one_way_min = \"1ms\"\none_way_max = \"1ms\"\noutage_max = \"0s\"\nrate_up = \"1Gbit/s\"\nrate_down = \"1Gbit/s\"\n";

/// The release binary beside this one, built now when cargo runs the bench.
pub(crate) fn binary(progress: &Progress) -> Result<PathBuf> {
    let binary = beside()?.join("lightpost");
    if let Some(cargo) = std::env::var_os("CARGO") {
        progress.say("building lightpost");
        let built = Command::new(cargo)
            .args(["build", "--release", "--quiet", "-p", "lightpost"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status();
        if !built.is_ok_and(|status| status.success()) {
            return Err("lightpost cannot be built; see above".into());
        }
    }
    if !binary.exists() {
        return Err(format!(
            "{} does not exist; build it: cargo build --release -p lightpost",
            binary.display()
        ));
    }
    Ok(binary)
}

/// A gateway that nobody is: a port where nothing listens.
pub(crate) fn nowhere() -> Result<Gateway> {
    Ok(Gateway {
        address: free_address()?,
        trust: None,
    })
}

/// A gateway as the agent's configuration names it.
pub(crate) struct Gateway {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The authority and the agent's certificate and key.
    pub(crate) trust: Option<[PathBuf; 3]>,
}

/// How mail crosses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way<'n> {
    /// Over HTTP/3.
    Http3,
    /// In bundles.
    Bundles(Nodes),
    /// In bundles through two ION nodes, each program on the host of one; not encoded, so that a mail is as large as it is.
    Ion(&'n ion::Nodes),
}

/// The embedded nodes of both programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nodes {
    /// Where the node on Earth listens, and the one on the Moon.
    pub(crate) listen: [SocketAddr; 2],
    /// Where the node on the Moon dials the one on Earth, and the other way.
    pub(crate) dial: [SocketAddr; 2],
    /// What a bundle holds, as the path's `payload` names it.
    pub(crate) payload: &'static str,
}

impl Nodes {
    /// Two free ports, dialled as they are.
    pub(crate) fn new(payload: &'static str) -> Result<Self> {
        let listen = [free_address()?, free_address()?];
        Ok(Self {
            listen,
            dial: listen,
            payload,
        })
    }
}

impl Way<'_> {
    /// Lines of the path, the gateway instead of the URI, and `[bundle]` of the agent.
    fn of_client(self) -> (String, Option<&'static str>, String) {
        match self {
            Self::Http3 => (String::new(), None, String::new()),
            Self::Bundles(nodes) => (
                format!(
                    "transports = [\"bundle\"]\n[path.moon.bundle]\npayload = \"{}\"\n",
                    nodes.payload
                ),
                Some("ipn:2.25"),
                bundle("ipn:1.26", nodes.listen[0], nodes.dial[1], "ipn:2.*"),
            ),
            Self::Ion(_) => (
                "transports = [\"bundle\"]\nencoding = \"identity\"\n".into(),
                Some("ipn:2.25"),
                through_ion("ipn:1.26"),
            ),
        }
    }

    /// Lines of the peer, and `[bundle]` of the gateway.
    fn of_server(self) -> (&'static str, String) {
        match self {
            Self::Http3 => ("", String::new()),
            Self::Bundles(nodes) => (
                "endpoints = [\"ipn:1.26\"]\n",
                bundle("ipn:2.25", nodes.listen[1], nodes.dial[0], "ipn:1.*"),
            ),
            Self::Ion(_) => ("endpoints = [\"ipn:1.26\"]\n", through_ion("ipn:2.25")),
        }
    }

    /// The client, or the server, to be started.
    fn command(self, binary: &Path, program: &str) -> Command {
        match self {
            Self::Ion(nodes) => {
                let [earth, moon] = &nodes.pair;
                let node = if program == "client" { earth } else { moon };
                node.command(binary)
            }
            Self::Http3 | Self::Bundles(_) => Command::new(binary),
        }
    }
}

fn through_ion(endpoint: &str) -> String {
    format!("\n[bundle]\nagent = \"ion\"\nendpoint = \"{endpoint}\"\nstore = \"bundles\"\n")
}

fn bundle(endpoint: &str, own: SocketAddr, other: SocketAddr, routes: &str) -> String {
    format!(
        "\n[bundle]\nendpoint = \"{endpoint}\"\nstore = \"bundles\"\n[[bundle.listen]]\naddress = \"{own}\"\n\
         [bundle.neighbour.other]\naddress = \"{other}\"\nroutes = [\"{routes}\"]\n"
    )
}

/// A running agent.
#[derive(Debug)]
pub(crate) struct Client {
    /// Where mail is handed over.
    pub(crate) ingest: SocketAddr,
    /// The same by SMTP.
    pub(crate) smtp: SocketAddr,
    /// The program.
    pub(crate) process: Process,
}

impl Client {
    /// Starts one and waits until it listens.
    pub(crate) async fn start(
        place: &Place,
        binary: &Path,
        gateway: &Gateway,
        way: Way<'_>,
        clock: &Clock,
    ) -> Result<Self> {
        let (folder, ingest, smtp) = (place.folder("client")?, free_address()?, free_address()?);
        let file = folder.join("client.toml");
        write(&file, &client_config(ingest, smtp, gateway, way))?;
        let mut process = start("client", way.command(binary, "client"), &file, &folder)?;
        process.listens(ingest, clock).await?;
        Ok(Self {
            ingest,
            smtp,
            process,
        })
    }
}

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where the operator asks.
    pub(crate) admin: SocketAddr,
    /// The program.
    pub(crate) process: Process,
}

impl Server {
    /// Starts one that hands mail to `local`, and waits until it listens.
    pub(crate) async fn start(
        place: &Place,
        binary: &Path,
        local: SocketAddr,
        way: Way<'_>,
        clock: &Clock,
    ) -> Result<(Self, Gateway)> {
        let folder = place.folder("server")?;
        let failed = |error: lightpost_sim::pki::PkiError| error.to_string();
        let pki = Pki::new(&folder).map_err(failed)?;
        let (address, admin) = (free_address()?, free_address()?);
        let own = pki.issue("127.0.0.1").map_err(failed)?;
        let agent = pki.issue(AGENT).map_err(failed)?;
        let file = folder.join("server.toml");
        write(
            &file,
            &server_config(address, admin, local, &own, &pki.authority(), way),
        )?;
        let mut process = start("server", way.command(binary, "server"), &file, &folder)?;
        process.listens(address, clock).await?;
        let gateway = Gateway {
            address,
            trust: Some([pki.authority(), agent.0, agent.1]),
        };
        Ok((Self { admin, process }, gateway))
    }
}

/// Both programs.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The agent.
    pub(crate) client: Client,
    _server: Server,
}

impl Pair {
    /// Starts both.
    pub(crate) async fn start(
        place: &Place,
        binary: &Path,
        local: SocketAddr,
        way: Way<'_>,
        clock: &Clock,
    ) -> Result<Self> {
        let (server, gateway) = Server::start(place, binary, local, way, clock).await?;
        let client = Client::start(place, binary, &gateway, way, clock).await?;
        Ok(Self {
            client,
            _server: server,
        })
    }
}

fn start(program: &str, mut command: Command, config: &Path, folder: &Path) -> Result<Process> {
    command
        .arg(program)
        .arg("--config")
        .arg(config)
        .args(["--log-level", "warn"]);
    Process::start(program, &mut command, folder)
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

fn client_config(ingest: SocketAddr, smtp: SocketAddr, gateway: &Gateway, way: Way<'_>) -> String {
    let (transports, endpoint, bundle) = way.of_client();
    let https = format!("https://{}/inboundmail", gateway.address);
    let uri = endpoint.unwrap_or(&https);
    let tls = gateway
        .trust
        .as_ref()
        .map_or(String::new(), |[authority, certificate, key]| {
            format!("[tls]\ntrust = {authority:?}\ncertificate = {certificate:?}\nkey = {key:?}\n")
        });
    format!(
        "name = \"{AGENT}\"
database = \"outbox.db\"

[ingest]
listen = \"{ingest}\"

[smtp]
listen = \"{smtp}\"

[resolver]
servers = [\"127.0.0.1:9\"]

[local]
address = \"127.0.0.1:9\"
protocol = \"smtp\"
starttls = \"off\"
postmaster = \"postmaster@earth.example\"

{tls}
[path.moon]
{PATH}{transports}
[[route]]
domain = \"moon.example\"
path = \"moon\"
gateways = [\"{uri}\"]
{bundle}"
    )
}

fn server_config(
    address: SocketAddr,
    admin: SocketAddr,
    local: SocketAddr,
    (certificate, key): &(PathBuf, PathBuf),
    trust: &Path,
    way: Way<'_>,
) -> String {
    let (endpoints, bundle) = way.of_server();
    format!(
        "name = \"gw1.moon.example\"
database = \"inbox.db\"

[listen]
https = \"{address}\"
endpoint = \"/inboundmail\"
certificate = {certificate:?}
key = {key:?}
client_trust = {trust:?}

[accept]
domains = [\"moon.example\"]

[[peer]]
name = \"{AGENT}\"
senders = [\"*\"]
{endpoints}
[local]
address = \"{local}\"
protocol = \"smtp\"
starttls = \"off\"
postmaster = \"postmaster@moon.example\"

[admin]
listen = \"{admin}\"

[path.earth]
{PATH}{bundle}"
    )
}
