//! `[accept]` and `[[peer]]`: what is accepted, and from whom.

use std::time::Duration;

use lightpost_config::{Section, Size};
use lightpost_intake::Tokens;

use super::{DAY, Domains, domains, positive};

/// `[accept]`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Accept {
    /// The only domains that mail is accepted for.
    pub domains: Domains,
    /// Octets of one canonical body at most.
    pub max_message: u64,
    /// Recipients of one transaction at most.
    pub max_recipients: usize,
    /// Octets of one decoded object at most.
    pub max_object: u64,
    /// Objects that are taken at once; more are answered 429.
    pub concurrency: usize,
    /// How long an object may stand still on its way in.
    pub idle: Duration,
    /// How long an exchange is remembered, so that its repeat is known: longer than any peer's lifetime of mail. It is
    /// remembered under the [`Peer`]'s name; a peer that gets another name while repeats are on their way may deliver twice.
    pub remember: Duration,
}

/// `[[peer]]`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Peer {
    /// The DNS name in its certificate, lower case; its name in the history.
    pub name: String,
    /// Its token, alone under its name.
    pub token: Option<Tokens>,
    /// Its bundle endpoints: the sources of its bundles.
    pub endpoints: Vec<String>,
    /// The sender domains that it may speak for; the null reverse-path always.
    pub senders: Domains,
}

/// Reads `[accept]`. What waits is derived from the slowest of `paths`.
pub(super) fn read(section: &Section<'_>, paths: &[lightpost_transport::Path]) -> Option<Accept> {
    section.require::<Vec<String>>("domains");
    let domains = domains::read(section, "domains");
    if domains.as_ref().is_some_and(|domains| domains.0.is_empty()) {
        section.wrong(
            "domains",
            "is empty, so that no mail is accepted".into(),
            "name the domains behind this gateway".into(),
        );
    }
    let max_message = section.get_or("max_message", Size(50_000_000)).0;
    let max_message = positive(section, "max_message", max_message);
    // Dot-stuffing can add a third, commands and recipients come on top.
    let max_object = Size(max_message.saturating_mul(3) / 2 + 4 * 1024 * 1024);
    let max_object = positive(section, "max_object", section.get_or("max_object", max_object).0);
    // There and back with the longest outage between: what a silence can last without anything being wrong.
    let silence = paths
        .iter()
        .map(|path| path.one_way_max * 2 + path.outage_max)
        .max()
        .unwrap_or_default();
    let idle = section.get_or("idle", silence.mul_f64(1.25) + Duration::from_secs(60));
    // A sender tries for days and may be cut off for several outages before its last repeat gets through. Where nothing is known of
    // its path, it may try for a month.
    let days = if paths.is_empty() { 35 } else { 10 };
    let remember = section.get_or("remember", DAY * days + silence * 10);
    Some(Accept {
        max_message,
        max_object,
        max_recipients: positive(section, "max_recipients", section.get_or("max_recipients", 1000)),
        concurrency: positive(section, "concurrency", section.get_or("concurrency", 256)),
        idle: positive(section, "idle", idle),
        remember: positive(section, "remember", remember),
        domains: domains?,
    })
}

/// Reads every `[[peer]]`.
pub(super) fn peers(root: &Section<'_>, has_trust: bool) -> Vec<Peer> {
    let mut peers: Vec<Peer> = Vec::new();
    let sections = root.each("peer");
    let none = sections.is_empty();
    for section in sections {
        let Some(name) = section
            .require::<String>("name")
            .map(|name| name.to_ascii_lowercase())
        else {
            continue;
        };
        if !domains::is_domain(&name) {
            domains::wrong(&section, "name", &name);
        }
        if peers.iter().any(|other| other.name == name) {
            section.wrong(
                "name",
                format!("{name} stands twice"),
                "give each peer one [[peer]]".into(),
            );
        }
        let senders = domains::read(&section, "senders").unwrap_or(Domains(vec![super::Pattern::Any]));
        let token = token(&section, &name);
        let endpoints = endpoints(&section);
        for other in &peers {
            for endpoint in endpoints.iter().filter(|one| other.endpoints.contains(one)) {
                section.wrong(
                    "endpoints",
                    format!("{endpoint} is one of {} as well", other.name),
                    "give each endpoint to one peer".into(),
                );
            }
        }
        if token.is_none() && !has_trust && endpoints.is_empty() && section.get::<String>("token").is_none() {
            section.wrong(
                "token",
                "is missing, and without listen.client_trust no certificate can name this peer".into(),
                "name a file with its token, or set listen.client_trust".into(),
            );
        }
        peers.push(Peer {
            name,
            token,
            endpoints,
            senders,
        });
    }
    if none {
        root.wrong(
            "peer",
            "is missing, so that nobody may hand over mail".into(),
            "add a [[peer]] with the name in the client's certificate".into(),
        );
    }
    peers
}

fn endpoints(section: &Section<'_>) -> Vec<String> {
    let mut endpoints = Vec::new();
    for text in section.get_or("endpoints", Vec::<String>::new()) {
        match text.parse::<hardy_bpv7::eid::Eid>() {
            // In one form: it is compared with the text of a bundle's source.
            Ok(eid) => endpoints.push(eid.to_string()),
            Err(_) => section.wrong(
                "endpoints",
                format!("\"{}\" is not a bundle endpoint", text.escape_debug()),
                "write the sources of its bundles, such as \"ipn:1.26\"".into(),
            ),
        }
    }
    endpoints
}

fn token(section: &Section<'_>, name: &str) -> Option<Tokens> {
    let path = section.path_of("token")?;
    let mut tokens = Tokens::default();
    match tokens.load_one(name, &path) {
        Ok(()) => Some(tokens),
        Err(error) => {
            section.wrong(
                "token",
                error.to_string(),
                "name a file that holds the token on one line".into(),
            );
            None
        }
    }
}
