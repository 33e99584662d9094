//! Batch SMTP (RFC 2442): the client's half of an SMTP session in which every command succeeded.

pub mod decode;
pub mod encode;

/// The media type, without parameters.
pub const MEDIA_TYPE: &str = "application/batch-SMTP";
