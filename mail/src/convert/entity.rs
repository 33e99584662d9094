//! What the header section of a mail or of a part says, as far as conversion wants to know; and writing it anew.

use mail_parser::{MessageParser, MimeHeaders};

/// A mail or a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entity {
    pub(super) kind: Kind,
    /// Whether it is signed or encrypted, or within what is (RFC 1847).
    pub(super) signed: bool,
    /// Whether it says how it is encoded.
    pub(super) is_labelled: bool,
    pub(super) has_dkim: bool,
}

/// How an entity's body is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Parts between these boundaries.
    Multipart {
        boundary: Vec<u8>,
        /// Whether parts are mails unless they say otherwise.
        digest: bool,
        signed: bool,
    },
    /// A mail (`message/rfc822`).
    Message,
    /// Text that may be encoded.
    Text,
    /// Anything else that may be encoded.
    Binary,
    /// What may not be encoded, or is already; and what it is called.
    Fixed(String),
}

impl Entity {
    /// Reads a header section. `digest`: in a `multipart/digest`; `signed`: within what is signed.
    pub(super) fn read(header: &[u8], digest: bool, signed: bool) -> Self {
        let field = |name: &str| fields(header).find(|field| is(field, name));
        let encoding = field("content-transfer-encoding")
            .map(value)
            .unwrap_or_default()
            .to_ascii_lowercase();
        let kind = match field("content-type") {
            None if digest => Kind::Message,
            None => Kind::Text,
            Some(field) => kind(field),
        };
        let kind = match encoding.as_str() {
            "" | "7bit" | "8bit" | "binary" => kind,
            // Parts of an encoded body would have to be decoded first, which RFC 2045 section 6.4 does not allow to be there.
            _ => Kind::Fixed(format!("encoded in {}", shown(&encoding))),
        };
        let own = matches!(kind, Kind::Multipart { signed: true, .. });
        Self {
            signed: signed || own,
            is_labelled: !encoding.is_empty(),
            has_dkim: field("dkim-signature").is_some(),
            kind,
        }
    }
}

fn kind(field: &[u8]) -> Kind {
    let section = [field, b"\r\n"].concat();
    let parsed = MessageParser::new().parse_headers(&section);
    let Some(content_type) = parsed.as_ref().and_then(|message| message.content_type()) else {
        // RFC 2045 section 5.2: what cannot be read is plain text.
        return Kind::Text;
    };
    let subtype = content_type.subtype().unwrap_or_default().to_ascii_lowercase();
    match content_type.ctype().to_ascii_lowercase().as_str() {
        "multipart" => match content_type.attribute("boundary") {
            Some(boundary) if !boundary.is_empty() => Kind::Multipart {
                boundary: boundary.trim_end().as_bytes().to_vec(),
                digest: subtype == "digest",
                signed: matches!(subtype.as_str(), "signed" | "encrypted"),
            },
            _ => Kind::Fixed("a multipart without a boundary".into()),
        },
        "message" => match subtype.as_str() {
            "rfc822" => Kind::Message,
            // RFC 2046 sections 5.2.2 and 5.2.3: always 7bit.
            "partial" | "external-body" => Kind::Fixed(format!("message/{subtype}")),
            _ => Kind::Text,
        },
        "text" | "" => Kind::Text,
        _ => Kind::Binary,
    }
}

/// The fields with their line ends, without the empty line.
fn fields(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        let mut end = 0;
        loop {
            let tail = rest.get(end..)?;
            end += memchr::memchr(b'\n', tail).map_or(tail.len(), |at| at + 1);
            // A line that begins with white space goes on with the field.
            if !matches!(rest.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        let (field, tail) = rest.split_at_checked(end)?;
        rest = tail;
        (!field.is_empty() && field != b"\r\n").then_some(field)
    })
}

fn is(field: &[u8], name: &str) -> bool {
    let end = memchr::memchr(b':', field).unwrap_or_default();
    let found = field.get(..end).unwrap_or_default();
    found.trim_ascii_end().eq_ignore_ascii_case(name.as_bytes())
}

/// A field's value without comments behind it, if it is one word.
fn value(field: &[u8]) -> String {
    let start = memchr::memchr(b':', field).map_or(field.len(), |at| at + 1);
    let value = String::from_utf8_lossy(field.get(start..).unwrap_or_default()).into_owned();
    let value = value.split('(').next().unwrap_or_default();
    value.trim().to_owned()
}

fn shown(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(40).collect()
}

/// Writes a header section anew: with another label (or the one that it has, when `None`), with `note` at its end, and, where `mime`, with
/// what a mail without MIME lacks.
pub(super) fn rewrite(header: &[u8], label: Option<&str>, mime: bool, note: &str, out: &mut Vec<u8>) {
    let mut kept = 0;
    for field in fields(header) {
        kept += field.len();
        if label.is_none() || !is(field, "content-transfer-encoding") {
            out.extend_from_slice(field);
        }
    }
    let has = |name: &str| fields(header).any(|field| is(field, name));
    if mime && !has("mime-version") {
        out.extend_from_slice(b"MIME-Version: 1.0\r\n");
    }
    if mime && !has("content-type") {
        // RFC 1428: it is text, and nobody said in which letters.
        out.extend_from_slice(b"Content-Type: text/plain; charset=unknown-8bit\r\n");
    }
    if let Some(label) = label {
        out.extend_from_slice(format!("Content-Transfer-Encoding: {label}\r\n").as_bytes());
    }
    out.extend_from_slice(note.as_bytes());
    // The empty line, where there is one.
    out.extend_from_slice(header.get(kept..).unwrap_or_default());
}
