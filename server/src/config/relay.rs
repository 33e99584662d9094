//! `[local]`, `[[onward]]`, `[notify]`: the servers that mail is handed to.

use std::{path::PathBuf, sync::Arc, time::Duration};

use lightpost_config::Section;
use lightpost_intake::notify::NoticeSettings;
use lightpost_mail::Address as MailAddress;
use lightpost_queue::{
    LOCAL,
    schedule::{Notices, Policy},
};
use lightpost_smtp::send::{Address, Protocol, StartTls, Target};
use lightpost_transport::tls::{self, TlsError};

use super::{DAY, Pattern, domains, positive, readable};

/// A server that mail is handed to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Relay {
    /// Where it listens.
    pub address: Address,
    /// What it speaks.
    pub protocol: Protocol,
    /// Whether TLS is used.
    pub starttls: StartTls,
    /// CAs that it is verified with; the system's when `None`.
    pub trust: Option<PathBuf>,
    /// Sessions at once.
    pub concurrency: usize,
    /// How long one reply may take.
    pub reply_timeout: Duration,
    /// When a mail that it refused for now is tried again, and how long.
    pub policy: Policy,
    /// When senders hear of late mail, where the operator fixed it.
    pub notices: NoticeSettings,
    helo: String,
}

/// Where mail goes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Onward {
    /// `[local]`
    pub local: Relay,
    /// `[[onward]]`, each with its pattern.
    pub others: Vec<(Pattern, Relay)>,
    /// `[notify]`
    pub notify: Option<Relay>,
}

impl Onward {
    /// Every server: the local one, those of `[[onward]]` in order, the one for notifications.
    pub fn relays(&self) -> Vec<Relay> {
        let others = self.others.iter().map(|(_, relay)| relay);
        std::iter::once(&self.local)
            .chain(others)
            .chain(&self.notify)
            .cloned()
            .collect()
    }

    /// The server that takes mail for a destination.
    pub fn relay(&self, destination: &str) -> &Relay {
        match self.choose(destination) {
            0 => &self.local,
            index => self
                .others
                .get(index - 1)
                .map(|(_, relay)| relay)
                .or(self.notify.as_ref())
                .unwrap_or(&self.local),
        }
    }

    /// Which of [`Onward::relays`] takes mail for a destination: the longest match, else the local one.
    pub fn choose(&self, destination: &str) -> usize {
        if destination == LOCAL {
            return self.notify.as_ref().map_or(0, |_| self.others.len() + 1);
        }
        self.others
            .iter()
            .enumerate()
            .filter_map(|(index, (pattern, _))| Some((pattern.matches(destination)?, index + 1)))
            .max_by_key(|(length, index)| (*length, std::cmp::Reverse(*index)))
            .map_or(0, |(_, index)| index)
    }
}

impl Relay {
    /// When senders hear of mail that waits for this server. They are `away`: as long as a notice may take to reach them. It would be
    /// read too late if the mail waits for less.
    pub fn notices(&self, away: Duration) -> Notices {
        self.notices.notices(self.policy.lifetime, away, Duration::ZERO)
    }

    /// The target for sessions.
    ///
    /// # Errors
    /// When TLS is wanted and the CAs cannot be used.
    pub fn target(&self) -> Result<Target, TlsError> {
        let tls = match self.starttls {
            StartTls::Off => None,
            StartTls::Opportunistic | StartTls::Required => {
                Some(Arc::new(tls::client(self.trust.as_deref(), None, &[])?))
            }
        };
        Ok(Target {
            protocol: self.protocol,
            address: self.address.clone(),
            starttls: self.starttls,
            tls,
            helo: self.helo.clone(),
            reply_timeout: self.reply_timeout,
        })
    }
}

