//! `submit -t`: recipients from the mail's own header fields, as programs expect that call sendmail.

use std::ops::Range;

use mail_parser::{Address, MessageParser};

/// What a header section says about its mail's envelope.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// The only address in From.
    pub(crate) sender: Option<String>,
    /// The addresses in To, Cc and Bcc, in order, each once.
    pub(crate) recipients: Vec<String>,
    /// Where Bcc fields stand: they are for nobody's eyes (RFC 5322 section 3.6.3).
    pub(crate) bcc: Vec<Range<usize>>,
}

/// Reads the header section at the start of `mail`; `None` when its end is not there.
pub(crate) fn read(mail: &[u8], whole: bool) -> Option<Envelope> {
    let end = section_end(mail).or_else(|| whole.then_some(mail.len()))?;
    let section = mail.get(..end).unwrap_or_default();
    let mut envelope = Envelope {
        bcc: fields(section)
            .into_iter()
            .filter(|field| is_bcc(section.get(field.clone()).unwrap_or_default()))
            .collect(),
        ..Envelope::default()
    };
    let Some(parsed) = MessageParser::new().parse_headers(section) else {
        return Some(envelope);
    };
    let named = [parsed.to(), parsed.cc(), parsed.bcc()];
    for address in named.into_iter().flatten().flat_map(addresses) {
        if !envelope.recipients.contains(&address) {
            envelope.recipients.push(address);
        }
    }
    if let Some([only]) = parsed.from().map(addresses).as_deref() {
        envelope.sender = Some(only.clone());
    }
    Some(envelope)
}

/// The mail without its Bcc fields.
pub(crate) fn without(mail: &[u8], fields: &[Range<usize>]) -> Vec<u8> {
    let mut rest = Vec::with_capacity(mail.len());
    let mut from = 0;
    for field in fields {
        rest.extend_from_slice(mail.get(from..field.start).unwrap_or_default());
        from = field.end;
    }
    rest.extend_from_slice(mail.get(from..).unwrap_or_default());
    rest
}

fn addresses(field: &Address<'_>) -> Vec<String> {
    field
        .iter()
        .filter_map(|one| one.address.as_deref())
        .map(|address| format!("<{address}>"))
        .collect()
}

/// Where the empty line behind the header section begins.
fn section_end(mail: &[u8]) -> Option<usize> {
    if mail.starts_with(b"\n") || mail.starts_with(b"\r\n") {
        return Some(0);
    }
    let behind = |ends: &[u8]| mail.windows(ends.len()).position(|window| window == ends);
    match (behind(b"\n\n"), behind(b"\n\r\n")) {
        (Some(lf), Some(crlf)) => Some(lf.min(crlf) + 1),
        (lf, crlf) => lf.or(crlf).map(|at| at + 1),
    }
}

/// Where the fields stand, each with its folded lines.
fn fields(section: &[u8]) -> Vec<Range<usize>> {
    let mut fields: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    for line in section.split_inclusive(|octet| *octet == b'\n') {
        let end = start + line.len();
        match fields.last_mut() {
            Some(field) if matches!(line.first(), Some(b' ' | b'\t')) => field.end = end,
            _ => fields.push(start..end),
        }
        start = end;
    }
    fields
}

fn is_bcc(field: &[u8]) -> bool {
    let name = field.split(|octet| *octet == b':').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(b"bcc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_come_from_to_cc_and_bcc_and_bcc_goes() {
        let mail = "From: Alice <a@earth.example>\nBcc: secret@moon.example,\n\tc@moon.example\nTo: \"Bob, the second\" <b@moon.example>,\n \
            Crew: d@moon.example, Eve (at work) <e@moon.example>;\nCC: b@moon.example, =?utf-8?q?J=C3=B6rg?= <j@moon.example>\nSubject: Bcc: x\n\nTo: nobody@moon.example\n";
        for mail in [mail.to_owned(), mail.replace('\n', "\r\n")] {
            let read = read(mail.as_bytes(), false).unwrap();
            assert_eq!(read.sender.as_deref(), Some("<a@earth.example>"));
            let names: Vec<&str> = read
                .recipients
                .iter()
                .filter_map(|text| text.split('@').next())
                .collect();
            assert_eq!(names, ["<b", "<d", "<e", "<j", "<secret", "<c"]);
            let rest = String::from_utf8(without(mail.as_bytes(), &read.bcc)).unwrap();
            assert!(!rest.contains("secret") && !rest.contains("\tc@"), "{rest}");
            assert!(
                rest.contains("Subject: Bcc: x") && rest.contains("To: nobody"),
                "{rest}"
            );
            assert_eq!(rest.lines().count(), mail.lines().count() - 2);
        }
    }

    #[test]
    fn the_section_must_end() {
        assert_eq!(read(b"To: a@b.example\n", false), None);
        assert_eq!(
            read(b"To: a@b.example\n", true).unwrap().recipients,
            ["<a@b.example>"]
        );
        assert_eq!(read(b"\nTo: a@b.example\n", false).unwrap(), Envelope::default());
        assert_eq!(read(b"", true).unwrap(), Envelope::default());
        let two = read(b"From: a@b.example, c@d.example\n\n", false).unwrap();
        assert_eq!(two.sender, None);
    }
}
