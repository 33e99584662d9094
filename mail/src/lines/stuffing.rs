//! Canonical body to what stands behind DATA.

use memchr::memmem::Finder;

/// Dot-stuffs a canonical body that arrives in chunks of any size (RFC 5321 section 4.5.2).
#[derive(Debug)]
pub struct Stuffer {
    line_start: bool,
    finder: Finder<'static>,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self {
            line_start: true,
            finder: Finder::new(b"\n."),
        }
    }
}

impl Stuffer {
    /// Starts a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the stuffed form of `chunk` to `out`.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let Some(last) = chunk.last() else {
            return;
        };
        out.reserve(chunk.len() + 16);
        if self.line_start && chunk.starts_with(b".") {
            out.push(b'.');
        }
        let mut copied = 0;
        for position in self.finder.find_iter(chunk) {
            let dot = position + 1;
            out.extend_from_slice(chunk.get(copied..dot).unwrap_or_default());
            out.push(b'.');
            copied = dot;
        }
        out.extend_from_slice(chunk.get(copied..).unwrap_or_default());
        self.line_start = *last == b'\n';
    }
}
