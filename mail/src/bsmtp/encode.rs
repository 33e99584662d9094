//! The generator: strict output, one transaction per object.

use std::fmt::Write;

use crate::{
    Envelope,
    envelope::{Body, MailParameters},
    lines::BodyFacts,
};

/// What stands in EHLO when the given name holds nothing that may.
const NAMELESS: &str = "localhost";

/// The parameters of MAIL that an object carries: those of the envelope, with `SIZE` set, and `BODY` and `SMTPUTF8` where
/// the body or the addresses need them and nowhere else. The time of `BY` is the caller's business: in an object it counts from the begin of the exchange.
pub fn parameters(envelope: &Envelope, facts: &BodyFacts) -> MailParameters {
    let mut parameters = envelope.sender.parameters.clone();
    parameters.size = Some(facts.size);
    // BODY=7BIT says nothing that is not so without it, and would need the extension.
    parameters.body = facts.eight_bit.then_some(Body::EightBitMime);
    // Raw 8-bit headers without SMTPUTF8 are old and common; a local MTA that lacks SMTPUTF8 takes them as it always did,
    // but would refuse them if we asked for more than their sender did.
    // Who asked for it and then used nothing of it needs it no more.
    let asked = parameters.smtputf8 && facts.eight_bit;
    parameters.smtputf8 = asked || envelope.has_international_address();
    parameters
}

/// The commands before the body: EHLO, MAIL, RCPT, DATA. `SIZE` is set from `facts`, `BODY` and `SMTPUTF8` are added where the body or
/// the addresses need them. Then follow the stuffed canonical body ([`crate::lines::Stuffer`]) and [`TAIL`].
pub fn head(name: &str, envelope: &Envelope, facts: &BodyFacts) -> Vec<u8> {
    let mut head = String::with_capacity(128 + 64 * envelope.recipients.len());
    let name: String = name.chars().filter(char::is_ascii_graphic).collect();
    let name = if name.is_empty() { NAMELESS } else { &name };
    // Writing to a String cannot fail.
    let _ = write!(
        head,
        "EHLO {name}\r\nMAIL FROM:<{}>{}\r\n",
        envelope.sender.path,
        parameters(envelope, facts)
    );
    for recipient in &envelope.recipients {
        let _ = write!(head, "RCPT TO:{recipient}\r\n");
    }
    head.push_str("DATA\r\n");
    head.into_bytes()
}

/// What ends an object after its body: the final dot and QUIT.
pub const TAIL: &[u8] = b".\r\nQUIT\r\n";

/// The value of `required-extensions` for the object that [`head`] starts: the keywords that it uses, in fixed order.
///
/// It is never empty and never left out: an absent parameter would require DSN (RFC 2442 section 2).
pub fn required_extensions(envelope: &Envelope, facts: &BodyFacts) -> String {
    let parameters = parameters(envelope, facts);
    // SMTPUTF8 may only be offered together with 8BITMIME (RFC 6531 section 3.1), so it requires both.
    let eight_bit = parameters.body.is_some() || parameters.smtputf8;
    [
        ("8bitMIME", eight_bit),
        ("SIZE", true),
        ("DSN", envelope.uses_dsn()),
        ("SMTPUTF8", parameters.smtputf8),
        ("MT-PRIORITY", parameters.mt_priority.is_some()),
        ("DELIVERBY", parameters.deliver_by.is_some()),
    ]
    .into_iter()
    .filter_map(|(keyword, used)| used.then_some(keyword))
    .collect::<Vec<_>>()
    .join(",")
}

#[cfg(test)]
mod tests;
