//! What a node is told.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{eid::Pattern, security::Security};

/// A node: who it is, where it keeps bundles, whom it knows.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its number: it is `ipn:NUMBER.0`.
    pub number: u32,
    /// The folder of its store; made when it is missing.
    pub directory: PathBuf,
    /// The service numbers at which there are endpoints. Bundles for others are deleted.
    pub services: Vec<u32>,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// The nodes next to it.
    pub neighbours: Vec<Neighbour>,
    /// Which destinations are reached through whom; the first that matches.
    pub routes: Vec<Route>,
    /// Signatures and encryption.
    pub security: Security,
    /// Its bounds.
    pub limits: Limits,
}

impl NodeConfig {
    /// A node that knows nobody.
    pub fn new(number: u32, directory: impl Into<PathBuf>) -> Self {
        Self {
            number,
            directory: directory.into(),
            services: Vec::new(),
            listeners: Vec::new(),
            neighbours: Vec::new(),
            routes: Vec::new(),
            security: Security::default(),
            limits: Limits::default(),
        }
    }

    /// Everything that is wrong with it, one line each.
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut wrong = |what: String| found.push(what);
        if self.number == 0 || self.number == u32::MAX {
            wrong(format!(
                "node number {} is reserved; choose one from 1 to 4294967294",
                self.number
            ));
        }
        for (index, service) in self.services.iter().enumerate() {
            if *service == 0 {
                wrong("service number 0 is the node itself".to_owned());
            }
            if self.services[..index].contains(service) {
                wrong(format!("service number {service} stands there twice"));
            }
        }
        for (index, neighbour) in self.neighbours.iter().enumerate() {
            if neighbour.name.is_empty() {
                wrong("a neighbour has no name".to_owned());
            }
            if self.neighbours[..index]
                .iter()
                .any(|it| it.name == neighbour.name)
            {
                wrong(format!("there are two neighbours called {}", neighbour.name));
            }
            if neighbour.address.rsplit_once(':').is_none_or(|(host, port)| {
                host.is_empty() || port.parse::<u16>().is_ok_and(|it| it == 0) || port.parse::<u16>().is_err()
            }) {
                wrong(format!(
                    "neighbour {}: {} is not an address; write HOST:PORT",
                    neighbour.name, neighbour.address
                ));
            }
        }
        let plain = |framing: Framing, tls: bool| tls && framing != Framing::Tcpcl;
        for neighbour in &self.neighbours {
            if plain(neighbour.framing, neighbour.tls.is_some()) {
                wrong(format!(
                    "neighbour {}: {} has no TLS; use tcpclv4",
                    neighbour.name,
                    neighbour.framing.name()
                ));
            }
        }
        for listener in &self.listeners {
            if plain(listener.framing, listener.tls.is_some()) {
                wrong(format!(
                    "listener {}: {} has no TLS; use tcpclv4",
                    listener.address,
                    listener.framing.name()
                ));
            }
        }
        for route in &self.routes {
            if !self.neighbours.iter().any(|it| it.name == route.via) {
                wrong(format!(
                    "route {}: there is no neighbour called {}",
                    route.pattern, route.via
                ));
            }
        }
        self.limits.problems(&mut found);
        found
    }
}

/// How bundles are put on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// TCPCLv4 (RFC 9174): acknowledged, both ways on one connection.
    Tcpcl,
    /// STCP, as ION and cFS speak it: length and bundle, one way, no acknowledgements. What the socket took counts as forwarded.
    Stcp,
    /// MTCP, as uD3TN and dtn7 speak it: bundles as CBOR byte strings, one way, no acknowledgements. What the socket took counts as
    /// forwarded.
    Mtcp,
}

impl Framing {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcpcl => "tcpclv4",
            Self::Stcp => "stcp",
            Self::Mtcp => "mtcp",
        }
    }
}

/// A socket on which neighbours call.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What they speak.
    pub framing: Framing,
    /// Where; port 0 lets the system choose ([`crate::Node::addresses`]).
    pub address: SocketAddr,
    /// Whether TLS is spoken there (RFC 9174 section 4.4); who does not speak it is sent away. TCPCLv4 only.
    pub tls: Option<ListenerTls>,
}

/// A listener's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// PEM of the certificate chain.
    pub certificate: PathBuf,
    /// PEM of its key.
    pub key: PathBuf,
    /// PEM of the CAs of those who may call; when given, who shows no certificate of theirs is sent away.
    pub clients: Option<PathBuf>,
}

