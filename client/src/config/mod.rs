//! The client's configuration file; `deploy/client.toml` is the sample with every key.

mod accepts;
mod local;
mod paths;
mod priorities;
mod quotas;
mod receive;
mod recipients;
mod routes;
mod screen;
mod seal;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use lightpost_config::{Problems, Section, Size, read, read_text};
use lightpost_intake::Tokens;
use lightpost_mail::lines::BareLineEnds;

pub use accepts::{Accepts, Convert};
pub use local::Local;
pub use paths::{Encoding, PathSettings, Secret};
pub use priorities::{Field, From, PriorityRule};
pub(crate) use quotas::key as sender_key;
pub use quotas::{Quota, Whom};
pub use receive::Receive;
pub use recipients::{Recipients, RecipientsError};
pub(crate) use routes::gateway;
pub use routes::{Pattern, Route};
pub use screen::{Authentication, Rspamd, Screen};
pub use seal::Seal;

/// Everything that an operator can set. Built by [`Config::load`] only.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Our name, for EHLO, Received and notifications.
    pub name: String,
    /// The outbox.
    pub database: PathBuf,
    /// Where sessions with gateways are kept, so that the first mail after a restart leaves in the first flight; nowhere when
    /// `None`.
    pub sessions: Option<PathBuf>,
    /// How long a finished message stays for queries.
    pub retention: Duration,
    /// Where mail comes in.
    pub ingest: Ingest,
    /// Where it comes in by SMTP.
    pub smtp: Option<Receive>,
    /// Where it comes in by LMTP.
    pub lmtp: Option<Receive>,
    /// How names are looked up.
    pub resolver: Resolver,
    /// The local MTA.
    pub local: Local,
    /// Trust and identity towards gateways.
    pub tls: Tls,
    /// The bundle node, where a path uses bundles.
    pub bundle: Option<lightpost_bundles::Settings>,
    /// The paths by name.
    pub paths: BTreeMap<String, PathSettings>,
    /// Which mail takes which path.
    pub routes: Vec<Route>,
    /// How much may be sent in a day.
    pub quotas: Vec<Quota>,
    /// Which mail goes first.
    pub priorities: Vec<PriorityRule>,
    /// What is looked at besides the envelope; nothing when `None`.
    pub screen: Option<Screen>,
}

/// `[ingest]`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ingest {
    /// The TCP listener.
    pub listen: Option<SocketAddr>,
    /// The Unix socket.
    pub socket: Option<PathBuf>,
    /// Who may hand over mail; everyone who reaches the listener when `None`.
    pub tokens: Option<Tokens>,
    /// Octets of one canonical body at most.
    pub max_message: u64,
    /// Recipients of one transaction at most.
    pub max_recipients: usize,
    /// What happens to a bare CR or LF.
    pub bare_line_ends: BareLineEnds,
    /// Uploads at once; more are answered 429.
    pub concurrency: usize,
    /// How long an upload may stand still.
    pub idle: Duration,
    /// How long an `Idempotency-Key` is remembered.
    pub remember: Duration,
}

/// `[resolver]`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Resolver {
    /// The servers; the system's when empty.
    pub servers: Vec<SocketAddr>,
    /// How long one answer may take.
    pub timeout: Duration,
    /// Where the last known answers are kept.
    pub cache: Option<PathBuf>,
    /// Whether answers are validated here (DNSSEC).
    pub dnssec: bool,
}

/// `[tls]`
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tls {
    /// CAs in PEM; the system's when `None`.
    pub trust: Option<PathBuf>,
    /// Our chain and key in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Config {
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
    let name = root.require::<String>("name").map(|name| host_name(root, name));
    let database = root.require_path("database");
    if let Some(folder) = database
        .as_deref()
        .and_then(Path::parent)
        .filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
    {
        root.wrong(
            "database",
            format!("the folder {} does not exist", folder.display()),
            "create it, owned by the user that the service runs as".into(),
        );
    }
    let sessions = sessions(root, database.as_deref());
    let retention = root.get_or("retention", Duration::from_secs(7 * 86_400));
    let ingest = ingest(&root.section("ingest"));
    let smtp = receive::read(&root.section("smtp"), "127.0.0.1:8026");
    let lmtp = receive::read(&root.section("lmtp"), "127.0.0.1:8027");
    let resolver = resolver(&root.section("resolver"));
    let tls = tls(&root.section("tls"));
    let local = local::read(&root.section("local"), name.as_deref().unwrap_or_default(), &tls);
    let paths = paths::read(root);
    let routes = routes::read(root, &paths);
    let quotas = quotas::read(root);
    let priorities = priorities::read(root);
    let screen = screen::read(&root.section("screen"));
    let bundle = bundle(root, &paths);
    let paths = paths
        .into_iter()
        .filter_map(|(name, path)| Some((name, path?)))
        .collect();
    Some(Config {
        name: name?,
        database: database?,
        sessions,
        retention,
        ingest,
        smtp,
        lmtp,
        resolver,
        local: local?,
        tls,
        bundle,
        paths,
        routes,
        quotas,
        priorities,
        screen,
    })
}

