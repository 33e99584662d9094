//! `[[route]]`: which mail takes which path.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use lightpost_config::Section;
use lightpost_transport::{bundle::endpoint, ways::Way};
use url::Url;

use super::{PathSettings, Recipients};

/// Which destinations a route is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    /// Exactly this domain.
    Domain(String),
    /// Everything below this domain, `*.moon.example`.
    Below(String),
    /// Everything, `*`.
    Any,
}

impl Pattern {
    /// Reads `moon.example`, `*.moon.example` or `*`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_end_matches('.').to_ascii_lowercase();
        if text == "*" {
            return Some(Self::Any);
        }
        let (domain, below) = match text.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (text.as_str(), false),
        };
        // The key that recipients are compared by: lower case, A-labels.
        let domain = lightpost_mail::Address::parse(&format!("a@{domain}"))
            .ok()?
            .destination();
        match (is_domain(&domain), below) {
            (false, _) => None,
            (true, false) => Some(Self::Domain(domain)),
            (true, true) => Some(Self::Below(domain)),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => f.write_str(domain),
            Self::Below(domain) => write!(f, "*.{domain}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// `[[route]]`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Route {
    /// Which destinations.
    pub pattern: Pattern,
    /// The path's name.
    pub path: String,
    /// The gateways in order of preference; found by URI records when empty.
    pub gateways: Vec<Url>,
    /// The domains that targets of URI records may lie in; any when empty.
    pub targets: Vec<String>,
    /// Who exists there; everyone when `None`.
    pub recipients: Option<Recipients>,
}

/// Whether `name` is a domain name in A-labels.
pub(super) fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (1..=253).contains(&name.len()) && name.split('.').all(label)
}

/// Reads a gateway's URI: https with a host, no user, no fragment.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn gateway(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if url.scheme() != "https" {
        return Err(format!("the scheme is {}, not https", url.scheme()));
    }
    if url.host_str().is_none_or(str::is_empty) || !url.username().is_empty() || url.password().is_some() {
        return Err("it has no host, or a user".into());
    }
    if url.fragment().is_some() {
        return Err("it has a fragment".into());
    }
    Ok(url)
}

/// Reads a gateway that an operator names: as [`gateway`], with a bundle endpoint as its fragment where it has one, or an endpoint alone.
///
/// # Errors
/// What is wrong with it.
fn named(text: &str) -> Result<Url, String> {
    if let Some((web, fragment)) = text.split_once('#') {
        let url = gateway(web)?;
        let whole = format!("{url}#{fragment}");
        let whole = Url::parse(&whole).map_err(|error| error.to_string())?;
        return match endpoint(&whole) {
            Some(_) => Ok(whole),
            None => Err("the fragment is not a bundle endpoint".into()),
        };
    }
    match Url::parse(text) {
        Ok(url) if url.scheme() == "ipn" => match endpoint(&url) {
            Some(_) => Ok(url),
            None => Err("is not the endpoint of a service".into()),
        },
        _ => gateway(text),
    }
}

/// Reads every `[[route]]`. `paths` has an entry for every path that the file names, right or wrong.
pub(super) fn read(root: &Section<'_>, paths: &BTreeMap<String, Option<PathSettings>>) -> Vec<Route> {
    let sections = root.each("route");
    if sections.is_empty() {
        root.wrong(
            "route",
            "there is none: no mail can be accepted".into(),
            "add a [[route]] with `domain` and `path`".into(),
        );
    }
    let mut routes = Vec::new();
    let mut seen = BTreeSet::new();
    for section in sections {
        if let Some(route) = one(&section, paths) {
            if !seen.insert(route.pattern.clone()) {
                section.wrong(
                    "domain",
                    format!("{} has two routes", route.pattern),
                    "remove one of them".into(),
                );
            }
            routes.push(route);
        }
    }
    routes
}

fn one(section: &Section<'_>, paths: &BTreeMap<String, Option<PathSettings>>) -> Option<Route> {
    section.require::<String>("domain");
    let pattern = section.parse(
        "domain",
        "write \"moon.example\", \"*.moon.example\" for everything below it, or \"*\"",
        |text| Pattern::parse(text).ok_or_else(|| "is not a domain".to_owned()),
    );
    let path = section.require::<String>("path");
    if let Some(path) = path.as_ref().filter(|path| !paths.contains_key(*path)) {
        let known: Vec<&str> = paths.keys().map(String::as_str).collect();
        let remedy = if known.is_empty() {
            format!("add [path.{path}]")
        } else {
            format!("add [path.{path}], or use one of: {}", known.join(", "))
        };
        section.wrong("path", format!("there is no path \"{path}\""), remedy);
    }
    let mut gateways = Vec::new();
    for text in section.get_or("gateways", Vec::<String>::new()) {
        match named(&text) {
            Ok(url) => {
                check_way(section, path.as_deref(), paths, &url);
                gateways.push(url);
            }
            Err(what) => section.wrong(
                "gateways",
                format!("\"{text}\": {what}"),
                "write a URI such as \"https://gw1.moon.example/inboundmail\", \"ipn:2.25\", or both with # between".into(),
            ),
        }
    }
    let mut targets = Vec::new();
    for text in section.get_or("targets", Vec::<String>::new()) {
        let domain = text.trim_end_matches('.').to_ascii_lowercase();
        if is_domain(&domain) {
            targets.push(domain);
        } else {
            section.wrong(
                "targets",
                format!("\"{text}\" is not a domain"),
                "write a domain such as \"moon.example\"; names below it are included".into(),
            );
        }
    }
    let recipients = section.path_of("recipients").and_then(|file| {
        Recipients::load(&file)
            .map_err(|error| {
                section.wrong(
                    "recipients",
                    error.to_string(),
                    "write one address or local part per line; \"list-*\" is all that begin with it".into(),
                );
            })
            .ok()
    });
    Some(Route {
        pattern: pattern?,
        path: path?,
        gateways,
        targets,
        recipients,
    })
}

/// Notes a gateway that none of its path's transports leads to.
fn check_way(
    section: &Section<'_>,
    path: Option<&str>,
    paths: &BTreeMap<String, Option<PathSettings>>,
    url: &Url,
) {
    let Some(Some(settings)) = path.and_then(|path| paths.get(path)) else {
        return;
    };
    let (has, name) = (|way| settings.rules.order.contains(&way), &settings.path.name);
    let lacking = match (url.has_host(), endpoint(url).is_some()) {
        (_, true) if !has(Way::Bundle) => "bundle",
        (true, false) if !has(Way::Quic) => "quic",
        _ => return,
    };
    section.wrong(
        "gateways",
        format!("\"{url}\" wants the transport \"{lacking}\", which [path.{name}] does not have"),
        format!("add \"{lacking}\" to `transports` of [path.{name}], or write the gateway without it"),
    );
}
