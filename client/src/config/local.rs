//! `[local]`: the MTA that notifications are handed to.

use std::{path::PathBuf, sync::Arc, time::Duration};

use lightpost_config::Section;
use lightpost_mail::Address as MailAddress;
use lightpost_smtp::send::{Address, Protocol, StartTls, Target};
use lightpost_transport::tls::{self, TlsError};

use super::{Tls, span};

/// `[local]`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Local {
    /// Where it listens.
    pub address: Address,
    /// What it speaks.
    pub protocol: Protocol,
    /// Whether TLS is used.
    pub starttls: StartTls,
    /// Who is told about mail without a reverse-path.
    pub postmaster: MailAddress,
    /// How long a notification is tried.
    pub lifetime: Duration,
    /// How long one reply may take.
    pub reply_timeout: Duration,
    helo: String,
    trust: Option<PathBuf>,
}

impl Local {
    /// The target for a session.
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

/// Reads the section.
pub(super) fn read(section: &Section<'_>, name: &str, tls: &Tls) -> Option<Local> {
    section.require::<String>("address");
    let address = section.parse(
        "address",
        "write \"host:port\", such as \"127.0.0.1:25\", or \"unix:/path\"",
        parse_address,
    );
    let protocol = section
        .parse("protocol", "write \"smtp\" or \"lmtp\"", |text| match text {
            "smtp" => Ok(Protocol::Smtp),
            "lmtp" => Ok(Protocol::Lmtp),
            _ => Err("is not a protocol".into()),
        })
        .unwrap_or(Protocol::Smtp);
    let starttls = section
        .parse(
            "starttls",
            "write \"off\", \"opportunistic\" or \"required\"",
            |text| match text {
                "off" => Ok(StartTls::Off),
                "opportunistic" => Ok(StartTls::Opportunistic),
                "required" => Ok(StartTls::Required),
                _ => Err("is not a choice".into()),
            },
        )
        .unwrap_or(StartTls::Off);
    let postmaster = section.parse("postmaster", "write an address without brackets", |text| {
        MailAddress::parse(text).map_err(|error| error.to_string())
    });
    let given = section.get::<String>("postmaster").is_some();
    let postmaster = match postmaster {
        None if !given => MailAddress::parse(&format!("postmaster@{name}")).ok(),
        postmaster => postmaster,
    };
    let lifetime = span(section, "lifetime", Duration::from_secs(5 * 86_400));
    let reply_timeout = span(section, "reply_timeout", Duration::from_secs(300));
    Some(Local {
        address: address?,
        protocol,
        starttls,
        postmaster: postmaster?,
        lifetime,
        reply_timeout,
        helo: name.to_owned(),
        trust: tls.trust.clone(),
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
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port: u16 = port.parse().map_err(|_| "the port is not a number up to 65535")?;
    if host.is_empty() || port == 0 {
        return Err("the host or the port is missing".into());
    }
    Ok(Address::Tcp(host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("127.0.0.1:25", Some(Address::Tcp("127.0.0.1".into(), 25))),
            ("[::1]:24", Some(Address::Tcp("::1".into(), 24))),
            ("mx.example:2525", Some(Address::Tcp("mx.example".into(), 2525))),
            ("unix:/run/lmtp", Some(Address::Unix("/run/lmtp".into()))),
            ("unix:run", None),
            ("mx.example", None),
            (":25", None),
            ("mx:0", None),
            ("mx:70000", None),
        ] {
            assert_eq!(parse_address(text).ok(), expected, "{text}");
        }
    }
}
