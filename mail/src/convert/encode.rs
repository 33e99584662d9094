//! Quoted-printable and base64 (RFC 2045 sections 6.7 and 6.8), written piece by piece.

use base64::{Engine, engine::general_purpose::STANDARD};

/// The longest line of either.
const LINE: usize = 76;
/// Octets that become one line of base64.
const GROUP: usize = 57;
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// An encoder of one part's body.
#[derive(Debug)]
pub(super) enum Encoder {
    /// The column, and a space or tab that may be the last of its line.
    QuotedPrintable { column: usize, held: Option<u8> },
    /// Octets that do not fill a line yet.
    Base64(Vec<u8>),
}

impl Encoder {
    pub(super) fn quoted_printable() -> Self {
        Self::QuotedPrintable {
            column: 0,
            held: None,
        }
    }

    pub(super) fn base64() -> Self {
        Self::Base64(Vec::with_capacity(GROUP))
    }

    /// Octets of a line, without its end.
    pub(super) fn text(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::QuotedPrintable { column, held } => {
                for octet in octets {
                    if let Some(space) = held.take() {
                        literal(space, column, out);
                    }
                    match octet {
                        b' ' | b'\t' => *held = Some(*octet),
                        b'!'..=b'<' | b'>'..=b'~' => literal(*octet, column, out),
                        _ => escaped(*octet, column, out),
                    }
                }
            }
            Self::Base64(group) => fill(group, octets, out),
        }
    }

    /// The end of a line.
    pub(super) fn line_end(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::QuotedPrintable { column, held } => {
                if let Some(space) = held.take() {
                    escaped(space, column, out);
                }
                out.extend_from_slice(b"\r\n");
                *column = 0;
            }
            Self::Base64(group) => fill(group, b"\r\n", out),
        }
    }

    /// The end of the body. Base64 ends its last line: the line end is none of its octets, and the last line of a mail has one.
    pub(super) fn finish(self, out: &mut Vec<u8>) {
        match self {
            Self::QuotedPrintable { mut column, held } => {
                if let Some(space) = held {
                    escaped(space, &mut column, out);
                }
            }
            Self::Base64(group) => {
                let rest = STANDARD.encode(&group);
                if !rest.is_empty() {
                    out.extend_from_slice(rest.as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
    }
}

/// An octet as it is.
fn literal(octet: u8, column: &mut usize, out: &mut Vec<u8>) {
    room(1, column, out);
    out.push(octet);
}

/// An octet as `=XX`.
fn escaped(octet: u8, column: &mut usize, out: &mut Vec<u8>) {
    room(3, column, out);
    out.push(b'=');
    for nibble in [octet >> 4, octet & 15] {
        out.extend(HEX.get(usize::from(nibble)));
    }
}

/// A soft line break where `width` more octets, and another break behind them, do not fit.
fn room(width: usize, column: &mut usize, out: &mut Vec<u8>) {
    if *column + width > LINE - 1 {
        out.extend_from_slice(b"=\r\n");
        *column = 0;
    }
    *column += width;
}

fn fill(group: &mut Vec<u8>, mut octets: &[u8], out: &mut Vec<u8>) {
    while !octets.is_empty() {
        let (now, rest) = octets.split_at(octets.len().min(GROUP - group.len()));
        group.extend_from_slice(now);
        octets = rest;
        if group.len() == GROUP {
            out.extend_from_slice(STANDARD.encode(&*group).as_bytes());
            out.extend_from_slice(b"\r\n");
            group.clear();
        }
    }
}