/// `[bundle]`, which a path that uses bundles needs.
fn bundle(
    root: &Section<'_>,
    paths: &BTreeMap<String, Option<PathSettings>>,
) -> Option<lightpost_bundles::Settings> {
    let section = root.section("bundle");
    if section.present() {
        return lightpost_bundles::Settings::read(&section, "ipn:1.26");
    }
    let users = paths.values().flatten().filter(|path| path.rules.has_bundles());
    for path in users {
        root.wrong(
            "bundle",
            format!("is missing, and [path.{}] uses bundles", path.path.name),
            "add [bundle] with `endpoint`, `store` and a neighbour".into(),
        );
    }
    None
}

/// Beside the database, with its protection: who can read the mail in it learns nothing new from the sessions.
fn sessions(root: &Section<'_>, database: Option<&Path>) -> Option<PathBuf> {
    if root.get::<String>("sessions").as_deref() == Some("off") {
        return None;
    }
    root.path_of("sessions").or_else(|| {
        let mut beside = database?.as_os_str().to_owned();
        beside.push(".sessions");
        Some(beside.into())
    })
}

fn host_name(root: &Section<'_>, name: String) -> String {
    if !routes::is_domain(&name) {
        root.wrong(
            "name",
            format!("\"{name}\" is not a host name"),
            "write the full name of this host, such as \"relay.earth.example\"".into(),
        );
    }
    name
}

fn ingest(section: &Section<'_>) -> Ingest {
    let listen = section.get::<SocketAddr>("listen");
    let socket = section.path_of("socket");
    let named = section.get::<String>("tokens").is_some();
    let tokens = section.path_of("tokens").and_then(|path| {
        Tokens::load(&path)
            .map_err(|error| {
                section.wrong(
                    "tokens",
                    error.to_string(),
                    "write one token per line: a name, a space, the token".into(),
                );
            })
            .ok()
    });
    if let Some(address) = listen.filter(|address| !address.ip().is_loopback() && !named) {
        section.wrong(
            "listen",
            format!("{address} can be reached from other hosts and asks for no token"),
            "listen on 127.0.0.1 or [::1], or name a file with `tokens`".into(),
        );
    }
    if listen.is_none() && socket.is_none() {
        section.wrong(
            "listen",
            "there is no way for mail to come in".into(),
            "set `listen = \"127.0.0.1:8025\"` or `socket`".into(),
        );
    }
    let bare_line_ends = section
        .parse(
            "bare_line_ends",
            "write \"normalise\" or \"refuse\"",
            |text| match text {
                "normalise" => Ok(BareLineEnds::Normalise),
                "refuse" => Ok(BareLineEnds::Refuse),
                _ => Err("is not a policy".into()),
            },
        )
        .unwrap_or(BareLineEnds::Normalise);
    Ingest {
        listen,
        socket,
        tokens,
        max_message: positive(
            section,
            "max_message",
            section.get_or("max_message", Size(50_000_000)).0,
        ),
        max_recipients: positive(section, "max_recipients", section.get_or("max_recipients", 1000)),
        bare_line_ends,
        concurrency: positive(section, "concurrency", section.get_or("concurrency", 200)),
        idle: span(section, "idle", Duration::from_secs(60)),
        remember: span(section, "remember", Duration::from_secs(7 * 86_400)),
    }
}

fn resolver(section: &Section<'_>) -> Resolver {
    Resolver {
        servers: section.get_or("servers", Vec::new()),
        timeout: span(section, "timeout", Duration::from_secs(3)),
        cache: section.path_of("cache"),
        dnssec: section.get_or("dnssec", false),
    }
}

fn tls(section: &Section<'_>) -> Tls {
    Tls {
        trust: file(section, "trust"),
        identity: identity(section),
    }
}

/// `certificate` and `key`, both or neither.
pub(crate) fn identity(section: &Section<'_>) -> Option<(PathBuf, PathBuf)> {
    let (certificate, key) = (file(section, "certificate"), file(section, "key"));
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (certificate, _) => {
            let (there, lacking) = if certificate.is_some() {
                ("certificate", "key")
            } else {
                ("key", "certificate")
            };
            section.wrong(
                lacking,
                format!("is missing although `{there}` is set"),
                "set both or neither".into(),
            );
            None
        }
    }
}

/// A file that must be readable now.
pub(crate) fn file(section: &Section<'_>, key: &str) -> Option<PathBuf> {
    let path = section.path_of(key)?;
    if let Err(error) = std::fs::File::open(&path).and_then(|file| match file.metadata()?.is_file() {
        true => Ok(()),
        false => Err(std::io::Error::other("is not a file")),
    }) {
        section.wrong(
            key,
            format!("{} cannot be read: {error}", path.display()),
            "name a file that the user of the service can read".into(),
        );
    }
    Some(path)
}

/// A number that may not be zero.
pub(crate) fn positive<T: Default + PartialEq>(section: &Section<'_>, key: &str, value: T) -> T {
    if value == T::default() {
        section.wrong(key, "is zero".into(), "write a number of 1 or more".into());
    }
    value
}

/// A span that may not be zero.
pub(crate) fn span(section: &Section<'_>, key: &str, default: Duration) -> Duration {
    positive(section, key, section.get_or(key, default))
}

#[cfg(test)]
mod tests;
