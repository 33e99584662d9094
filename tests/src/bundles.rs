//! A client on Earth and a gateway on the Moon whose bundle nodes are neighbours over TCPCLv4.

use std::{net::SocketAddr, path::Path};

use crate::{
    Site, corpus,
    dovecot::Dovecot,
    pki::Authority,
    programs::Program,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

/// A mail's sender and its recipient.
pub const ALICE: &str = "alice@earth.example";
/// A mailbox on the Moon.
pub const BOB: &str = "bob@moon.example";
/// Another one.
pub const POSTMASTER: &str = "postmaster@moon.example";
const NAME: &str = "gw1.moon.example";

/// One of the two nodes.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// Its program's endpoint.
    pub endpoint: &'static str,
    /// All of its endpoints.
    pub pattern: &'static str,
    /// Its store, below the site's folder.
    pub store: &'static str,
}

/// The client's.
pub const EARTH: Side = Side {
    endpoint: "ipn:1.26",
    pattern: "ipn:1.*",
    store: "earth/bundles",
};
/// The gateway's.
pub const MOON: Side = Side {
    endpoint: "ipn:2.25",
    pattern: "ipn:2.*",
    store: "moon/bundles",
};

/// The `[bundle]` section of a side that listens at `at` and calls the other at `other_at`.
pub fn section(site: &Site, (side, at): (Side, SocketAddr), (other, other_at): (Side, SocketAddr)) -> String {
    let (endpoint, store, routes) = (side.endpoint, site.path(side.store), other.pattern);
    format!(
        "\n[bundle]\nendpoint = \"{endpoint}\"\nstore = \"{}\"\n[[bundle.listen]]\naddress = \"{at}\"\n\
         [bundle.neighbour.other]\naddress = \"{other_at}\"\nroutes = [\"{routes}\"]\n",
        store.display()
    )
}

/// What a world is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a> {
    /// Lines of the path.
    pub path: &'a str,
    /// Lines of its bundle section.
    pub bundle: &'a str,
    /// The gateway of the routes.
    pub gateway: &'a str,
    /// Where the Moon's node calls Earth's, when something stands between.
    pub calls_earth_at: Option<SocketAddr>,
}

/// Both, with a mailbox behind the gateway.
#[derive(Debug)]
pub struct World {
    /// On Earth.
    pub client: Program,
    /// On the Moon.
    pub gateway: Gateway,
    /// Behind it.
    pub dovecot: Dovecot,
    /// Where Earth's node listens.
    pub earth: SocketAddr,
    /// Where the Moon's node listens.
    pub moon: SocketAddr,
    /// Where all of this lives.
    pub site: Site,
}

impl World {
    /// Not started.
    pub fn new(path: &str, bundle: &str, gateway: &str) -> Self {
        let lines = Lines {
            path,
            bundle,
            gateway,
            calls_earth_at: None,
        };
        Self::on(Site::new(), &lines)
    }

    /// Not started.
    pub fn on(site: Site, lines: &Lines<'_>) -> Self {
        let authority = Authority::new(&site, "ca");
        let dovecot = Dovecot::start(&site, "dovecot", &[BOB, POSTMASTER]);
        let (earth, moon) = (site.socket(), site.socket());
        let mut settings = GatewaySettings::new(NAME, &["moon.example"], dovecot.lmtp);
        settings.peer = format!("endpoints = [\"{}\"]\n", EARTH.endpoint);
        let called = lines.calls_earth_at.unwrap_or(earth);
        settings.more = section(&site, (MOON, moon), (EARTH, called));
        let far = Gateway::new(&site, &authority, &settings);
        let mut settings = ClientSettings::discovering(site.socket(), &[]);
        settings.path = lines.path.to_owned();
        for domain in ["moon.example", "mars.example"] {
            settings
                .routes
                .push((domain.into(), vec![lines.gateway.to_owned()]));
        }
        settings.more = format!(
            "\n[path.near.bundle]\n{}\n{}",
            lines.bundle,
            section(&site, (EARTH, earth), (MOON, moon))
        );
        Self {
            client: world::client(&site, &authority, &settings),
            gateway: far,
            dovecot,
            earth,
            moon,
            site,
        }
    }

    /// Writes `text` in place of `from` into the client's configuration.
    pub fn configure_client(&self, from: &str, to: &str) {
        replace(&self.client.configuration, from, to);
    }
}

/// Writes `to` in place of `from` into a file.
pub fn replace(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    let changed = text.replace(from, to);
    assert_ne!(changed, text, "{from} does not stand there");
    std::fs::write(file, changed).unwrap();
}

/// A small mail.
pub fn hello(subject: &str) -> Vec<u8> {
    corpus::message(subject, b"Hello\r\n")
}
