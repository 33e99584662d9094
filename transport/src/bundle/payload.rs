//! What bundles of an exchange hold: binary HTTP of known length (RFC 9292 section 3.1), or a Batch SMTP object alone.
//!
//! The head of a message is read by the bhttp crate once its lengths have been held against what is there: that crate allocates what a
//! sender claims by the field, takes a message that is cut off for one with an empty body, and any number of interim responses.
//! The body is never copied.

use std::io::Cursor;

use bhttp::{Message, Mode};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use url::Url;

/// The most octets of a field section.
const FIELDS: u64 = 64 * 1024;
/// The most octets of one part of the control data.
const CONTROL: u64 = 8 * 1024;

/// A request or response that came.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// A request as binary HTTP.
    Request(Content),
    /// A response as binary HTTP.
    Response(StatusCode, Content),
    /// A Batch SMTP object.
    BatchSmtp(Bytes),
}

/// What a message holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Header fields.
    pub headers: HeaderMap,
    /// Content.
    pub body: Bytes,
}

/// Why a payload is neither form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It begins like neither.
    #[error("neither binary HTTP of known length (RFC 9292) nor a Batch SMTP object")]
    Unknown,
    /// It ends too early.
    #[error("cut off: {0} of the binary HTTP message is not whole")]
    Cut(&'static str),
    /// Part of it is too long.
    #[error("{what} of the binary HTTP message has {octets} octets, more than {most}")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// What it claims.
        octets: u64,
        /// What is taken.
        most: u64,
    },
    /// An interim response (1xx), which ends nothing.
    #[error("an interim response")]
    Interim,
    /// Only POST is known.
    #[error("the method is not POST")]
    Method,
    /// A field or the control data makes no sense.
    #[error("the head of the binary HTTP message: {0}")]
    Head(String),
}

/// A POST to `gateway` with these fields and this body.
pub fn request(gateway: &Url, headers: &HeaderMap, body: &Bytes) -> Bytes {
    // Of a gateway that has an endpoint only, the path is its own business.
    let (scheme, authority, path) = match gateway.has_host() {
        true => (gateway.scheme(), gateway.authority(), gateway.path()),
        false => ("https", "", "/"),
    };
    let message = Message::request(b"POST".to_vec(), scheme.into(), authority.into(), path.into());
    write(message, headers, body)
}

/// A response.
pub fn response(status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Bytes {
    // Every status of the http crate is one of bhttp's, but for those beyond 599.
    let status = bhttp::StatusCode::try_from(status.as_u16().min(599)).unwrap_or(bhttp::StatusCode::OK);
    write(Message::response(status), headers, body)
}

fn write(mut message: Message, headers: &HeaderMap, body: &Bytes) -> Bytes {
    for (name, value) in headers {
        message.put_header(name.as_str(), value.as_bytes());
    }
    let mut head = Vec::with_capacity(512);
    // A vector takes whatever is written to it.
    let written = message.write_bhttp(Mode::KnownLength, &mut head);
    debug_assert!(written.is_ok());
    // It ends with the lengths of content and trailer, none of both.
    head.truncate(head.len().saturating_sub(2));
    let mut whole = BytesMut::with_capacity(head.len() + body.len() + 9);
    whole.extend_from_slice(&head);
    put_length(&mut whole, body.len() as u64);
    whole.extend_from_slice(body);
    whole.extend_from_slice(&[0]);
    whole.freeze()
}

/// A variable-length integer (RFC 9000 section 16).
fn put_length(out: &mut BytesMut, length: u64) {
    match length {
        0..0x40 => out.extend_from_slice(&[length as u8]),
        0x40..0x4000 => out.extend_from_slice(&(length as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(length as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(length | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// Tells what a payload is.
///
/// # Errors
/// [`PayloadError`]
pub fn read(payload: &Bytes) -> Result<Payload, PayloadError> {
    match payload.first() {
        Some(0) => {
            let (message, body) = message(payload, 4)?;
            if message.control().method() != Some(b"POST") {
                return Err(PayloadError::Method);
            }
            Ok(Payload::Request(content(&message, body)?))
        }
        Some(1) => {
            let (message, body) = message(payload, 0)?;
            let status = message.control().status().map_or(0, bhttp::StatusCode::code);
            let status =
                StatusCode::from_u16(status).map_err(|error| PayloadError::Head(error.to_string()))?;
            Ok(Payload::Response(status, content(&message, body)?))
        }
        _ if is_batch(payload) => Ok(Payload::BatchSmtp(payload.clone())),
        _ => Err(PayloadError::Unknown),
    }
}

/// Whether it begins with a command that a Batch SMTP object begins with (RFC 2442 section 2).
fn is_batch(payload: &[u8]) -> bool {
    let first = payload.get(..5).unwrap_or_default();
    ["EHLO ", "HELO ", "MAIL "]
        .iter()
        .any(|verb| first.eq_ignore_ascii_case(verb.as_bytes()))
}

/// The message without its body, and its body. `parts` is how many strings the control data has; none for a status.
fn message(payload: &Bytes, parts: usize) -> Result<(Message, Bytes), PayloadError> {
    let mut rest = &payload[..];
    let _framing = length(&mut rest, "the framing indicator")?;
    if parts == 0 && (100..200).contains(&length(&mut rest, "the status")?) {
        return Err(PayloadError::Interim);
    }
    for _ in 0..parts {
        skip(&mut rest, "the control data", CONTROL)?;
    }
    skip(&mut rest, "the header section", FIELDS)?;
    let head = payload.slice(..payload.len() - rest.len());
    let octets = length(&mut rest, "the length of the content")?;
    let octets = usize::try_from(octets).unwrap_or(usize::MAX);
    if octets > rest.len() {
        return Err(PayloadError::Cut("the content"));
    }
    let from = payload.len() - rest.len();
    let body = payload.slice(from..from + octets);
    // A message may end where everything that follows is empty (RFC 9292 section 3.8).
    let message = Message::read_bhttp(&mut Cursor::new(&head[..]))
        .map_err(|error| PayloadError::Head(error.to_string()))?;
    Ok((message, body))
}

fn skip(rest: &mut &[u8], what: &'static str, most: u64) -> Result<(), PayloadError> {
    let octets = length(rest, what)?;
    if octets > most {
        return Err(PayloadError::TooLong { what, octets, most });
    }
    *rest = rest.get(octets as usize..).ok_or(PayloadError::Cut(what))?;
    Ok(())
}

fn length(rest: &mut &[u8], what: &'static str) -> Result<u64, PayloadError> {
    let first = *rest.first().ok_or(PayloadError::Cut(what))?;
    let octets = 1_usize << (first >> 6);
    let mut field = rest.get(..octets).ok_or(PayloadError::Cut(what))?;
    *rest = &rest[octets..];
    let value = field.get_uint(octets);
    Ok(value & (u64::MAX >> (64 - 8 * octets + 2)))
}

fn content(message: &Message, body: Bytes) -> Result<Content, PayloadError> {
    let mut headers = HeaderMap::new();
    for field in message.header().fields() {
        let wrong = |error: &dyn std::fmt::Display| PayloadError::Head(error.to_string());
        let name = HeaderName::from_bytes(field.name()).map_err(|error| wrong(&error))?;
        let value = HeaderValue::from_bytes(field.value()).map_err(|error| wrong(&error))?;
        headers
            .try_append(name, value)
            .map_err(|error| PayloadError::Head(error.to_string()))?;
    }
    Ok(Content { headers, body })
}