/// Reads all three, and the postmaster's address.
pub(super) fn read(root: &Section<'_>, name: &str) -> Option<(Onward, MailAddress)> {
    let section = root.section("local");
    let local = relay(&section, name, None);
    let postmaster = postmaster(&section, name);
    let mut others = Vec::new();
    for section in root.each("onward") {
        let relay = relay(&section, name, local.as_ref());
        let pattern = section.require::<String>("domain").and_then(|text| {
            let pattern = Pattern::parse(&text);
            if pattern.is_none() {
                domains::wrong(&section, "domain", &text);
            }
            pattern
        });
        if let (Some(pattern), Some(relay)) = (pattern, relay) {
            others.push((pattern, relay));
        }
    }
    let section = root.section("notify");
    let notify = section
        .present()
        .then(|| relay(&section, name, local.as_ref()))
        .flatten();
    let onward = Onward {
        local: local?,
        others,
        notify,
    };
    Some((onward, postmaster?))
}

/// Reads one server; times that it does not name are those of `[local]`.
fn relay(section: &Section<'_>, name: &str, local: Option<&Relay>) -> Option<Relay> {
    section.require::<String>("address");
    let address = section.parse(
        "address",
        "write \"host:port\", such as \"127.0.0.1:25\", or \"unix:/path\"",
        parse_address,
    );
    let protocol = section.parse("protocol", "write \"smtp\" or \"lmtp\"", |text| match text {
        "smtp" => Ok(Protocol::Smtp),
        "lmtp" => Ok(Protocol::Lmtp),
        _ => Err("is not a protocol".into()),
    });
    let choices = "write \"off\", \"opportunistic\" or \"required\"";
    let starttls = section.parse("starttls", choices, |text| match text {
        "off" => Ok(StartTls::Off),
        "opportunistic" => Ok(StartTls::Opportunistic),
        "required" => Ok(StartTls::Required),
        _ => Err("is not a choice".into()),
    });
    let above = local.map(|local| &local.policy);
    let span = |key, value: Option<Duration>, default: u64| {
        let default = value.unwrap_or(Duration::from_secs(default));
        positive(section, key, section.get_or(key, default))
    };
    let first = span("retry_first", above.map(|policy| policy.first), 30);
    let longest = span("retry_longest", above.map(|policy| policy.longest), 1800);
    if longest < first {
        section.wrong(
            "retry_longest",
            "is shorter than retry_first".into(),
            "write the longest wait between two attempts".into(),
        );
    }
    let reply_timeout = span("reply_timeout", local.map(|local| local.reply_timeout), 300);
    let lifetime = span("lifetime", above.map(|policy| policy.lifetime), 5 * DAY.as_secs());
    let notices = NoticeSettings::read(section, local.map(|local| local.notices).unwrap_or_default());
    let concurrency = section.get_or("concurrency", local.map_or(20, |local| local.concurrency));
    Some(Relay {
        protocol: protocol.unwrap_or(Protocol::Smtp),
        starttls: starttls.unwrap_or(StartTls::Off),
        trust: readable(section, "trust"),
        concurrency: positive(section, "concurrency", concurrency),
        reply_timeout,
        notices,
        policy: Policy {
            first,
            longest,
            factor: 2.0,
            lifetime,
            reply: reply_timeout,
        },
        helo: name.to_owned(),
        address: address?,
    })
}

fn postmaster(section: &Section<'_>, name: &str) -> Option<MailAddress> {
    if section.get::<String>("postmaster").is_none() {
        return MailAddress::parse(&format!("postmaster@{name}")).ok();
    }
    section.parse("postmaster", "write an address without brackets", |text| {
        MailAddress::parse(text).map_err(|error| error.to_string())
    })
}

fn parse_address(text: &str) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.starts_with('/') {
            Ok(Address::Unix(PathBuf::from(path)))
        } else {
            Err("the path of the socket does not begin with /".into())
        };
    }
    let (host, port) = text.rsplit_once(':').ok_or("has no port")?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let port: u16 = port.parse().map_err(|_| "the port is not a number up to 65535")?;
    if host.is_empty() || port == 0 {
        return Err("the host or the port is missing".into());
    }
    Ok(Address::Tcp(host.to_owned(), port))
}
