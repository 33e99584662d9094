use proptest::{collection::vec, prelude::*};

use super::*;

fn canonical(body: &[u8], sizes: &[usize]) -> (Vec<u8>, BodyFacts) {
    let mut machine = Canonicaliser::new(BareLineEnds::Normalise);
    let mut out = Vec::new();
    for chunk in chunks(body, sizes) {
        machine.push(chunk, &mut out).unwrap();
    }
    let facts = machine.finish(&mut out).unwrap();
    (out, facts)
}

fn refused(body: &[u8], sizes: &[usize]) -> Result<Vec<u8>, BareLineEnd> {
    let mut machine = Canonicaliser::new(BareLineEnds::Refuse);
    let mut out = Vec::new();
    for chunk in chunks(body, sizes) {
        machine.push(chunk, &mut out)?;
    }
    machine.finish(&mut out)?;
    Ok(out)
}

fn stuffed(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut machine = Stuffer::new();
    let mut out = Vec::new();
    for chunk in chunks(body, sizes) {
        machine.push(chunk, &mut out);
    }
    out
}

/// The body, and how many octets belonged to it; none if its end was not found.
type Unstuffing = Result<(Vec<u8>, Option<usize>), BareLineEnd>;

fn unstuffed(line_end: LineEnd, data: &[u8], sizes: &[usize]) -> Unstuffing {
    let mut machine = Unstuffer::new(line_end);
    let (mut out, mut used) = (Vec::new(), 0);
    for chunk in chunks(data, sizes) {
        match machine.push(chunk, &mut out)? {
            Unstuffed::More => used += chunk.len(),
            Unstuffed::End(part) => {
                assert_eq!(machine.read(), octets(used + part));
                return Ok((out, Some(used + part)));
            }
        }
    }
    Ok((out, None))
}

/// Cuts at the given sizes, in turn, again and again.
fn chunks<'a>(mut rest: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, tail) = rest.split_at((*size).clamp(1, rest.len()));
        chunks.push(chunk);
        rest = tail;
    }
    chunks
}

const WHOLE: &[usize] = &[usize::MAX];

#[test]
fn every_line_end_becomes_crlf() {
    for (body, expected) in [
        (&b""[..], &b""[..]),
        (b"a", b"a\r\n"),
        (b"a\r\n", b"a\r\n"),
        (b"a\n", b"a\r\n"),
        (b"a\r", b"a\r\n"),
        (b"\r", b"\r\n"),
        (b"\n", b"\r\n"),
        (b"\r\n", b"\r\n"),
        (b"\n\r", b"\r\n\r\n"),
        (b"\r\r\n", b"\r\n\r\n"),
        (b"\r\n\n", b"\r\n\r\n"),
        (b"\n\n", b"\r\n\r\n"),
        (b"\r\r", b"\r\n\r\n"),
        (b"a\nb\rc\r\nd", b"a\r\nb\r\nc\r\nd\r\n"),
        (b"a\n.\nb", b"a\r\n.\r\nb\r\n"),
        (b"a\r.\rb", b"a\r\n.\r\nb\r\n"),
        (b"a\n.\r\nb", b"a\r\n.\r\nb\r\n"),
        (b"a\r\n.\rb", b"a\r\n.\r\nb\r\n"),
        (b"a\0b\xff", b"a\0b\xff\r\n"),
    ] {
        for size in 1..=body.len().max(1) {
            let (out, facts) = canonical(body, &[size]);
            assert_eq!(out, expected, "{body:?} by {size}");
            assert_eq!(facts.size, octets(out.len()));
        }
    }
}

#[test]
fn bare_line_ends_are_refused_with_their_place() {
    for (body, line, offset, cr) in [
        (&b"\n"[..], 1, 0, false),
        (b"\r", 1, 0, true),
        (b"ab\n", 1, 2, false),
        (b"ab\rc", 1, 2, true),
        (b"a\r\n\r\nbc\n", 3, 7, false),
        (b"a\r\n\r\r\n", 2, 3, true),
        (b"a\r\nb\r", 2, 4, true),
    ] {
        for size in 1..=body.len() {
            assert_eq!(
                refused(body, &[size]),
                Err(BareLineEnd { line, offset, cr }),
                "{body:?} by {size}"
            );
        }
    }
    assert_eq!(
        BareLineEnd {
            line: 3,
            offset: 9,
            cr: true
        }
        .to_string(),
        "line 3, octet 9: a bare CR"
    );
}

