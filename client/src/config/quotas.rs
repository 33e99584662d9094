//! `[[quota]]`: how much a sender, or everybody together to a destination, may send in a day.

use lightpost_config::{Section, Size};
use lightpost_mail::Address;

use super::{Pattern, positive};

/// `[[quota]]`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Quota {
    /// Whom it is for.
    pub whom: Whom,
    /// Messages of a UTC day at most.
    pub messages: Option<u64>,
    /// Octets of a UTC day at most.
    pub octets: Option<u64>,
    /// Whether mail beyond it is refused for good instead of for today.
    pub refuse: bool,
}

/// Whom a quota is for. Each address and each destination has an allowance of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// This reverse-path; its domain as a routing key.
    Sender(String),
    /// Each reverse-path of these domains.
    Senders(Pattern),
    /// Each of these destinations.
    Destinations(Pattern),
}

/// Reads every `[[quota]]`.
pub(super) fn read(root: &Section<'_>) -> Vec<Quota> {
    let mut quotas: Vec<Quota> = Vec::new();
    for section in root.each("quota") {
        let Some(quota) = one(&section) else { continue };
        if quotas.iter().any(|other| other.whom == quota.whom) {
            let key = match quota.whom {
                Whom::Destinations(_) => "destination",
                Whom::Sender(_) | Whom::Senders(_) => "sender",
            };
            section.wrong(
                key,
                "is that of an earlier quota".into(),
                "remove one of them".into(),
            );
        }
        quotas.push(quota);
    }
    quotas
}

fn one(section: &Section<'_>) -> Option<Quota> {
    let sender = section.parse(
        "sender",
        "write an address, a domain, \"*.earth.example\" for all below it, or \"*\"",
        |text| match (Pattern::parse(text), Address::parse(text)) {
            (Some(pattern), _) => Ok(Whom::Senders(pattern)),
            (None, Ok(address)) => Ok(Whom::Sender(key(&address))),
            (None, Err(error)) => Err(error.to_string()),
        },
    );
    let destination = section.parse(
        "destination",
        "write a domain, \"*.moon.example\" for all below it, or \"*\"",
        |text| {
            Pattern::parse(text)
                .map(Whom::Destinations)
                .ok_or_else(|| "is not a domain".to_owned())
        },
    );
    let named = ["sender", "destination"].map(|name| section.get::<String>(name).is_some());
    if named[0] == named[1] {
        section.wrong(
            "sender",
            "a quota is for a sender or for a destination".into(),
            "write exactly one of `sender` and `destination`; \"*\" is each of them".into(),
        );
    }
    let messages = section
        .get::<u64>("messages")
        .map(|most| positive(section, "messages", most));
    let octets = section
        .get::<Size>("octets")
        .map(|most| positive(section, "octets", most.0));
    if messages.is_none() && octets.is_none() && section.get::<String>("octets").is_none() {
        section.wrong(
            "messages",
            "nothing is limited".into(),
            "set `messages`, `octets`, or both".into(),
        );
    }
    let refuse = section
        .parse("exceeded", "write \"defer\" or \"refuse\"", |text| match text {
            "defer" => Ok(false),
            "refuse" => Ok(true),
            _ => Err("is not a choice".into()),
        })
        .unwrap_or(false);
    Some(Quota {
        whom: sender.or(destination)?,
        messages,
        octets,
        refuse,
    })
}

/// The name under which a sender is counted: the local part in lower case, so that its spelling does not multiply the allowance.
pub(crate) fn key(address: &Address) -> String {
    format!(
        "{}@{}",
        address.local_part().to_lowercase(),
        address.destination()
    )
}

impl Pattern {
    /// How well it fits a destination: longer is better, and an exact domain is better than everything below a shorter one.
    pub(crate) fn fits(&self, destination: &str) -> Option<usize> {
        match self {
            Self::Any => Some(0),
            Self::Domain(domain) => (domain == destination).then_some(usize::MAX - 1),
            Self::Below(domain) => destination
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.ends_with('.'))
                .then_some(domain.len()),
        }
    }
}
