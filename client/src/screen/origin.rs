//! Who brought a mail to us: the client whose address SPF and Rspamd want to know.
//!
//! Behind a local MTA that is not our peer but the MTA's, and its trace field names it. Only the topmost field is the MTA's own
//! word, so only that is read; where it names a relay that is trusted, too (a filter beside the MTA, a border relay), the next one is that
//! relay's word.

use std::net::IpAddr;

use ipnet::IpNet;
use lightpost_mail::trace::received_values;
use mail_parser::{Host, Protocol, Received, parsers::MessageStream};

use crate::accept::Source;

/// Relays on the way to us at most; more are not believed.
const MOST: usize = 10;

/// Where a mail comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An SMTP client outside.
    Client {
        /// Its address.
        address: IpAddr,
        /// What it calls itself.
        helo: Option<String>,
    },
    /// A trusted relay's own host, or somebody who has authenticated to it.
    Local,
    /// Nobody who is trusted says.
    Unknown,
}

impl Origin {
    /// Of a mail with these header fields, the first of which is ours.
    pub(super) fn of(source: &Source, relays: &[IpNet], headers: &[u8]) -> Self {
        let trusted = |address: &IpAddr| relays.iter().any(|net| net.contains(address));
        if let Some(address) = source.address.filter(|address| !trusted(address)) {
            return Self::Client {
                address,
                helo: source.helo.clone(),
            };
        }
        let fields = received_values(headers).skip(1).take(MOST);
        let mut any = false;
        for field in fields {
            any = true;
            let value = MessageStream::new(field).parse_received().into_received();
            let Some(received) = value else {
                return Self::Unknown;
            };
            if received.with.is_some_and(is_authenticated) {
                return Self::Local;
            }
            match client(field, &received) {
                Some((address, helo)) if !trusted(&address) => return Self::Client { address, helo },
                Some(_) => {}
                // Without `from` before anything else the mail began there.
                None if !begins_with_from(field) => return Self::Local,
                None => return Self::Unknown,
            }
        }
        // The last relay that is trusted was the first of all; without any trace a program made the mail.
        if any { Self::Local } else { Self::Unknown }
    }
}

fn client(field: &[u8], received: &Received<'_>) -> Option<(IpAddr, Option<String>)> {
    let name = |host: &Host<'_>| match host {
        Host::Name(name) => Some(name.to_string()),
        Host::IpAddr(_) => None,
    };
    let helo = received.helo.as_ref().or(received.from.as_ref()).and_then(name);
    Some((address(field)?, helo))
}

/// The address that the relay saw: the first literal in a comment (Postfix, Sendmail, OpenSMTPD; Exim beside a name), else one that stands for
/// the name (Exim without one). What the client calls itself may be a literal, too, and is its own word: the name before Postfix' comment,
/// Exim's `helo=`.
fn address(field: &[u8]) -> Option<IpAddr> {
    let text = String::from_utf8_lossy(field);
    let (mut depth, mut before, mut named) = (0_usize, ' ', None);
    for (position, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ';' if depth == 0 => break,
            '[' => {
                let literal = text.get(position + 1..).and_then(literal);
                match literal {
                    Some(address) if depth > 0 && before != '=' => return Some(address),
                    Some(address) if depth == 0 => named = named.or(Some(address)),
                    _ => {}
                }
            }
            _ => {}
        }
        before = c;
    }
    named
}

fn literal(text: &str) -> Option<IpAddr> {
    let inner = text.split_once(']')?.0;
    let bare = inner.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:"));
    inner.get(bare.map_or(0, str::len)..)?.parse().ok()
}

fn begins_with_from(field: &[u8]) -> bool {
    let word = field.trim_ascii_start().get(..4);
    word.is_some_and(|word| word.eq_ignore_ascii_case(b"from"))
}

/// RFC 3848 and RFC 6531: the A says that the client has authenticated.
fn is_authenticated(protocol: Protocol) -> bool {
    use Protocol::*;
    matches!(
        protocol,
        ESMTPA | ESMTPSA | LMTPA | LMTPSA | UTF8SMTPA | UTF8SMTPSA | UTF8LMTPA | UTF8LMTPSA
    )
}

#[cfg(test)]
mod tests;
