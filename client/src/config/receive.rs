//! `[smtp]` and `[lmtp]`: listeners for an MTA's mail.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use lightpost_config::Section;
use lightpost_transport::tls::{self, TlsError};

use super::{file, positive, screen::networks, span};

/// `[smtp]` or `[lmtp]`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Receive {
    /// The TCP listener.
    pub listen: Option<SocketAddr>,
    /// The Unix socket.
    pub socket: Option<PathBuf>,
    /// Our chain and key in PEM, for STARTTLS.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// CAs in PEM: who shows a certificate of theirs may hand over mail from anywhere.
    pub client_trust: Option<PathBuf>,
    /// Networks that may hand over mail without a certificate, beside this machine.
    pub clients: Vec<IpNet>,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_per_address: usize,
    /// Mistakes of a peer before its connection is ended.
    pub max_errors: usize,
    /// How long a command, or the next piece of a body, may take.
    pub idle: Duration,
}

impl Receive {
    /// The settings for STARTTLS, when a certificate is configured.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub fn tls(&self) -> Result<Option<Arc<rustls::ServerConfig>>, TlsError> {
        let Some((certificate, key)) = &self.identity else {
            return Ok(None);
        };
        let trust = self.client_trust.as_deref();
        Ok(Some(Arc::new(tls::server(certificate, key, trust, &[])?)))
    }
}

/// Reads the section; `None` when the file lacks it.
pub(super) fn read(section: &Section<'_>, sample: &str) -> Option<Receive> {
    if !section.present() {
        return None;
    }
    let listen = section.get::<SocketAddr>("listen");
    let socket = section.path_of("socket");
    if listen.is_none() && socket.is_none() {
        section.wrong(
            "listen",
            "there is no way for mail to come in".into(),
            format!("set `listen = \"{sample}\"` or `socket`, or remove the section"),
        );
    }
    let client_trust = file(section, "client_trust");
    let identity = super::identity(section);
    if client_trust.is_some() && identity.is_none() {
        section.wrong(
            "client_trust",
            "certificates are shown under TLS only, and there is no TLS".into(),
            "set `certificate` and `key`, too".into(),
        );
    }
    let named = section.get::<Vec<String>>("clients").unwrap_or_default();
    let clients = networks(section, "clients").unwrap_or_default();
    let open = |address: &SocketAddr| !address.ip().is_loopback() && named.is_empty();
    if let Some(address) = listen.filter(open)
        && client_trust.is_none()
    {
        section.wrong(
            "listen",
            format!("{address} can be reached from other hosts, and whoever reaches it may send mail"),
            "listen on 127.0.0.1 or [::1], or name who may with `clients` or `client_trust`".into(),
        );
    }
    Some(Receive {
        listen,
        socket,
        identity,
        client_trust,
        clients,
        connections: positive(section, "connections", section.get_or("connections", 200)),
        connections_per_address: positive(
            section,
            "connections_per_address",
            section.get_or("connections_per_address", 100),
        ),
        max_errors: positive(section, "max_errors", section.get_or("max_errors", 20)),
        idle: span(section, "idle", Duration::from_secs(300)),
    })
}
