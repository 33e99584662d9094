//! `[bundle]`: which bundle node a program uses, and where its endpoint is. The same section for client and gateway.

mod security;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use hardy_bpv7::eid::Eid;
use lightpost_bundle_node::{
    Framing, Limits, Listener, ListenerTls, Neighbour, NeighbourTls, Node, NodeConfig, OpenError, Pattern,
    Route,
};
use lightpost_clock::Clock;
use lightpost_config::{Section, Size};
use lightpost_ion::IonAgent;
use lightpost_transport::bundle::agent::Agent;

/// Which bundle node a program uses.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Our endpoint.
    pub endpoint: Eid,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The one inside this program, at which our endpoint is this service.
    Embedded(Box<NodeConfig>, u32),
    Ion(lightpost_ion::Settings),
}

/// Why a bundle node cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The one inside this program.
    #[error("the bundle node: {0}")]
    Node(#[from] OpenError),
    /// ION's.
    #[error("ION: {0}")]
    Ion(#[from] lightpost_ion::StartError),
    /// It does not know our endpoint.
    #[error("the bundle node has no endpoint {0}")]
    Endpoint(Eid),
}

/// A bundle node in use.
pub struct Bundles {
    /// Our endpoint at it.
    pub agent: Arc<dyn Agent>,
    /// The one inside this program.
    node: Option<Node>,
}

impl Settings {
    /// Reads `[bundle]`: `agent`, `endpoint`, `store`, `max_bundle`, and what belongs to the kind of node. `example` is an endpoint as the
    /// program would have it.
    pub fn read(section: &Section<'_>, example: &str) -> Option<Self> {
        let remedy = format!("write the endpoint of a service, such as \"{example}\"");
        section.require::<String>("endpoint");
        let endpoint = section.parse("endpoint", &remedy, numbers);
        let store = section.require_path("store");
        let largest = section.get("max_bundle").map(|Size(octets)| octets);
        let ion = section.parse("agent", "write \"embedded\" or \"ion\"", |text| match text {
            "embedded" => Ok(false),
            "ion" => Ok(true),
            _ => Err("is not a bundle agent".to_owned()),
        });
        if ion == Some(true) {
            return ion_settings(section, endpoint, store, largest);
        }
        let mut limits = Limits::default();
        if let Some(octets) = largest {
            limits.bundle = octets;
            limits.inbound = limits.inbound.max(octets);
        }
        if let Some(Size(octets)) = section.get("max_store") {
            limits.store = octets;
        }
        let listeners = section.each("listen");
        let listeners: Vec<_> = listeners.iter().map(listener).collect();
        let neighbours = section.named("neighbour");
        let neighbours: Vec<_> = neighbours
            .iter()
            .map(|(name, section)| neighbour(name, section))
            .collect();
        if listeners.is_empty() && neighbours.is_empty() {
            section.wrong(
                "listen",
                "is missing, and there is no neighbour: no bundle can come or go".into(),
                "add [[bundle.listen]] with `address`, or [bundle.neighbour.NAME] with `address` and `routes`".into(),
            );
        }
        let security = security::read(section);
        let (number, service, endpoint) = endpoint?;
        let mut node = NodeConfig::new(number, store?);
        node.services = vec![service];
        node.limits = limits;
        node.security = security?;
        node.listeners = listeners.into_iter().collect::<Option<_>>()?;
        for (neighbour, routes) in neighbours.into_iter().collect::<Option<Vec<_>>>()? {
            let via = neighbour.name.clone();
            node.routes.extend(routes.into_iter().map(|pattern| Route {
                pattern,
                via: via.clone(),
            }));
            node.neighbours.push(neighbour);
        }
        for problem in node.problems() {
            section.wrong("endpoint", problem, "mend it in [bundle]".into());
        }
        Some(Self {
            endpoint,
            kind: Kind::Embedded(Box::new(node), service),
        })
    }

    /// Starts the node, or finds it.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn open(&self, clock: Clock) -> Result<Bundles, StartError> {
        let (config, service) = match &self.kind {
            Kind::Embedded(config, service) => (config, *service),
            Kind::Ion(settings) => {
                let agent = Arc::new(IonAgent::start(settings.clone(), clock)?);
                tracing::info!(endpoint = %self.endpoint, "bundles go through ION");
                return Ok(Bundles { agent, node: None });
            }
        };
        let node = Node::open((**config).clone(), clock).await?;
        let agent = node
            .agent(service)
            .ok_or_else(|| StartError::Endpoint(self.endpoint.clone()))?;
        for address in node.addresses() {
            tracing::info!(%address, endpoint = %self.endpoint, "listening for bundles");
        }
        Ok(Bundles {
            agent,
            node: Some(node),
        })
    }
}

impl Bundles {
    /// Where the node inside this program listens, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.node.as_ref().map_or(&[], Node::addresses)
    }

    /// Lets the node go, in order.
    pub async fn close(&self) {
        self.agent.close().await;
        if let Some(node) = &self.node {
            node.close().await;
        }
    }
}

/// `[bundle.ion]`: where ION is, when its own environment variables do not say so.
fn ion_settings(
    section: &Section<'_>,
    endpoint: Option<(u32, u32, Eid)>,
    store: Option<PathBuf>,
    largest: Option<u64>,
) -> Option<Settings> {
    let below = section.section("ion");
    // ION's daemons and the helper use these, too: they do not share our working folder.
    let absolute = |path: PathBuf| std::path::absolute(path).ok();
    let path = |key: &str| below.path_of(key).and_then(absolute);
    let (node, nodes, libraries) = (path("node"), path("nodes"), path("libraries"));
    let (_, _, endpoint) = endpoint?;
    let store = absolute(store?)?;
    let mut settings = lightpost_ion::Settings::new(endpoint.clone(), store);
    settings.node = node;
    settings.nodes = nodes;
    settings.libraries = libraries;
    if let Some(octets) = largest {
        settings.largest = octets;
    }
    Some(Settings {
        endpoint,
        kind: Kind::Ion(settings),
    })
}

