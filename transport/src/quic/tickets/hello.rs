//! The first session that a ClientHello offers to resume, and how old its client says that it is.
//!
//! Early data is only ever accepted for the first offered session (RFC 8446 section 4.2.10), so the first is all that is looked for. What is
//! read here decides nothing by itself: TLS reads the same octets again and refuses what is malformed.

/// Octets of the longest ClientHello that is looked into; RFC 8446 would allow 16 MiB.
const LIMIT: usize = 16 << 10;
/// Octets before a handshake message's body: type and length (RFC 8446 section 4).
const HEAD: usize = 4;
const CLIENT_HELLO: u8 = 1;
const PRE_SHARED_KEY: u16 = 41;
/// `legacy_version` and `random`.
const VERSION_AND_RANDOM: usize = 2 + 32;

/// A session that a client wants to resume (RFC 8446 section 4.2.11, `PskIdentity`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// The ticket.
    pub(super) ticket: Vec<u8>,
    /// Milliseconds since the client got the ticket, plus the ticket's `ticket_age_add`, modulo 2^32.
    pub(super) obfuscated_age: u32,
}

/// Gathers a ClientHello that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Hello {
    octets: Vec<u8>,
    done: bool,
}

impl Hello {
    /// Takes the next octets of the handshake; the offer once the ClientHello is whole, and only then.
    pub(super) fn push(&mut self, octets: &[u8]) -> Option<Offer> {
        if self.done {
            return None;
        }
        let room = LIMIT - self.octets.len();
        self.octets.extend_from_slice(&octets[..octets.len().min(room)]);
        let wanted = match self.octets.as_slice() {
            [CLIENT_HELLO, high, middle, low, ..] => HEAD + length(&[*high, *middle, *low]),
            [CLIENT_HELLO, ..] | [] => HEAD,
            _ => usize::MAX,
        };
        if wanted > LIMIT {
            self.end();
            return None;
        }
        let offer = offer(self.octets.get(HEAD..wanted)?);
        self.end();
        offer
    }

    fn end(&mut self) {
        (self.done, self.octets) = (true, Vec::new());
    }
}

/// Reads the body of a ClientHello; `None` when it offers no session or is malformed.
fn offer(body: &[u8]) -> Option<Offer> {
    let mut body = Reader(body);
    body.take(VERSION_AND_RANDOM)?;
    body.vector::<1>()?; // legacy_session_id
    body.vector::<2>()?; // cipher_suites
    body.vector::<1>()?; // legacy_compression_methods
    let mut extensions = Reader(body.vector::<2>()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number::<2>()?;
        let content = extensions.vector::<2>()?;
        if kind == usize::from(PRE_SHARED_KEY) {
            let mut identities = Reader(Reader(content).vector::<2>()?);
            let ticket = identities.vector::<2>()?.to_vec();
            let obfuscated_age = u32::try_from(identities.number::<4>()?).ok()?;
            return Some(Offer {
                ticket,
                obfuscated_age,
            });
        }
    }
    None
}

/// A big-endian number of few octets.
fn length(octets: &[u8]) -> usize {
    octets
        .iter()
        .fold(0, |value, octet| value << 8 | usize::from(*octet))
}

/// What is left to be read.
struct Reader<'h>(&'h [u8]);

impl<'h> Reader<'h> {
    fn take(&mut self, octets: usize) -> Option<&'h [u8]> {
        let (taken, rest) = self.0.split_at_checked(octets)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of `OCTETS` octets.
    fn number<const OCTETS: usize>(&mut self) -> Option<usize> {
        self.take(OCTETS).map(length)
    }

    /// A vector whose length stands before it in `OCTETS` octets.
    fn vector<const OCTETS: usize>(&mut self) -> Option<&'h [u8]> {
        let octets = self.number::<OCTETS>()?;
        self.take(octets)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A ClientHello with one extension before the sessions, and two sessions.
    fn hello(ticket: &[u8], age: u32) -> Vec<u8> {
        let long = |octets: &[u8]| [&(octets.len() as u16).to_be_bytes(), octets].concat();
        let identity = |ticket: &[u8], age: u32| [long(ticket), age.to_be_bytes().to_vec()].concat();
        let identities = [identity(ticket, age), identity(b"second", 7)].concat();
        let sessions = [long(&identities), long(&[33; 33])].concat();
        let extensions = [
            &[0, 10][..],
            &long(&[0, 2, 0, 29]),
            &PRE_SHARED_KEY.to_be_bytes(),
            &long(&sessions),
        ];
        let body = [
            &[3; VERSION_AND_RANDOM][..],
            &[2, 8, 8],
            &long(&[0x13, 1]),
            &[1, 0],
            &long(&extensions.concat()),
        ];
        let body = body.concat();
        [
            &[CLIENT_HELLO],
            &(body.len() as u32).to_be_bytes()[1..],
            body.as_slice(),
        ]
        .concat()
    }

    #[test]
    fn the_first_session_is_found_however_the_hello_is_cut() {
        let whole = hello(b"first", 0x0102_0304);
        let expected = Offer {
            ticket: b"first".to_vec(),
            obfuscated_age: 0x0102_0304,
        };
        for size in [1, 3, 50, whole.len()] {
            let mut hello = Hello::default();
            let found: Vec<_> = whole.chunks(size).filter_map(|part| hello.push(part)).collect();
            assert_eq!(found, std::slice::from_ref(&expected), "{size}");
            assert_eq!(hello.push(&whole), None, "only once");
        }
    }

    #[test]
    fn a_hello_that_is_cut_short_offers_nothing() {
        let whole = hello(b"first", 1);
        for end in 0..whole.len() {
            assert_eq!(Hello::default().push(&whole[..end]), None, "{end}");
        }
        // As long as it says, and nonsense within.
        for end in HEAD..whole.len() - 1 {
            let mut short = whole[..end].to_vec();
            short[1..HEAD].copy_from_slice(&((end - HEAD) as u32).to_be_bytes()[1..]);
            assert_eq!(Hello::default().push(&short), None, "{end}");
        }
    }

    #[test]
    fn nothing_is_kept_of_what_is_no_hello_or_too_long() {
        for beginning in [&[2, 0, 0, 1][..], &[CLIENT_HELLO, 1, 0, 0], &[22]] {
            let mut hello = Hello::default();
            assert_eq!(hello.push(beginning), None);
            assert!(hello.done && hello.octets.capacity() == 0, "{beginning:?}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_survived(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..200)) {
            let mut hello = Hello::default();
            for part in &parts {
                hello.push(part);
                prop_assert!(hello.octets.len() <= LIMIT);
            }
        }

        #[test]
        fn a_damaged_hello_is_survived(at in 0usize..200, octet: u8, ticket in prop::collection::vec(any::<u8>(), 1..300), age: u32) {
            let mut whole = hello(&ticket, age);
            prop_assert_eq!(Hello::default().push(&whole), Some(Offer { ticket, obfuscated_age: age }));
            let at = at % whole.len();
            whole[at] = octet;
            Hello::default().push(&whole);
        }
    }
}
