//! TLS with neighbours (RFC 9174 section 4.4).

use std::sync::Arc;

use lightpost_clock::Clock;
use lightpost_transport::tls;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::config::NodeConfig;

/// How a neighbour is called.
pub(crate) type Caller = Option<(ServerName<'static>, TlsConnector)>;
/// How those who call are answered.
pub(crate) type Called = Option<Arc<rustls::ServerConfig>>;

/// For each neighbour.
pub(crate) fn callers(config: &NodeConfig, clock: &Clock, problems: &mut Vec<String>) -> Vec<Caller> {
    let mut all = Vec::new();
    for neighbour in &config.neighbours {
        let caller = neighbour.tls.as_ref().and_then(|it| {
            let wrong = |cause: &dyn std::fmt::Display| format!("neighbour {}: {cause}", neighbour.name);
            let identity = it
                .identity
                .as_ref()
                .map(|(own, key)| (own.as_path(), key.as_path()));
            let client = tls::client(it.trust.as_deref(), identity, &[]);
            let client = client.map_err(|error| problems.push(wrong(&error))).ok();
            let name = ServerName::try_from(it.name.clone())
                .map_err(|_| problems.push(wrong(&format!("{} is not a DNS name or an address", it.name))))
                .ok();
            let mut client = client?;
            client.time_provider = tls::time(clock);
            Some((name?, TlsConnector::from(Arc::new(client))))
        });
        all.push(caller);
    }
    all
}

/// For each listener.
pub(crate) fn called(config: &NodeConfig, clock: &Clock, problems: &mut Vec<String>) -> Vec<Called> {
    let mut all = Vec::new();
    for listener in &config.listeners {
        let called = listener.tls.as_ref().and_then(|it| {
            let server = tls::server(&it.certificate, &it.key, it.clients.as_deref(), &[]);
            server
                .map_err(|error| problems.push(format!("listener {}: {error}", listener.address)))
                .ok()
                .map(|mut server| {
                    server.time_provider = tls::time(clock);
                    Arc::new(server)
                })
        });
        all.push(called);
    }
    all
}