#[test]
fn facts_are_those_of_the_canonical_body() {
    for (body, longest_line, eight_bit, eight_bit_headers, nul) in [
        (&b""[..], 0, false, false, false),
        (b"a: b\n\nlong line\nx", 9, false, false, false),
        (b"a: b\n\n\xc3\xa4", 4, true, false, false),
        (b"a: \xc3\xa4\n\nb", 5, true, true, false),
        (b"\n\xff", 1, true, false, false),
        (b"\r\n\xff\0", 2, true, false, true),
        (b"a\0\n", 2, false, false, true),
        (b"no header \xe4", 11, true, true, false),
    ] {
        for size in 1..=body.len().max(1) {
            let (out, facts) = canonical(body, &[size]);
            let expected = BodyFacts {
                size: octets(out.len()),
                longest_line,
                eight_bit,
                eight_bit_headers,
                nul,
            };
            assert_eq!(facts, expected, "{body:?} by {size}");
        }
    }
}

#[test]
fn dots_are_stuffed_at_line_starts_only() {
    for (body, expected) in [
        (&b""[..], &b""[..]),
        (b".\r\n", b"..\r\n"),
        (b"..\r\n", b"...\r\n"),
        (b"a.\r\n", b"a.\r\n"),
        (b"a\r\n.b\r\n", b"a\r\n..b\r\n"),
        (b"\r\n.\r\n.\r\n", b"\r\n..\r\n..\r\n"),
    ] {
        for size in 1..=body.len().max(1) {
            assert_eq!(stuffed(body, &[size]), expected, "{body:?} by {size}");
        }
    }
}

#[test]
fn a_body_ends_at_the_final_dot_and_nowhere_else() {
    use LineEnd::{Crlf, Lf};
    let bare = |line, offset, cr| Err(BareLineEnd { line, offset, cr });
    let end = |body: &[u8], used| Ok((body.to_vec(), Some(used)));
    let more = |body: &[u8]| Ok((body.to_vec(), None));
    for (line_end, data, expected) in [
        (Crlf, &b".\r\n"[..], end(b"", 3)),
        (Crlf, b"a\r\n.\r\nrest", end(b"a\r\n", 6)),
        (Crlf, b"..\r\n.\r\n", end(b".\r\n", 7)),
        (Crlf, b".a\r\n.\r\n", end(b"a\r\n", 7)),
        (Crlf, b"a.\r\n.\r\n", end(b"a.\r\n", 7)),
        (Crlf, b"\r\n.\r\n", end(b"\r\n", 5)),
        (Crlf, b"a\r\n", more(b"a\r\n")),
        (Crlf, b"a\r\n.", more(b"a\r\n")),
        (Crlf, b"a\r\n.\r", more(b"a\r\n")),
        (Crlf, b"a\n.\n", bare(1, 1, false)),
        (Crlf, b"a\n.\r\n", bare(1, 1, false)),
        (Crlf, b"a\r.\r\n", bare(1, 1, true)),
        (Crlf, b"a\r\n.\n", bare(2, 4, false)),
        (Crlf, b"a\r\n.\rx", bare(2, 4, true)),
        (Crlf, b"a\r\n.\r\r\n", bare(2, 4, true)),
        (Crlf, b"a\r\r\n", bare(1, 1, true)),
        (Crlf, b"a\r\n..\n", bare(2, 5, false)),
        (Crlf, b"\n", bare(1, 0, false)),
        (Lf, b".\n", end(b"", 2)),
        (Lf, b"a\n.\nrest", end(b"a\r\n", 4)),
        (Lf, b"..\n.\n", end(b".\r\n", 5)),
        (Lf, b"\n\n.\n", end(b"\r\n\r\n", 4)),
        (Lf, b"a\r\n.\n", bare(1, 1, true)),
        (Lf, b"a\n.\r\n", bare(2, 3, true)),
        (Lf, b"a\rb\n", bare(1, 1, true)),
        (Lf, b"\r", bare(1, 0, true)),
    ] {
        for size in 1..=data.len() {
            assert_eq!(unstuffed(line_end, data, &[size]), expected, "{data:?} by {size}");
        }
    }
}

/// The octets of the body, and how many were used when its end was found.
fn kept(data: &[u8], sizes: &[usize]) -> (Vec<u8>, Option<usize>) {
    let mut unstuffer = Unstuffer::keeping_bare();
    let (mut out, mut used) = (Vec::new(), 0);
    for chunk in chunks(data, sizes) {
        match unstuffer.push(chunk, &mut out).unwrap() {
            Unstuffed::More => used += chunk.len(),
            Unstuffed::End(last) => return (out, Some(used + last)),
        }
    }
    (out, None)
}

