//! Trace fields: our `Received` line, and how loops are found (RFC 5321 section 4.4 and 6.3).

mod hops;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use hops::{Hops, Passage, fields, hops, received_values};
use jiff::Timestamp;

use crate::{Address, date};

/// Longest value that is repeated; a folded line with it stays far below 998 octets.
const VALUE_MAX: usize = 255;

/// What goes into a `Received` field.
#[derive(Clone, Debug)]
pub struct Received<'a> {
    /// Who handed over: the peer's name.
    pub from: Option<&'a str>,
    /// The peer's address, where the connection has one.
    pub address: Option<IpAddr>,
    /// Our own name.
    pub by: &'a str,
    /// The protocol, `HTTP` or `LMTP` for instance.
    pub with: &'a str,
    /// The message's or exchange's id.
    pub id: &'a str,
    /// The single recipient, where there is only one.
    pub recipient: Option<&'a str>,
    /// When it was accepted.
    pub at: Timestamp,
}

impl Received<'_> {
    /// The field, folded, with its CRLF.
    ///
    /// Whatever the values hold, it is one field: characters that a name cannot have become `?`, and a recipient that is no
    /// address is left out.
    pub fn field(&self) -> String {
        let mut field = String::from("Received:");
        if self.from.is_some() || self.address.is_some() {
            clause(&mut field, "from", self.from.unwrap_or_default());
        }
        if let Some(address) = self.address {
            // An address literal (RFC 5321 section 4.1.3) as comment.
            let tag = if address.is_ipv6() { "IPv6:" } else { "" };
            field.push_str(&format!(" ([{tag}{address}])\r\n"));
        }
        clause(&mut field, "by", self.by);
        clause(&mut field, "with", self.with);
        clause(&mut field, "id", self.id);
        if let Some(recipient) = self.recipient.and_then(|text| Address::parse(text).ok()) {
            field.push_str(" for <");
            field.push_str(recipient.as_str());
            field.push_str(">\r\n");
        }
        // Each clause ends its line; the last one gets the semicolon before the date.
        field.truncate(field.trim_end().len());
        field.push_str(";\r\n ");
        field.push_str(&date::rfc5322(self.at));
        field.push_str("\r\n");
        field
    }
}

fn clause(field: &mut String, name: &str, value: &str) {
    field.push(' ');
    field.push_str(name);
    field.push(' ');
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:[]@/+=".contains(c);
    let before = field.len();
    field.extend(
        value
            .trim()
            .chars()
            .take(VALUE_MAX)
            .map(|c| if allowed(c) { c } else { '?' }),
    );
    if field.len() == before {
        field.push_str("unknown");
    }
    field.push_str("\r\n");
}
