//! The grammar of a mailbox, character by character (RFC 5321 section 4.1.2 and 4.1.3 with RFC 6531 section 3.3).

use std::net::{Ipv4Addr, Ipv6Addr};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use super::AddressError;

const LOCAL_MAX: usize = 64;
const DOMAIN_MAX: usize = 255;
const MAILBOX_MAX: usize = 254;
const LABEL_MAX: usize = 63;

/// Checks `text` and returns where its `@` stands.
pub(super) fn mailbox(text: &str) -> Result<usize, AddressError> {
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    if let Some(control) = text.chars().find(|c| is_control(*c)) {
        return Err(AddressError::Control(control));
    }
    let at = if text.starts_with('"') {
        quoted_local_part(text)?
    } else {
        dot_string(text)?
    };
    if at > LOCAL_MAX {
        return Err(AddressError::LocalTooLong(at));
    }
    domain(text.get(at + 1..).unwrap_or_default())?;
    if text.len() > MAILBOX_MAX {
        return Err(AddressError::TooLong(text.len()));
    }
    Ok(at)
}

/// Control characters of ASCII and C1, and what Unicode counts as line ends: nothing that could end a line anywhere.
pub(crate) fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Reads a quoted string from the start of `text`; returns the position of the `@` behind it.
fn quoted_local_part(text: &str) -> Result<usize, AddressError> {
    let mut characters = text.char_indices().skip(1);
    while let Some((position, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                // quoted-pairSMTP is ASCII only.
                Some((_, escaped)) if !escaped.is_ascii() => {
                    return Err(AddressError::LocalCharacter(escaped));
                }
                Some(_) => {}
                None => return Err(AddressError::UnclosedQuote),
            },
            '"' => {
                return match text.get(position + 1..).and_then(|rest| rest.chars().next()) {
                    Some('@') => Ok(position + 1),
                    Some(_) => Err(AddressError::AfterQuote),
                    None => Err(AddressError::NoDomain),
                };
            }
            _ => {}
        }
    }
    Err(AddressError::UnclosedQuote)
}

/// Reads a dot-string from the start of `text`; returns the position of the `@` behind it.
fn dot_string(text: &str) -> Result<usize, AddressError> {
    let Some(at) = text.find('@') else {
        return Err(if text.eq_ignore_ascii_case("postmaster") {
            AddressError::Postmaster
        } else {
            AddressError::NoDomain
        });
    };
    let local = text.get(..at).unwrap_or_default();
    if local.is_empty() {
        return Err(AddressError::NoLocalPart);
    }
    for atom in local.split('.') {
        if atom.is_empty() {
            return Err(AddressError::LocalDot);
        }
        if let Some(character) = atom.chars().find(|c| !is_atext(*c)) {
            return Err(AddressError::LocalCharacter(character));
        }
    }
    Ok(at)
}

/// `atext` of RFC 5322 section 3.2.3, extended by RFC 6531 to everything beyond ASCII that is not a space.
pub(crate) fn is_atext(c: char) -> bool {
    if c.is_ascii() {
        c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
    } else {
        !c.is_whitespace() && !is_control(c)
    }
}

/// Checks a domain or an address literal.
pub(super) fn domain(domain: &str) -> Result<(), AddressError> {
    if domain.is_empty() {
        return Err(AddressError::NoDomain);
    }
    if domain.len() > DOMAIN_MAX {
        return Err(AddressError::DomainTooLong(domain.len()));
    }
    if domain.starts_with('[') {
        return literal(domain);
    }
    if domain.is_ascii() {
        return labels(domain);
    }
    let spaced = domain.chars().find(|c| c.is_whitespace() || is_control(*c));
    if let Some(character) = spaced {
        return Err(AddressError::DomainCharacter(character));
    }
    labels(&to_ascii(domain).ok_or(AddressError::Idna)?)
}

/// Checks a domain of letters, digits and hyphens. One trailing dot, the DNS root, is let pass: it does not change the host.
fn labels(domain: &str) -> Result<(), AddressError> {
    let absolute = domain.strip_suffix('.').unwrap_or(domain);
    if absolute.len() > DOMAIN_MAX {
        return Err(AddressError::DomainTooLong(absolute.len()));
    }
    for label in absolute.split('.') {
        if label.is_empty() {
            return Err(AddressError::EmptyLabel);
        }
        if let Some(character) = label.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
            return Err(AddressError::DomainCharacter(character));
        }
        if label.len() > LABEL_MAX {
            return Err(AddressError::LabelTooLong(label.len()));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(AddressError::Hyphen);
        }
    }
    Ok(())
}

/// Checks `[192.0.2.1]` and `[IPv6:2001:db8::1]`. Other tags are reserved for a registry that has none (RFC 5321 section 8).
fn literal(domain: &str) -> Result<(), AddressError> {
    let inner = domain
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .ok_or(AddressError::Literal)?;
    let valid = match inner.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("ipv6:") => address.parse::<Ipv6Addr>().is_ok(),
        _ => inner.parse::<Ipv4Addr>().is_ok(),
    };
    if valid { Ok(()) } else { Err(AddressError::Literal) }
}

fn to_ascii(domain: &str) -> Option<String> {
    Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            DnsLength::VerifyAllowRootDot,
        )
        .ok()
        .map(std::borrow::Cow::into_owned)
}

/// The routing key of a domain that was checked before.
pub(super) fn destination(domain: &str) -> String {
    let mut key = if domain.is_ascii() {
        domain.to_ascii_lowercase()
    } else {
        to_ascii(domain).unwrap_or_else(|| domain.to_lowercase())
    };
    if key.ends_with('.') {
        key.pop();
    }
    key
}