/// The probes of CVE-2023-51764, 51765 and 51766, and their relatives.
#[test]
fn no_other_line_end_ends_a_body_that_keeps_them() {
    for (data, body) in [
        (&b"a\n.\nb"[..], &b"a\n.\nb"[..]),
        (b"a\n.\r\nb", b"a\n.\r\nb"),
        (b"a\r.\rb", b"a\r.\rb"),
        (b"a\r.\r\nb", b"a\r.\r\nb"),
        (b"a\r\n.\nb", b"a\r\n\nb"),
        (b"a\r\n.\rb", b"a\r\n\rb"),
        (b"a\r\n.\r\rb", b"a\r\n\r\rb"),
        (b"a\r\r\n.\nb", b"a\r\r\n\nb"),
        (b"a\r\n\0.\r\nb", b"a\r\n\0.\r\nb"),
        (b"\n.\nb", b"\n.\nb"),
    ] {
        let whole = [data, b"\r\n.\r\nQUIT\r\n"].concat();
        let body = [body, b"\r\n"].concat();
        for size in 1..=whole.len() {
            let expected = (body.clone(), Some(data.len() + 5));
            assert_eq!(kept(&whole, &[size]), expected, "{data:?} by {size}");
        }
    }
}

/// Octets among which everything that matters is frequent.
pub(crate) fn octet_soup() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![
        4 => Just(b'\r'),
        4 => Just(b'\n'),
        4 => Just(b'.'),
        2 => Just(b'a'),
        1 => any::<u8>(),
    ];
    let piece = prop_oneof![
        vec(octet, 0..12),
        Just(b"\r\n.\r\n".to_vec()),
        Just(b"\r\n.\r\nMAIL FROM:<x@y>\r\nRCPT TO:<z@y>\r\nDATA\r\n".to_vec()),
        Just(b"\n.\nMAIL FROM:<x@y>\n".to_vec()),
        Just(b"some text in a line\r\n".to_vec()),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

pub(crate) fn chunk_sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(1_usize..40, 1..6)
}

/// The plain definition, octet by octet.
fn canonical_by_definition(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body.iter().copied().peekable();
    while let Some(octet) = rest.next() {
        match octet {
            b'\r' => {
                rest.next_if_eq(&b'\n');
                out.extend(b"\r\n");
            }
            b'\n' => out.extend(b"\r\n"),
            other => out.push(other),
        }
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend(b"\r\n");
    }
    out
}

proptest! {
    #[test]
    fn canonical_bodies_follow_the_definition_at_any_chunking(body in octet_soup(), sizes in chunk_sizes()) {
        let (whole, facts) = canonical(&body, WHOLE);
        prop_assert_eq!(&whole, &canonical_by_definition(&body));
        prop_assert_eq!(canonical(&body, &sizes), (whole.clone(), facts));
        prop_assert_eq!(canonical(&whole, &sizes).0, whole.clone());
        prop_assert_eq!(refused(&whole, &sizes).unwrap(), whole);
        prop_assert_eq!(refused(&body, &sizes), refused(&body, WHOLE));
    }

    #[test]
    fn no_body_ends_before_its_final_dot(body in octet_soup(), cut in chunk_sizes(), sizes in chunk_sizes()) {
        let (canonical, _) = canonical(&body, WHOLE);
        let mut data = stuffed(&canonical, &cut);
        prop_assert_eq!(&data, &stuffed(&canonical, WHOLE));
        data.extend_from_slice(END_OF_DATA);
        let length = data.len();
        data.extend_from_slice(b"QUIT\r\n");
        prop_assert_eq!(unstuffed(LineEnd::Crlf, &data, &sizes), Ok((canonical.clone(), Some(length))));
        let bare: Vec<u8> = data.iter().copied().filter(|octet| *octet != b'\r').collect();
        let (out, _) = unstuffed(LineEnd::Lf, &bare, &sizes).unwrap();
        prop_assert_eq!(out, canonical);
    }

    #[test]
    fn with_bare_line_ends_a_body_ends_at_its_first_crlf_dot_crlf(data in octet_soup(), sizes in chunk_sizes()) {
        let (out, end) = kept(&data, &sizes);
        let behind_data = [b"\r\n", data.as_slice()].concat();
        let found = behind_data.windows(5).position(|window| window == b"\r\n.\r\n");
        prop_assert_eq!(end, found.map(|at| at + 3));
        prop_assert_eq!((out.clone(), end), kept(&data, WHOLE));
        // Where nothing is bare both ways are one.
        if let Ok((strict, used)) = unstuffed(LineEnd::Crlf, &data, WHOLE) && used.is_some() {
            prop_assert_eq!((strict, used), (out, end));
        }
    }

    #[test]
    fn unstuffing_is_the_same_at_any_chunking(data in octet_soup(), sizes in chunk_sizes()) {
        for line_end in [LineEnd::Crlf, LineEnd::Lf] {
            prop_assert_eq!(unstuffed(line_end, &data, &sizes), unstuffed(line_end, &data, WHOLE));
        }
    }
}
