//! The configuration files of a pair.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use lightpost_sim::Pki;

use crate::Result;

/// The gateway's name.
pub(crate) const GATEWAY: &str = "gw1.moon.example";
/// The agent's name.
pub(crate) const AGENT: &str = "relay.earth.example";

/// The gateway's file.
pub(crate) const SERVER: &str = "server.toml";
/// The agent's file.
pub(crate) const CLIENT: &str = "client.toml";

/// Certificates and the places of the files.
#[derive(Debug)]
pub(crate) struct Papers {
    folder: PathBuf,
    authority: PathBuf,
    gateway: (PathBuf, PathBuf),
    agent: (PathBuf, PathBuf),
}

impl Papers {
    /// Issues what both programs need, into `folder`.
    pub(crate) fn issue(folder: &Path) -> Result<Self> {
        let failed = |error: lightpost_sim::pki::PkiError| error.to_string();
        let pki = Pki::new(folder).map_err(failed)?;
        Ok(Self {
            folder: folder.to_owned(),
            authority: pki.authority(),
            gateway: pki.issue("127.0.0.1").map_err(failed)?,
            agent: pki.issue(AGENT).map_err(failed)?,
        })
    }

    /// The authority's certificate.
    pub(crate) fn authority(&self) -> &Path {
        &self.authority
    }

    /// The gateway's certificate and key.
    pub(crate) fn gateway(&self) -> (&Path, &Path) {
        (&self.gateway.0, &self.gateway.1)
    }

    /// Writes and reads the gateway's configuration as the program does.
    pub(crate) fn server(
        &self,
        listen: SocketAddr,
        mailbox: SocketAddr,
        path: &str,
    ) -> Result<lightpost_server::Config> {
        let (certificate, key) = &self.gateway;
        let text = format!(
            "name = \"{GATEWAY}\"
database = \"inbox.db\"

[listen]
https = \"{listen}\"
endpoint = \"/inboundmail\"
certificate = {certificate:?}
key = {key:?}
client_trust = {:?}

[accept]
domains = [\"moon.example\"]

[[peer]]
name = \"{AGENT}\"
senders = [\"*\"]

[local]
address = \"{mailbox}\"
protocol = \"smtp\"
starttls = \"off\"
reply_timeout = \"1h\"
postmaster = \"postmaster@moon.example\"

[path.earth]
{path}",
            self.authority
        );
        let file = self.write(SERVER, &text)?;
        lightpost_server::Config::load(&file).map_err(|problems| problems.to_string())
    }

    /// Writes and reads the agent's configuration as the program does.
    pub(crate) fn client(
        &self,
        ingest: SocketAddr,
        gateway: SocketAddr,
        mailbox: SocketAddr,
        path: &str,
    ) -> Result<lightpost_client::Config> {
        let (certificate, key) = &self.agent;
        let text = format!(
            "name = \"{AGENT}\"
database = \"outbox.db\"

[ingest]
listen = \"{ingest}\"

[resolver]
servers = [\"127.0.0.1:9\"]

[local]
address = \"{mailbox}\"
protocol = \"smtp\"
starttls = \"off\"
postmaster = \"postmaster@earth.example\"

[tls]
trust = {:?}
certificate = {certificate:?}
key = {key:?}

[[route]]
domain = \"moon.example\"
path = \"moon\"
gateways = [\"https://{gateway}/inboundmail\"]

[path.moon]
encoding = \"identity\"
{path}",
            self.authority
        );
        let file = self.write(CLIENT, &text)?;
        lightpost_client::Config::load(&file).map_err(|problems| problems.to_string())
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let file = self.folder.join(name);
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(file)
    }
}

/// The figures of a path as both configurations state them.
pub(crate) fn path_section(owlt: Duration, outage: Duration, rate: u64) -> String {
    let owlt = format!("{}ms", owlt.as_millis());
    let outage = format!("{}s", outage.as_secs());
    let rate = format!("{rate}bit/s");
    format!(
        "one_way_min = \"{owlt}\"\none_way_max = \"{owlt}\"\noutage_max = \"{outage}\"\nrate_up = \"{rate}\"\nrate_down = \"{rate}\"\n"
    )
}
