//! The text of MAIL and RCPT for what a server offers.

use std::io::Write as _;

use lightpost_mail::{
    Envelope, Recipient,
    envelope::{Body, MailParameters},
    lines::BodyFacts,
};

use crate::Capabilities;

/// Appends `MAIL FROM:`. Parameters that the server does not offer are left out; those of DSN are never invented (RFC 3461
/// section 5.2); SIZE is that of the mail as it is now.
pub(super) fn mail(out: &mut Vec<u8>, envelope: &Envelope, facts: &BodyFacts, offered: &Capabilities) {
    let given = &envelope.sender.parameters;
    let parameters = MailParameters {
        body: body(given.body, facts.eight_bit, offered),
        size: offered.size.map(|_| facts.size),
        smtputf8: offered.smtputf8 && envelope.needs_smtputf8(),
        ret: given.ret.filter(|_| offered.dsn),
        envid: given.envid.clone().filter(|_| offered.dsn),
        mt_priority: given.mt_priority.filter(|_| offered.mt_priority),
        // Counted from the moment at which it was received, so it would be wrong by now.
        deliver_by: None,
    };
    // Writing to a Vec cannot fail.
    let _ = write!(out, "MAIL FROM:<{}>{parameters}\r\n", envelope.sender.path);
}

/// Appends `RCPT TO:`.
pub(super) fn rcpt(out: &mut Vec<u8>, recipient: &Recipient, offered: &Capabilities) {
    let _ = if offered.dsn {
        write!(out, "RCPT TO:{recipient}\r\n")
    } else {
        write!(out, "RCPT TO:<{}>\r\n", recipient.address)
    };
}

fn body(given: Option<Body>, eight_bit: bool, offered: &Capabilities) -> Option<Body> {
    if !offered.eight_bit_mime {
        return None;
    }
    if eight_bit {
        Some(Body::EightBitMime)
    } else {
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            sender: "<a@b.example> BODY=7BIT SIZE=1 RET=HDRS ENVID=x+2B1 MT-PRIORITY=3"
                .parse()
                .unwrap(),
            recipients: vec![
                "<c@d.example> NOTIFY=NEVER ORCPT=rfc822;c@e.example"
                    .parse()
                    .unwrap(),
            ],
        }
    }

    fn text(envelope: &Envelope, facts: &BodyFacts, offered: &Capabilities) -> String {
        let mut out = Vec::new();
        mail(&mut out, envelope, facts, offered);
        rcpt(&mut out, &envelope.recipients[0], offered);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn parameters_follow_the_offer() {
        let facts = BodyFacts {
            size: 77,
            eight_bit: true,
            ..BodyFacts::default()
        };
        let none = Capabilities::default();
        let cases = [
            (none, "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"),
            (
                Capabilities {
                    size: Some(0),
                    eight_bit_mime: true,
                    mt_priority: true,
                    smtputf8: true,
                    ..none
                },
                "MAIL FROM:<a@b.example> BODY=8BITMIME SIZE=77 MT-PRIORITY=3\r\nRCPT TO:<c@d.example>\r\n",
            ),
            (
                Capabilities { dsn: true, ..none },
                "MAIL FROM:<a@b.example> RET=HDRS ENVID=x+2B1\r\n\
                 RCPT TO:<c@d.example> NOTIFY=NEVER ORCPT=rfc822;c@e.example\r\n",
            ),
        ];
        for (offered, expected) in cases {
            assert_eq!(text(&envelope(), &facts, &offered), expected, "{offered:?}");
        }
    }

    #[test]
    fn smtputf8_where_needed() {
        let offered = Capabilities {
            smtputf8: true,
            ..Capabilities::default()
        };
        let mut envelope = envelope();
        envelope.recipients[0] = "<ç@d.example>".parse().unwrap();
        let text = text(&envelope, &BodyFacts::default(), &offered);
        assert_eq!(
            text,
            "MAIL FROM:<a@b.example> SMTPUTF8\r\nRCPT TO:<ç@d.example>\r\n"
        );
    }
}