/// Node number, service number and endpoint.
fn numbers(text: &str) -> Result<(u32, u32, Eid), String> {
    let eid: Eid = text
        .parse()
        .map_err(|_| "is not an endpoint of the ipn scheme".to_owned())?;
    match &eid {
        Eid::Ipn { fqnn, service_number } | Eid::LegacyIpn { fqnn, service_number }
            if fqnn.allocator_id == 0 && fqnn.node_number > 0 && *service_number > 0 =>
        {
            Ok((fqnn.node_number, *service_number, eid.clone()))
        }
        _ => Err("is not the endpoint of a service".to_owned()),
    }
}

fn listener(section: &Section<'_>) -> Option<Listener> {
    let framing = framing(section);
    let address = section.require::<SocketAddr>("address");
    let tls = identity(section).map(|(certificate, key)| ListenerTls {
        certificate,
        key,
        clients: readable(section, "client_trust"),
    });
    let framing = without_tls(section, "certificate", framing?, tls.is_some());
    if tls.is_none() && section.get::<String>("client_trust").is_some() {
        section.wrong(
            "client_trust",
            "is of no use without TLS".into(),
            "set `certificate` and `key`, or remove it".into(),
        );
    }
    Some(Listener {
        framing,
        address: address?,
        tls,
    })
}

fn neighbour(name: &str, section: &Section<'_>) -> Option<(Neighbour, Vec<Pattern>)> {
    let framing = framing(section);
    let address = section.require::<String>("address");
    section.require::<Vec<String>>("routes");
    let mut routes = Vec::new();
    for text in section.get_or("routes", Vec::<String>::new()) {
        match text.parse() {
            Ok(pattern) => routes.push(pattern),
            Err(error) => section.wrong(
                "routes",
                format!("{error}"),
                "write the destinations that are reached through it, such as \"ipn:2.*\"".into(),
            ),
        }
    }
    let (trust, identity) = (readable(section, "trust"), identity(section));
    let server = section.get::<String>("tls_name");
    if server.is_none() && (trust.is_some() || identity.is_some()) {
        section.wrong(
            "tls_name",
            "is missing, so that no TLS is spoken".into(),
            "write the DNS name in its certificate, or remove `trust`, `certificate` and `key`".into(),
        );
    }
    let tls = server.map(|name| NeighbourTls {
        name,
        trust,
        identity,
    });
    let neighbour = Neighbour {
        name: name.to_owned(),
        framing: without_tls(section, "tls_name", framing?, tls.is_some()),
        address: address?,
        tls,
    };
    Some((neighbour, routes))
}

/// Notes TLS where a framing has none.
fn without_tls(section: &Section<'_>, key: &str, framing: Framing, tls: bool) -> Framing {
    if tls && framing != Framing::Tcpcl {
        section.wrong(
            key,
            format!("asks for TLS, which {} does not have", framing.name()),
            "use \"tcpclv4\", or a network of the neighbours' own".into(),
        );
    }
    framing
}

fn framing(section: &Section<'_>) -> Option<Framing> {
    let text = section.get_or("framing", Framing::Tcpcl.name().to_owned());
    let found = [Framing::Tcpcl, Framing::Stcp, Framing::Mtcp]
        .into_iter()
        .find(|framing| framing.name() == text);
    if found.is_none() {
        section.wrong(
            "framing",
            format!("\"{text}\" is not a framing"),
            "write \"tcpclv4\", \"stcp\" or \"mtcp\"".into(),
        );
    }
    found
}

/// `certificate` and `key`, both or neither.
fn identity(section: &Section<'_>) -> Option<(PathBuf, PathBuf)> {
    match (readable(section, "certificate"), readable(section, "key")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (certificate, _) => {
            let lacking = if certificate.is_some() {
                "key"
            } else {
                "certificate"
            };
            section.wrong(
                lacking,
                "is missing although the other of the two is set".into(),
                "set both or neither".into(),
            );
            None
        }
    }
}

/// A file that must be readable now.
fn readable(section: &Section<'_>, key: &str) -> Option<PathBuf> {
    let path = section.path_of(key)?;
    if let Err(error) = std::fs::File::open(&path) {
        section.wrong(
            key,
            format!("{} cannot be read: {error}", path.display()),
            "name a file that the user of the service can read".into(),
        );
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn paths_of_ion_do_not_depend_on_the_working_folder() {
        let text = "[bundle]\nagent = \"ion\"\nendpoint = \"ipn:1.26\"\nstore = \"spool\"\n\
                    [bundle.ion]\nnode = \"earth\"\nnodes = \"../ion\"\nlibraries = \"/usr/local/lib\"\n";
        // As `--config relay/client.toml` names it.
        let read = lightpost_config::read_text(Path::new("relay/client.toml"), text, |document| {
            Settings::read(&document.section("bundle"), "ipn:1.26")
        });
        let Kind::Ion(settings) = read.unwrap().kind else {
            panic!("it is ION's");
        };
        let here = std::env::current_dir().unwrap();
        let below = |path: &str| Some(here.join(path));
        assert_eq!(settings.node, below("relay/earth"));
        assert_eq!(settings.nodes, below("relay/../ion"));
        assert_eq!(settings.libraries, Some("/usr/local/lib".into()));
        assert_eq!(Some(settings.folder), below("relay/spool"));
    }
}
