//! Mails that relays are known to damage.

use std::fmt::Write as _;

/// A canonical message with a Subject and a Message-ID by which it is known again.
pub fn message(subject: &str, body: &[u8]) -> Vec<u8> {
    let mut message = format!(
        "From: Alice <alice@earth.example>\r\nTo: Bob <bob@moon.example>\r\nSubject: {subject}\r\n\
         Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{subject}@earth.example>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    )
    .into_bytes();
    message.extend_from_slice(body);
    message
}

/// Text in UTF-8 and octets that are no UTF-8 at all.
pub fn eight_bit() -> Vec<u8> {
    let mut body = "Grüße vom Mond, žluťoučký kůň, 月より\r\n".as_bytes().to_vec();
    body.extend((1..=255).filter(|octet| !b"\r\n".contains(octet)));
    body.extend_from_slice(b"\r\n");
    body
}

/// Lines around and far beyond the 998 octets that SMTP promises.
pub fn long_lines() -> Vec<u8> {
    let mut body = Vec::new();
    for length in [997, 998, 999, 1000, 2047, 2048, 2049, 70_000] {
        body.extend(std::iter::repeat_n(b'x', length));
        body.extend_from_slice(b"\r\n");
    }
    body
}

/// Lines that a careless end of data or dot-stuffing trips over.
pub fn lone_dots() -> Vec<u8> {
    b".\r\n..\r\n...\r\n. \r\n.hidden\r\n\r\n.\r\n.\r\n\r\nQUIT\r\nMAIL FROM:<mallory@earth.example>\r\n.\r\n"
        .to_vec()
}

/// A MIME mail with an attachment of about `size` octets in base64.
pub fn attachment(subject: &str, size: usize) -> Vec<u8> {
    let mut message = format!(
        "From: Alice <alice@earth.example>\r\nTo: Bob <bob@moon.example>\r\nSubject: {subject}\r\n\
         Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{subject}@earth.example>\r\n\
         MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"part\"\r\n\r\n\
         --part\r\nContent-Type: text/plain\r\n\r\nSee the attachment.\r\n--part\r\n\
         Content-Type: application/octet-stream; name=image.raw\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    let mut noise = Noise::new(size as u64);
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    while message.len() < size {
        let line: String = (0..76)
            .map(|_| char::from(ALPHABET[noise.below(64) as usize]))
            .collect();
        write!(message, "{line}\r\n").unwrap();
    }
    message.push_str("--part--\r\n");
    message.into_bytes()
}

/// Fails unless `stored` is `sent` with nothing but trace fields before it.
#[track_caller]
pub fn assert_only_trace_added(stored: &[u8], sent: &[u8]) {
    if !stored.ends_with(sent) {
        let common = stored
            .iter()
            .rev()
            .zip(sent.iter().rev())
            .take_while(|(a, b)| a == b)
            .count();
        let show = |text: &[u8]| {
            let end = text.len().saturating_sub(common.saturating_sub(40));
            String::from_utf8_lossy(&text[end.saturating_sub(120)..end]).into_owned()
        };
        panic!(
            "the mail was altered ({} octets sent, {} stored, the last {common} are the same); sent …{:?}, stored …{:?}",
            sent.len(),
            stored.len(),
            show(sent),
            show(stored)
        );
    }
    let added = String::from_utf8_lossy(&stored[..stored.len() - sent.len()]).into_owned();
    for line in added.lines().filter(|line| !line.starts_with([' ', '\t'])) {
        let name = line.split(':').next().unwrap().to_ascii_lowercase();
        let known = ["received", "return-path", "delivered-to", "x-original-to"];
        assert!(known.contains(&name.as_str()), "added to the mail: {line}");
    }
}

/// The mail among `mails` with a given Message-ID, as [`message`] writes it.
#[track_caller]
pub fn find<'m>(mails: &'m [Vec<u8>], subject: &str) -> &'m [u8] {
    let line = format!("\r\nMessage-ID: <{subject}@earth.example>\r\n");
    // The header is near the beginning: a whole attachment need not be searched.
    let mut found = mails
        .iter()
        .filter(|mail| contains(&mail[..mail.len().min(8192)], line.as_bytes()));
    let mail = found
        .next()
        .unwrap_or_else(|| panic!("no mail {subject} among {}", mails.len()));
    assert!(found.next().is_none(), "{subject} came twice");
    mail
}

/// Whether `text` contains `part`.
pub fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Numbers that look random and are the same in every run.
#[derive(Clone, Debug)]
pub struct Noise(u64);

impl Noise {
    /// A sequence by its seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(0x9e37_79b9_7f4a_7c15))
    }

    /// The next number below `limit` (splitmix64).
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