/// A neighbour's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourTls {
    /// The DNS name or the address that has to be in its certificate.
    pub name: String,
    /// PEM of the CAs that are trusted; the system's when `None`.
    pub trust: Option<PathBuf>,
    /// PEM of our own certificate and its key, for neighbours that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A node next to this one, which this one calls.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// What routes call it.
    pub name: String,
    /// What it speaks.
    pub framing: Framing,
    /// `HOST:PORT`
    pub address: String,
    /// Whether TLS is spoken with it (RFC 9174 section 4.4); without it no bundle leaves then. TCPCLv4 only.
    pub tls: Option<NeighbourTls>,
}

/// Destinations that are reached through a neighbour.
#[derive(Clone, Debug)]
pub struct Route {
    /// Which.
    pub pattern: Pattern,
    /// The neighbour's name.
    pub via: String,
}

/// What a node bounds.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Octets of the largest bundle, with all of its blocks.
    pub bundle: u64,
    /// Octets of all bundles in the store.
    pub store: u64,
    /// Bundles remembered after they have gone, so that they are not taken twice.
    pub remembered: u64,
    /// Connections from others at a time.
    pub sessions: usize,
    /// Octets of bundles under way from others at a time; at least one bundle's.
    pub inbound: u64,
    /// Hops that a bundle of ours may make, 1 to 255.
    pub hops: u8,
    /// How long neither end of a connection is silent, where the other does not ask for less (RFC 9174 section 5.1.1). We speak after half
    /// of it at the latest; twice as much of the other's silence ends a connection.
    pub keepalive: Duration,
    /// How long another node may take to introduce itself.
    pub handshake: Duration,
    /// How long the first wait is before a neighbour that did not answer is called again. Each is twice as long as the one before.
    pub redial_first: Duration,
    /// How long such a wait is at most, how long a neighbour without room is left alone, and how long the first wait is before a bundle that a
    /// neighbour refused for good is offered again. Each is twice as long as the one before.
    pub redial_most: Duration,
    /// How long the wait for that is at most.
    pub offer_most: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bundle: 64 << 20,
            store: 4 << 30,
            remembered: 1_000_000,
            sessions: 64,
            inbound: 128 << 20,
            hops: 32,
            keepalive: Duration::from_secs(15),
            handshake: Duration::from_secs(30),
            redial_first: Duration::from_millis(250),
            redial_most: Duration::from_secs(30),
            offer_most: Duration::from_secs(3600),
        }
    }
}

impl Limits {
    fn problems(&self, found: &mut Vec<String>) {
        if self.hops == 0 {
            found.push("a bundle has to be allowed one hop at least".to_owned());
        }
        if self.sessions == 0 {
            found.push("one session at least has to be allowed".to_owned());
        }
        if self.bundle < 1024 || self.bundle > 1 << 30 {
            found.push(format!(
                "the largest bundle has {} octets; choose 1024 to {}, because it is held in memory",
                self.bundle,
                1 << 30
            ));
        }
        if self.inbound < self.bundle {
            found.push(format!(
                "{} octets of bundles under way are less than one bundle may have ({})",
                self.inbound, self.bundle
            ));
        }
        if self.store < self.bundle {
            found.push(format!(
                "a store of {} octets does not hold one bundle of {}",
                self.store, self.bundle
            ));
        }
        if self.keepalive < Duration::from_secs(1)
            || self.keepalive > Duration::from_secs(u64::from(u16::MAX))
        {
            found.push("the keepalive has to be 1 s to 65535 s".to_owned());
        }
        if self.redial_first.is_zero() || self.redial_most < self.redial_first {
            found.push(
                "the waits before a neighbour is called again have to grow from more than nothing".to_owned(),
            );
        }
        if self.offer_most < self.redial_most {
            found.push(
                "a refused bundle cannot be offered again sooner than the neighbour is called".to_owned(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named() {
        let mut config = NodeConfig::new(0, "/nowhere");
        config.services = vec![0, 25, 25];
        config.neighbours = ["moon", "moon"]
            .map(|name| Neighbour {
                name: name.to_owned(),
                framing: Framing::Tcpcl,
                address: "moon".to_owned(),
                tls: None,
            })
            .to_vec();
        config.routes = vec![Route {
            pattern: Pattern::node(2),
            via: "mars".to_owned(),
        }];
        config.limits.hops = 0;
        config.limits.inbound = 1;
        let text = config.problems().join("\n");
        for part in [
            "node number 0",
            "service number 0",
            "25 stands there twice",
            "two neighbours called moon",
            "moon is not an address",
            "no neighbour called mars",
            "one hop",
            "under way",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(NodeConfig::new(1, "/nowhere").problems().is_empty());
    }
}
