//! xtext (RFC 3461 section 4) and utf-8-addr-xtext (RFC 6533 section 3): how free text travels in a parameter.

use std::fmt::Write;

use crate::address::is_control;

/// Encodes as xtext: printable ASCII but `+` and `=` as itself, every other octet as `+` and two hexadecimal digits.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        if matches!(octet, b'!'..=b'~') && !matches!(octet, b'+' | b'=') {
            out.push(char::from(octet));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "+{octet:02X}");
        }
    }
    out
}

/// Decodes xtext. `None` for what is no xtext, is not UTF-8 or holds control characters.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        match octet {
            b'+' => {
                let (high, low) = (hex(rest.next()?)?, hex(rest.next()?)?);
                octets.push(high << 4 | low);
            }
            b'=' => return None,
            b'!'..=b'~' => octets.push(octet),
            _ => return None,
        }
    }
    String::from_utf8(octets)
        .ok()
        .filter(|text| !text.chars().any(is_control))
}

/// RFC 3461 wants upper case; lower case is read too, since senders write it.
fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Whether an address type may hold the character: an atom of RFC 5322.
pub(super) fn is_type_character(c: char) -> bool {
    c.is_ascii() && crate::address::is_atext(c)
}

fn is_utf8_type(kind: &str) -> bool {
    kind.eq_ignore_ascii_case("utf-8")
}

/// Encodes an ORCPT address; always ASCII, so that it needs no SMTPUTF8.
pub(super) fn encode_address(kind: &str, address: &str) -> String {
    if !is_utf8_type(kind) {
        return encode(address);
    }
    let mut out = String::with_capacity(address.len());
    for character in address.chars() {
        if character.is_ascii_graphic() && !matches!(character, '+' | '=' | '\\') {
            out.push(character);
        } else {
            let _ = write!(out, "\\x{{{:02X}}}", u32::from(character));
        }
    }
    out
}

/// Decodes an ORCPT address: utf-8-addr-xtext or utf-8-addr-unitext for the type `utf-8`, else xtext.
pub(super) fn decode_address(kind: &str, text: &str) -> Option<String> {
    if !is_utf8_type(kind) {
        return decode(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if let Some(tail) = rest.strip_prefix("\\x{") {
            let (digits, tail) = tail.split_once('}')?;
            if digits.is_empty() || digits.len() > 6 || !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
                return None;
            }
            out.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
            rest = tail;
        } else {
            let plain = !character.is_ascii() || character.is_ascii_graphic();
            if !plain || matches!(character, '+' | '=' | '\\') {
                return None;
            }
            out.push(character);
            rest = rest.get(character.len_utf8()..)?;
        }
    }
    Some(out).filter(|text| !text.chars().any(is_control))
}
