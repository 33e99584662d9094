//! Counting the hops of a mail.

use crate::Address;

/// Longest id that is kept; ours and those of the known MTAs are shorter.
const ID_MAX: usize = 64;

/// What a header section says about the way that a mail has come. Fed with the first octets of a canonical body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hops {
    /// `Received` fields.
    pub received: usize,
    /// Those of them that carry our own name behind `by`, the last passage first.
    pub own: Vec<Passage>,
    /// The id that who handed the mail over has given it, where the first field of all is a `Received` that tells: printable, 64 octets at most.
    /// Fields that a relay adds before its own `Received` are not counted.
    pub upstream: Option<String>,
}

/// What a `Received` field of our own tells of an earlier passage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// The id that the mail or the exchange had then.
    pub id: Option<String>,
    /// The recipient, where it was the only one: fields name no others.
    pub recipients: Vec<String>,
}

impl Hops {
    /// Whether `recipient` is the one that an earlier passage here was for: the mail has come back. The case of letters is
    /// not looked at.
    pub fn were_for(&self, recipient: &Address) -> bool {
        let recipient = recipient.as_str();
        let mut known = self.own.iter().flat_map(|passage| &passage.recipients);
        known.any(|known| known.eq_ignore_ascii_case(recipient))
    }
}

/// Counts the hops in a header section (everything before the first empty line).
pub fn hops(headers: &[u8], own_name: &str) -> Hops {
    let own_name = own_name.strip_suffix('.').unwrap_or(own_name).as_bytes();
    let mut hops = Hops::default();
    let (mut rest, mut first) = (headers, true);
    while let Some((field, tail)) = next_field(rest) {
        rest = tail;
        let is_first = first;
        first = first && is_prefixed(field);
        let Some(value) = received(field) else {
            continue;
        };
        hops.received += 1;
        if is_first {
            hops.upstream = clause(value, b"id").and_then(id);
        }
        let own = clause(value, b"by")
            .is_some_and(|by| by.strip_suffix(b".").unwrap_or(by).eq_ignore_ascii_case(own_name));
        if own {
            hops.own.push(Passage {
                id: clause(value, b"id").and_then(id),
                recipients: recipient(value).into_iter().collect(),
            });
        }
    }
    hops
}

/// Whether it is a field that relays put before their `Received`: results of checks (RFC 8601, RFC 8617) and marks.
fn is_prefixed(field: &[u8]) -> bool {
    let begins = |name: &str| {
        let start = field.get(..name.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
    };
    ["X-", "ARC-", "Authentication-Results:"].into_iter().any(begins)
}

/// An id that can be kept and shown.
fn id(word: &[u8]) -> Option<String> {
    let word = str::from_utf8(word).ok()?;
    let fine = word.len() <= ID_MAX && word.bytes().all(|octet| octet.is_ascii_graphic());
    fine.then(|| word.to_owned())
}

/// The values of the `Received` fields of a header section, the latest first, folded as they are.
pub fn received_values(headers: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = headers;
    std::iter::from_fn(move || {
        let (field, tail) = next_field(rest)?;
        rest = tail;
        Some(field)
    })
    .filter_map(received)
}

/// The fields of a header section: name, and value with its folds and line end. Lines that are no fields are passed over.
pub fn fields(headers: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = headers;
    let lines = std::iter::from_fn(move || {
        let (field, tail) = next_field(rest)?;
        rest = tail;
        Some(field)
    });
    lines.filter_map(|field| {
        let (name, value) = field.split_at_checked(memchr::memchr(b':', field)?)?;
        Some((name.trim_ascii_end(), value.get(1..).unwrap_or_default()))
    })
}

/// The next field with its folded lines, and what follows; `None` at the empty line and at the end.
fn next_field(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if text.is_empty() || text.starts_with(b"\r\n") || text.starts_with(b"\n") {
        return None;
    }
    let mut end = 0;
    for line_feed in memchr::memchr_iter(b'\n', text) {
        end = line_feed + 1;
        if !matches!(text.get(end), Some(b' ' | b'\t')) {
            return text.split_at_checked(end);
        }
    }
    // Cut in the middle of a line: what is there counts.
    Some(if end < text.len() {
        (text, b"")
    } else {
        text.split_at_checked(end)?
    })
}

/// The value, where the field is a `Received`.
fn received(field: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memchr(b':', field)?;
    let (name, value) = field.split_at_checked(colon)?;
    name.trim_ascii_end()
        .eq_ignore_ascii_case(b"received")
        .then(|| value.get(1..).unwrap_or_default())
}

/// The word behind the clause `name`, comments skipped, before the semicolon.
fn clause<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut words = Words(value);
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case(name) {
            return words.next();
        }
    }
    None
}

/// The address behind `for`, as [`super::Received`] writes it: in angle brackets.
fn recipient(value: &[u8]) -> Option<String> {
    let mut words = Words(value);
    while !words.next()?.eq_ignore_ascii_case(b"for") {}
    let bracketed = skip_comments(words.0).strip_prefix(b"<")?;
    // A quoted local part may hold anything.
    let local = if bracketed.first() == Some(&b'"') {
        quoted_end(bracketed)
    } else {
        0
    };
    let end = local + memchr::memchr(b'>', bracketed.get(local..)?)?;
    let address = str::from_utf8(bracketed.get(..end)?).ok()?;
    Some(Address::parse(address).ok()?.as_str().to_owned())
}

/// The words of a structured field up to its semicolon, without comments (RFC 5322 section 3.2.2).
struct Words<'a>(&'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.0 = skip_comments(self.0);
        let end = match self.0.first()? {
            b';' => return None,
            b'"' => quoted_end(self.0),
            _ => self
                .0
                .iter()
                .position(|c| c.is_ascii_whitespace() || matches!(c, b'(' | b';' | b'"'))
                .unwrap_or(self.0.len()),
        };
        let (word, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        Some(word)
    }
}

/// Where the quoted string at the start of `text` ends.
fn quoted_end(text: &[u8]) -> usize {
    let mut escaped = false;
    for (position, octet) in text.iter().enumerate().skip(1) {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return position + 1,
            _ => {}
        }
    }
    text.len()
}

/// Skips white space and comments, nested ones too.
fn skip_comments(text: &[u8]) -> &[u8] {
    let (mut depth, mut escaped) = (0_usize, false);
    for (position, octet) in text.iter().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if depth > 0 => escaped = true,
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            _ if depth > 0 || octet.is_ascii_whitespace() => {}
            _ => return text.get(position..).unwrap_or_default(),
        }
    }
    b""
}
