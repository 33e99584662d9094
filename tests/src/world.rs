//! Configurations of clients and gateways that fit together, written with the keys of `deploy/client.toml` and
//! `deploy/server.toml`.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use crate::{
    Site,
    pki::{Authority, Identity},
    programs::Program,
};

/// The name that the client's certificate bears.
pub const RELAY: &str = "relay.earth.example";

/// A path on one machine.
pub const NEAR: &str = r#"
one_way_min = "1ms"
one_way_max = "20ms"
outage_max = "0s"
rate_up = "1Gbit/s"
rate_down = "1Gbit/s"
"#;

/// What a gateway is to be like.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Its name, for its certificate too.
    pub name: String,
    /// Its domains.
    pub domains: Vec<String>,
    /// Its MTA.
    pub local: SocketAddr,
    /// "lmtp" or "smtp".
    pub protocol: String,
    /// The MTA that sends its notifications.
    pub notify: Option<SocketAddr>,
    /// Where the inbox is, when not in the site's folder.
    pub database: Option<String>,
    /// Lines for `[accept]`.
    pub accept: String,
    /// Lines for `[[peer]]`.
    pub peer: String,
    /// Whole tables to add.
    pub more: String,
}

impl GatewaySettings {
    /// A gateway `name` for `domains` in front of an LMTP server.
    pub fn new(name: &str, domains: &[&str], local: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
            local,
            protocol: "lmtp".to_owned(),
            notify: None,
            database: None,
            accept: String::new(),
            peer: String::new(),
            more: String::new(),
        }
    }
}

/// A gateway and where it takes exchanges.
#[derive(Debug)]
pub struct Gateway {
    /// The program.
    pub program: Program,
    /// HTTP/3 over UDP, HTTP/2 and HTTP/1.1 over TCP.
    pub https: SocketAddr,
    /// The host name in its URI.
    pub name: String,
}

impl Gateway {
    /// One that is not started yet.
    pub fn new(site: &Site, authority: &Authority, settings: &GatewaySettings) -> Self {
        let (https, admin) = (site.socket(), site.socket());
        let identity = authority.issue(site, &settings.name);
        let database = settings.database.clone().unwrap_or_else(|| {
            site.path(&format!("{}/inbox.db", settings.name))
                .display()
                .to_string()
        });
        let mut text = format!(
            r#"name = "{name}"
database = "{database}"

[listen]
https = "{https}"
endpoint = "/inboundmail"
certificate = "{certificate}"
key = "{key}"
client_trust = "{trust}"

[accept]
domains = {domains:?}
{accept}
[[peer]]
name = "{RELAY}"
senders = ["*"]
{peer}
[local]
address = "{local}"
protocol = "{protocol}"
postmaster = "postmaster@{first}"
retry_first = "300ms"
retry_longest = "1s"

[admin]
listen = "{admin}"

[path.near]{NEAR}"#,
            name = settings.name,
            certificate = identity.certificate.display(),
            key = identity.key.display(),
            trust = authority.file.display(),
            domains = settings.domains,
            local = settings.local,
            accept = settings.accept,
            peer = settings.peer,
            protocol = settings.protocol,
            first = settings.domains[0].trim_start_matches("*."),
        );
        if let Some(notify) = settings.notify {
            write!(text, "\n[notify]\naddress = \"{notify}\"\n").unwrap();
        }
        text.push_str(&settings.more);
        Self {
            program: Program::new(site, "server", &settings.name, admin, &[https], &text),
            https,
            name: settings.name.clone(),
        }
    }

    /// One that is running.
    pub fn start(site: &Site, authority: &Authority, settings: &GatewaySettings) -> Self {
        let mut gateway = Self::new(site, authority, settings);
        gateway.program.start(site);
        gateway
    }

    /// Its URI.
    pub fn uri(&self) -> String {
        format!("https://{}:{}/inboundmail", self.name, self.https.port())
    }

    /// Its URI by address, which needs no name server.
    pub fn uri_by_address(&self) -> String {
        format!("https://{}/inboundmail", self.https)
    }
}

/// What a client is to be like.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Its name server.
    pub resolver: Option<SocketAddr>,
    /// The MTA that sends its notifications.
    pub local: Option<SocketAddr>,
    /// Domains with their gateways' URIs; none: by URI record.
    pub routes: Vec<(String, Vec<String>)>,
    /// Where the outbox is, when not in the site's folder.
    pub database: Option<String>,
    /// Lines for `[ingest]`.
    pub ingest: String,
    /// Lines for `[path.near]`.
    pub path: String,
    /// Whole tables to add.
    pub more: String,
}

impl ClientSettings {
    /// One that finds the gateways of `domains` by URI records at `resolver`.
    pub fn discovering(resolver: SocketAddr, domains: &[&str]) -> Self {
        Self {
            resolver: Some(resolver),
            local: None,
            routes: domains
                .iter()
                .map(|domain| ((*domain).to_owned(), Vec::new()))
                .collect(),
            database: None,
            ingest: String::new(),
            path: String::new(),
            more: String::new(),
        }
    }
}

/// A client that is not started yet.
pub fn client(site: &Site, authority: &Authority, settings: &ClientSettings) -> Program {
    let identity = relay_identity(site, authority);
    let api = site.socket();
    let database = settings
        .database
        .clone()
        .unwrap_or_else(|| site.path("client/outbox.db").display().to_string());
    let mut text = format!(
        "name = \"{RELAY}\"\ndatabase = \"{database}\"\n\n[ingest]\nlisten = \"{api}\"\n{}\n\
         [tls]\ntrust = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n\n[path.near]{NEAR}retry_first = \"300ms\"\nretry_longest = \"1s\"\n{}\n",
        settings.ingest,
        authority.file.display(),
        identity.certificate.display(),
        identity.key.display(),
        settings.path,
    );
    write!(
        text,
        "[resolver]\ntimeout = \"1s\"\ncache = \"{}\"\n",
        site.path("client/dns-cache.json").display()
    )
    .unwrap();
    if let Some(resolver) = settings.resolver {
        writeln!(text, "servers = [\"{resolver}\"]").unwrap();
    }
    let local = settings.local.unwrap_or_else(|| site.socket());
    write!(
        text,
        "\n[local]\naddress = \"{local}\"\nprotocol = \"smtp\"\npostmaster = \"postmaster@earth.example\"\n"
    )
    .unwrap();
    for (domain, gateways) in &settings.routes {
        write!(text, "\n[[route]]\ndomain = \"{domain}\"\npath = \"near\"\n").unwrap();
        if !gateways.is_empty() {
            writeln!(text, "gateways = {gateways:?}").unwrap();
        }
    }
    text.push_str(&settings.more);
    Program::new(site, "client", "client", api, &[], &text)
}

/// The client's certificate.
pub fn relay_identity(site: &Site, authority: &Authority) -> Identity {
    authority.issue(site, RELAY)
}

/// The master.cf entry of `deploy/mta/postfix`, for this client's listener and run by a user that every machine has.
pub fn postfix_pipe(binary: &Path, client: &Program) -> String {
    let sample = std::fs::read_to_string(crate::peer::root().join("deploy/mta/postfix/master.cf")).unwrap();
    let fitted = sample
        .replace("user=lightpost", "user=nobody")
        .replace("/usr/bin/lightpost", &binary.display().to_string())
        .replace("http://127.0.0.1:8025", &format!("http://{}", client.api));
    assert_ne!(fitted, sample);
    fitted
}
