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
mod tests {
    use super::*;

    const OURS: &str = "Received: from mx.earth.example\r\n by relay.earth.example\r\n with ESMTP\r\n id 01;\r\n Sun, 22 Nov 2026 04:05:06 +0000\r\n";
    const DATE: &str = "; Sun, 22 Nov 2026 04:05:06 +0000\r\n";

    fn origin(address: Option<&str>, fields: &[&str]) -> Origin {
        let source = Source {
            address: address.map(|address| address.parse().unwrap()),
            helo: Some("peer.example".into()),
            ..Source::rest()
        };
        let mut headers = OURS.to_owned();
        for field in fields {
            headers.push_str(&format!("Received: {field}{DATE}"));
        }
        headers.push_str("Subject: x\r\n\r\nReceived: from a ([192.0.2.99]) by b; date\r\n");
        let relays = ["127.0.0.0/8", "10.0.0.0/8"].map(|net| net.parse().unwrap());
        Origin::of(&source, &relays, headers.as_bytes())
    }

    fn client(address: &str, helo: &str) -> Origin {
        Origin::Client {
            address: address.parse().unwrap(),
            helo: Some(helo.to_owned()),
        }
    }

    /// As Postfix, Exim and OpenSMTPD write them.
    #[test]
    fn the_client_of_the_last_trusted_relay() {
        let postfix = "from out.example (mail.out.example [192.0.2.7])\r\n\tby mx.earth.example (Postfix) with ESMTPS id 4XyZ\r\n\tfor <b@moon.example>";
        let forged = "from bank.example (bank.example [198.51.100.1])\r\n\tby mx.earth.example (Postfix) with ESMTPSA id 1";
        for (address, fields, expected) in [
            (
                Some("192.0.2.1"),
                vec![postfix],
                client("192.0.2.1", "peer.example"),
            ),
            (
                Some("127.0.0.1"),
                vec![postfix, forged],
                client("192.0.2.7", "out.example"),
            ),
            (None, vec![postfix], client("192.0.2.7", "out.example")),
            (
                Some("127.0.0.1"),
                vec![
                    "from mail.out.example ([192.0.2.8] helo=out.example)\r\n\tby mx.earth.example with esmtps (TLS1.3) tls TLS_AES_256_GCM_SHA384\r\n\t(Exim 4.96)\r\n\t(envelope-from <a@out.example>)\r\n\tid 1oAbCd-0001",
                    forged,
                ],
                client("192.0.2.8", "out.example"),
            ),
            (
                Some("127.0.0.1"),
                vec![
                    "from out.example (mail.out.example [2001:db8::7])\r\n\tby mx.earth.example (OpenSMTPD) with ESMTP id 9af",
                ],
                client("2001:db8::7", "out.example"),
            ),
            // A filter beside the MTA, then a border relay.
            (
                Some("127.0.0.1"),
                vec![
                    "from localhost (localhost [127.0.0.1]) by mx (Postfix) with ESMTP id 2",
                    "from border (border [10.0.0.1]) by mx (Postfix) with ESMTP id 1",
                    postfix,
                    forged,
                ],
                client("192.0.2.7", "out.example"),
            ),
            // A client that calls itself a trusted relay.
            (
                Some("127.0.0.1"),
                vec![
                    "from [10.0.0.1] (rdns.example [192.0.2.66]) by mx (Postfix) with ESMTP id 2",
                    forged,
                ],
                Origin::Client {
                    address: "192.0.2.66".parse().unwrap(),
                    helo: None,
                },
            ),
            (
                Some("127.0.0.1"),
                vec![
                    "from [192.0.2.66] (helo=[10.0.0.1]) by mx with esmtp (Exim 4.96) id 2",
                    forged,
                ],
                Origin::Client {
                    address: "192.0.2.66".parse().unwrap(),
                    helo: None,
                },
            ),
            (
                Some("127.0.0.1"),
                vec![
                    "from rdns.example ([IPv6:2001:db8::66] helo=[127.0.0.1]) by mx with esmtp (Exim 4.96) id 2",
                    forged,
                ],
                Origin::Client {
                    address: "2001:db8::66".parse().unwrap(),
                    helo: None,
                },
            ),
            (
                Some("127.0.0.1"),
                vec![
                    "from me (host [192.0.2.9]) by mx (Postfix) with ESMTPSA id 3",
                    postfix,
                ],
                Origin::Local,
            ),
            (
                Some("127.0.0.1"),
                vec![
                    "by mx.earth.example (Postfix, from userid 1000)\r\n\tid 7",
                    postfix,
                ],
                Origin::Local,
            ),
            (
                Some("127.0.0.1"),
                vec!["from a (a [10.0.0.1]) by b with SMTP id 1"],
                Origin::Local,
            ),
            (
                Some("127.0.0.1"),
                vec!["from nowhere by mx with SMTP id 1", postfix],
                Origin::Unknown,
            ),
            (Some("127.0.0.1"), vec![], Origin::Unknown),
            (None, vec![], Origin::Unknown),
        ] {
            assert_eq!(origin(address, &fields), expected, "{address:?} {fields:?}");
        }
        let many = vec!["from a (a [10.0.0.1]) by b with SMTP id 1"; 200];
        assert_eq!(origin(None, &many), Origin::Local);
    }
}
