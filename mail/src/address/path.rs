//! Paths: an address in angle brackets, perhaps behind a source route (RFC 5321 section 4.1.2 and appendix C).

use super::{Address, AddressError, grammar};

/// Reads a path from the start of `text`; returns what stands between its brackets and what follows it.
///
/// A `>` or a space inside a quoted local part does not end the path.
pub(crate) fn split(text: &str) -> Result<(&str, &str), AddressError> {
    let inner = text.strip_prefix('<').ok_or(AddressError::Brackets)?;
    let (mut quoted, mut escaped) = (false, false);
    for (position, octet) in inner.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => {
                return Ok((
                    inner.get(..position).unwrap_or_default(),
                    inner.get(position + 1..).unwrap_or_default(),
                ));
            }
            _ => {}
        }
    }
    Err(if quoted {
        AddressError::UnclosedQuote
    } else {
        AddressError::Brackets
    })
}

/// Reads what stands between the brackets. A source route is taken and dropped: RFC 5321 section 4.1.1.3 wants it ignored.
pub(crate) fn address(inner: &str) -> Result<Address, AddressError> {
    if !inner.starts_with('@') {
        return Address::parse(inner);
    }
    // A route holds plain domains only, so the first colon ends it unless a literal (with colons of its own) stands in it.
    let mut rest = inner;
    loop {
        let hop = rest.strip_prefix('@').ok_or(AddressError::SourceRoute)?;
        let from = if hop.starts_with('[') {
            hop.find(']').ok_or(AddressError::SourceRoute)?
        } else {
            0
        };
        let end = hop
            .get(from..)
            .and_then(|tail| tail.find([',', ':']))
            .ok_or(AddressError::SourceRoute)?
            + from;
        let (domain, tail) = hop.split_at_checked(end).ok_or(AddressError::SourceRoute)?;
        grammar::domain(domain).map_err(|_| AddressError::SourceRoute)?;
        match tail.strip_prefix(':') {
            Some(mailbox) => return Address::parse(mailbox),
            None => rest = tail.strip_prefix(',').ok_or(AddressError::SourceRoute)?,
        }
    }
}
