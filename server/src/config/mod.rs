//! The gateway's configuration file; `deploy/server.toml` is the sample with every key.

mod accept;
mod bundle;
mod domains;
mod relay;
mod seals;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use lightpost_config::{Problems, Section, read, read_text};
use lightpost_intake::Tokens;
use lightpost_mail::Address;
use lightpost_transport::quic::tickets::age_tolerance;

pub use accept::{Accept, Peer};
pub use bundle::Bundle;
pub use domains::{Domains, Pattern};
pub use relay::{Onward, Relay};
pub use seals::Seals;

const DAY: Duration = Duration::from_secs(86_400);

/// Everything that an operator can set. Built by [`Config::load`] only.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Our name, for EHLO, Received and notifications.
    pub name: String,
    /// The inbox.
    pub database: PathBuf,
    /// How long a finished message stays for queries.
    pub retention: Duration,
    /// Where exchanges come in.
    pub listen: Listen,
    /// What is accepted.
    pub accept: Accept,
    /// Where exchanges come in by bundles.
    pub bundle: Option<Bundle>,
    /// Who may hand over mail.
    pub peers: Vec<Peer>,
    /// Where mail goes.
    pub onward: Onward,
    /// Who is named as the author of notifications, and hears of mail without a sender that cannot be delivered.
    pub postmaster: Address,
    /// Where an operator asks.
    pub admin: Option<Admin>,
    /// Whose seals are verified.
    pub seals: Option<Seals>,
    /// The paths that clients come by.
    pub paths: Vec<lightpost_transport::Path>,
    /// How far a client that resumes a session may be wrong about its age: the most that one of the paths needs.
    pub session_age_tolerance: Duration,
}

/// `[listen]`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listen {
    /// HTTP/3 on this UDP port, HTTP/2 and HTTP/1.1 on the same TCP port.
    pub https: SocketAddr,
    /// The path of the URI that is POSTed to.
    pub endpoint: String,
    /// Our chain in PEM.
    pub certificate: PathBuf,
    /// Its key in PEM.
    pub key: PathBuf,
    /// CAs that clients are verified with.
    pub client_trust: Option<PathBuf>,
}

/// `[admin]`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Admin {
    /// The TCP listener.
    pub listen: Option<SocketAddr>,
    /// The Unix socket.
    pub socket: Option<PathBuf>,
    /// Who may ask; everyone who reaches the listener when `None`.
    pub tokens: Option<Tokens>,
}

impl Config {
    /// How long a notification may take to reach a sender: the light time and the longest outage of the longest path.
    pub fn away(&self) -> Duration {
        let away = |path: &lightpost_transport::Path| path.one_way_max.saturating_add(path.outage_max);
        self.paths.iter().map(away).max().unwrap_or_default()
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// All problems at once.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        read(path, walk)
    }

    /// Reads `text` as if it stood in `file`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_text(file: &Path, text: &str) -> Result<Self, Problems> {
        read_text(file, text, walk)
    }
}

