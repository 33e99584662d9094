//! Counting the hops of a mail.

/// What a header section says about the way that a mail has come. Fed with the first octets of a canonical body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hops {
    /// `Received` fields.
    pub received: usize,
    /// Those of them that carry our own name behind `by`.
    pub own: usize,
}

/// Counts the hops in a header section (everything before the first empty line).
pub fn hops(headers: &[u8], own_name: &str) -> Hops {
    let own_name = own_name.strip_suffix('.').unwrap_or(own_name).as_bytes();
    let mut hops = Hops::default();
    let mut rest = headers;
    while let Some((field, tail)) = next_field(rest) {
        rest = tail;
        let Some(value) = received(field) else {
            continue;
        };
        hops.received += 1;
        let own =
            by(value).is_some_and(|by| by.strip_suffix(b".").unwrap_or(by).eq_ignore_ascii_case(own_name));
        hops.own += usize::from(own);
    }
    hops
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

/// The word behind `by`, comments skipped, before the semicolon.
fn by(value: &[u8]) -> Option<&[u8]> {
    let mut words = Words(value);
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case(b"by") {
            return words.next();
        }
    }
    None
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
