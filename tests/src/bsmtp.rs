//! Batch SMTP written apart from the programs' own implementation.

use std::fmt::Write as _;

/// One transaction as an object; `from` and `to` carry the whole argument: `<a@b.example> BODY=8BITMIME`.
pub fn object(from: &str, to: &[&str], message: &[u8]) -> Vec<u8> {
    let mut head = format!("EHLO peer.earth.example\r\nMAIL FROM:{from}\r\n");
    for to in to {
        write!(head, "RCPT TO:{to}\r\n").unwrap();
    }
    head.push_str("DATA\r\n");
    let mut object = head.into_bytes();
    object.extend_from_slice(&stuffed(message));
    object.extend_from_slice(b".\r\nQUIT\r\n");
    object
}

/// A canonical message with a dot before every line that begins with one.
pub fn stuffed(message: &[u8]) -> Vec<u8> {
    assert!(message.is_empty() || message.ends_with(b"\r\n"), "not canonical");
    let mut stuffed = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed
}