fn walk(root: &Section<'_>) -> Option<Config> {
    let name = root.require::<String>("name").filter(|name| is_host(root, name));
    let database = root.require_path("database");
    if let Some(folder) = database
        .as_deref()
        .and_then(Path::parent)
        // Empty where the configuration file was named without a folder: the one that the program runs in.
        .filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
    {
        root.wrong(
            "database",
            format!("the folder {} does not exist", folder.display()),
            "create it, owned by the user that the service runs as".into(),
        );
    }
    let retention = root.get_or("retention", DAY * 7);
    let (paths, tolerances): (Vec<_>, Vec<_>) = root
        .named("path")
        .iter()
        .filter_map(|(name, section)| {
            let tolerance = section.get::<Duration>("session_age_tolerance");
            let path = lightpost_transport::Path::read(name, section)?;
            let derived = || age_tolerance(std::slice::from_ref(&path));
            let tolerance = tolerance.unwrap_or_else(derived);
            Some((path, tolerance))
        })
        .unzip();
    let session_age_tolerance = tolerances.into_iter().max().unwrap_or(age_tolerance(&[]));
    let listen = listen(&root.section("listen"));
    let accept = accept::read(&root.section("accept"), &paths);
    let has_trust = listen
        .as_ref()
        .is_some_and(|listen| listen.client_trust.is_some());
    let peers = accept::peers(root, has_trust);
    let bundle = bundle::read(root, &peers);
    let own_name = name.clone().unwrap_or_default();
    let onward = relay::read(root, &own_name);
    let admin = admin(&root.section("admin"));
    let seals = seals::read(&root.section("seal"));
    let (onward, postmaster) = onward?;
    Some(Config {
        name: name?,
        database: database?,
        retention,
        listen: listen?,
        accept: accept?,
        bundle,
        peers,
        onward,
        postmaster,
        admin,
        seals,
        paths,
        session_age_tolerance,
    })
}

fn is_host(root: &Section<'_>, name: &str) -> bool {
    let good = domains::is_domain(name);
    if !good {
        root.wrong(
            "name",
            format!("\"{}\" is not a host name", name.escape_debug()),
            "write the full name of this host, such as \"gw1.moon.example\"".into(),
        );
    }
    good
}

fn listen(section: &Section<'_>) -> Option<Listen> {
    let https = section.require::<SocketAddr>("https");
    let endpoint = section.get_or::<String>("endpoint", "/inboundmail".into());
    let plain = endpoint
        .bytes()
        .all(|octet| octet.is_ascii_alphanumeric() || b"/-._~".contains(&octet));
    if !endpoint.starts_with('/') || !plain {
        section.wrong(
            "endpoint",
            format!("\"{}\" is not a plain path", endpoint.escape_debug()),
            "write the path of the URI, such as \"/inboundmail\"".into(),
        );
    }
    section.require::<String>("certificate");
    section.require::<String>("key");
    let (certificate, key) = (readable(section, "certificate"), readable(section, "key"));
    Some(Listen {
        client_trust: readable(section, "client_trust"),
        https: https?,
        endpoint,
        certificate: certificate?,
        key: key?,
    })
}

fn admin(section: &Section<'_>) -> Option<Admin> {
    let listen = section.get::<SocketAddr>("listen");
    let socket = section.path_of("socket");
    let named = section.get::<String>("tokens").is_some();
    let tokens = section.path_of("tokens").and_then(|path| {
        let note = |error: lightpost_intake::TokenError| {
            section.wrong(
                "tokens",
                error.to_string(),
                "write one token per line: a name, a space, the token".into(),
            );
        };
        Tokens::load(&path).map_err(note).ok()
    });
    if let Some(address) = listen.filter(|address| !address.ip().is_loopback() && !named) {
        section.wrong(
            "listen",
            format!("{address} can be reached from other hosts and asks for no token"),
            "listen on 127.0.0.1 or [::1], or name a file with `tokens`".into(),
        );
    }
    (listen.is_some() || socket.is_some()).then_some(Admin {
        listen,
        socket,
        tokens,
    })
}

/// A file that must be readable now.
fn readable(section: &Section<'_>, key: &str) -> Option<PathBuf> {
    let path = section.path_of(key)?;
    let result = std::fs::File::open(&path).and_then(|file| {
        if file.metadata()?.is_file() {
            Ok(())
        } else {
            Err(std::io::Error::other("is not a file"))
        }
    });
    if let Err(error) = result {
        section.wrong(
            key,
            format!("{} cannot be read: {error}", path.display()),
            "name a file that the user of the service can read".into(),
        );
    }
    Some(path)
}

/// A number, size or span that may not be zero.
fn positive<T: Default + PartialEq>(section: &Section<'_>, key: &str, value: T) -> T {
    if value == T::default() {
        section.wrong(key, "is zero".into(), "write something above zero".into());
    }
    value
}
