use mail_parser::{Encoding, MessageParser, MimeHeaders};
use proptest::prelude::*;

use super::*;

const SEVEN_BIT: Limits = Limits {
    eight_bit: false,
    line: 998,
};

fn survey(mail: &[u8], limits: Limits, chunk: usize) -> Result<Plan, Obstacle> {
    let mut survey = Survey::new(limits);
    mail.chunks(chunk).for_each(|chunk| survey.push(chunk));
    survey.finish()
}

fn convert(mail: &[u8], limits: Limits, chunk: usize) -> Vec<u8> {
    let plan = survey(mail, limits, chunk).unwrap();
    let mut conversion = Conversion::new(plan, limits, "X-Note: converted\r\n".into());
    let mut out = Vec::new();
    mail.chunks(chunk)
        .for_each(|chunk| conversion.push(chunk, &mut out));
    conversion.finish(&mut out);
    out
}

fn converted(mail: &str) -> String {
    let mail = mail.replace('\n', "\r\n");
    let out = convert(mail.as_bytes(), SEVEN_BIT, usize::MAX);
    for chunk in [1, 2, 3, 7] {
        assert_eq!(
            convert(mail.as_bytes(), SEVEN_BIT, chunk),
            out,
            "in chunks of {chunk}"
        );
    }
    String::from_utf8(out).unwrap().replace("\r\n", "\n")
}

fn obstacle(mail: &str) -> Obstacle {
    survey(mail.replace('\n', "\r\n").as_bytes(), SEVEN_BIT, 5).unwrap_err()
}

#[test]
fn text_becomes_quoted_printable() {
    assert_eq!(
        converted(
            "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\ncontent-transfer-encoding: 8bit (so it is)\n\n\
             Gr\u{fc}\u{df}e = \n.\nFrom here\ttab\t\nend\n"
        ),
        "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\
         X-Note: converted\n\nGr=C3=BC=C3=9Fe =3D=20\n.\nFrom here\ttab=09\nend\n"
    );
}

#[test]
fn a_mail_without_mime_gets_what_it_lacks() {
    assert_eq!(
        converted("Subject: x\n\n\u{fc}\n"),
        "Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=unknown-8bit\nContent-Transfer-Encoding: quoted-printable\n\
         X-Note: converted\n\n=C3=BC\n"
    );
}

#[test]
fn only_the_parts_that_need_it_change() {
    let mail = "MIME-Version: 1.0\nContent-Type: multipart/mixed;\n boundary=\"a b\"\nContent-Transfer-Encoding: 8bit\n\npreamble \u{fc}\n\
                --a b\n\nplain\n\n--a b  \nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\n\
                Subject: inner\nContent-Type: multipart/alternative; boundary=inner\n\n--inner\n\nK\u{e4}se\n--inner\n\
                Content-Type: text/html\n\nascii\n--inner--\nepilogue\n--a b\nContent-Type: application/octet-stream\n\n\u{e4}\u{e4}\n--a b--\n";
    assert_eq!(
        converted(mail),
        "MIME-Version: 1.0\nContent-Type: multipart/mixed;\n boundary=\"a b\"\nContent-Transfer-Encoding: 7bit\nX-Note: converted\n\n\
         preamble ??\n--a b\n\nplain\n\n--a b  \nContent-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\n\
         Subject: inner\nContent-Type: multipart/alternative; boundary=inner\n\n--inner\nContent-Transfer-Encoding: quoted-printable\n\n\
         K=C3=A4se\n--inner\nContent-Type: text/html\n\nascii\n--inner--\nepilogue\n--a b\nContent-Type: application/octet-stream\n\
         Content-Transfer-Encoding: base64\n\nw6TDpA==\n\n--a b--\n"
    );
}

#[test]
fn what_fits_is_not_touched() {
    for mail in [
        "",
        "Subject: x\r\n\r\nbody\r\n",
        "Subject: x\r\n",
        "\r\nbody\r\n",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n--b\r\nX: y\r\n--b--\r\n--b\r\n",
        "Content-Type: multipart/signed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--b\r\n\r\nx\r\n--b--",
    ] {
        let plan = survey(mail.as_bytes(), SEVEN_BIT, 3).unwrap();
        assert!(!plan.changes(), "{mail}");
        let mut out = Vec::new();
        let mut conversion = Conversion::new(plan, SEVEN_BIT, String::new());
        conversion.push(mail.as_bytes(), &mut out);
        conversion.finish(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), mail);
    }
}

#[test]
fn signatures_that_break_are_named() {
    let signed = "DKIM-Signature: v=1\nContent-Type: multipart/signed; boundary=b\n\n--b\nContent-Type: multipart/mixed; boundary=c\n\n\
                  --c\n\nf\u{fc}r\n--c--\n--b\nContent-Type: application/pgp-signature\n\nx\n--b--\n";
    let plan = survey(signed.replace('\n', "\r\n").as_bytes(), SEVEN_BIT, 9).unwrap();
    assert!(plan.changes() && plan.breaks_parts && plan.breaks_dkim);
    assert_eq!(plan.encodings(), "quoted-printable");
    // A part beside the signed one is not signed.
    let beside = "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/signed; boundary=b\n\n--b\n\nx\n--b--\n--a\n\n\u{fc}\n--a--\n";
    let plan = survey(beside.replace('\n', "\r\n").as_bytes(), SEVEN_BIT, 9).unwrap();
    assert!(plan.changes() && !plan.breaks_parts && !plan.breaks_dkim);
}

#[test]
fn long_lines_are_broken_and_short_ones_stay() {
    let limits = Limits {
        eight_bit: true,
        line: 998,
    };
    let long = "x".repeat(999);
    let mail = format!(
        "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--b\r\n\r\n\u{fc}\r\n--b\r\n\r\n{long}\r\n--b--\r\n"
    );
    let out = String::from_utf8(convert(mail.as_bytes(), limits, 100)).unwrap();
    assert!(
        out.contains("8bit\r\n")
            && out.contains("\r\n\r\n\u{fc}\r\n--b\r\nContent-Transfer-Encoding: quoted-printable\r\n")
    );
    assert!(out.lines().all(|line| line.len() <= 76));
}

#[test]
fn what_cannot_be_converted_is_named() {
    for (mail, said) in [
        (
            "Subject: \u{fc}\n\nx\n",
            "the header section that begins in line 1 has octets above 127",
        ),
        (
            "Content-Type: multipart/mixed; boundary=b\n\n--b\nX: \u{fc}\n\nx\n--b--\n",
            "the header section that begins in line 4 has octets above 127",
        ),
        (
            "Content-Transfer-Encoding: base64\n\n\u{fc}\n",
            "the part that begins in line 1 is encoded in base64 and does not fit as it is",
        ),
        (
            "Content-Type: message/partial; id=x\n\n\u{fc}\n",
            "the part that begins in line 1 is message/partial and does not fit as it is",
        ),
        (
            "Content-Type: multipart/mixed\n\n\u{fc}\n",
            "the part that begins in line 1 is a multipart without a boundary and does not fit as it is",
        ),
    ] {
        assert_eq!(obstacle(mail).to_string(), said);
    }
    assert_eq!(
        obstacle(&format!("X: {}\n\nx\n", "y".repeat(1000))),
        Obstacle::HeaderLine(1003)
    );
    assert_eq!(obstacle(&"X: y\n".repeat(60_000)), Obstacle::HeaderLength(1));
    let deep = "Content-Type: message/rfc822\n\n".repeat(100);
    assert_eq!(obstacle(&deep), Obstacle::Depth);
    let many = format!(
        "Content-Type: multipart/mixed; boundary=b\n\n{}",
        "--b\n\nx\n".repeat(20_001)
    );
    assert_eq!(obstacle(&many), Obstacle::Parts);
}

/// The leaves of a mail as another parser finds them, decoded.
fn leaves(mail: &[u8]) -> Vec<Vec<u8>> {
    let parsed = MessageParser::new().parse(mail).unwrap();
    let mut all = Vec::new();
    collect(&parsed, &mut all);
    all
}

fn collect(parsed: &mail_parser::Message<'_>, all: &mut Vec<Vec<u8>>) {
    for part in &parsed.parts {
        match &part.body {
            mail_parser::PartType::Multipart(_) => {}
            mail_parser::PartType::Message(inner) => collect(inner, all),
            _ => {
                let raw = &parsed.raw_message[part.offset_body as usize..part.offset_end as usize];
                let label = part
                    .content_transfer_encoding()
                    .unwrap_or_default()
                    .to_ascii_lowercase();
                all.push(match (part.encoding, label.as_str()) {
                    (_, "quoted-printable") => unquoted(raw),
                    (_, "base64") | (Encoding::Base64, _) => unbased(raw),
                    _ => raw.to_vec(),
                });
            }
        }
    }
}

fn unquoted(raw: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(raw.to_vec()).unwrap().replace("=\r\n", "");
    let mut out = Vec::new();
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        out.push(match octet {
            b'=' => {
                let pair = [octets.next().unwrap(), octets.next().unwrap()];
                u8::from_str_radix(str::from_utf8(&pair).unwrap(), 16).unwrap()
            }
            octet => octet,
        });
    }
    out
}

fn unbased(raw: &[u8]) -> Vec<u8> {
    use base64::Engine;
    let text: Vec<u8> = raw
        .iter()
        .copied()
        .filter(|octet| !octet.is_ascii_whitespace())
        .collect();
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

/// Lines of anything, with their ends.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![
        5 => (b' '..=b'~').prop_map(|octet| octet),
        1 => Just(b' '),
        1 => Just(b'\t'),
        1 => Just(b'='),
        2 => 128_u8..=255,
    ];
    let line = prop_oneof![
        8 => prop::collection::vec(octet.clone(), 0..100),
        1 => prop::collection::vec(octet, 900..1100),
        1 => prop::collection::vec(b'!'..=b'~', 900..2100),
    ];
    prop::collection::vec(line, 1..6).prop_map(|lines| {
        let mut body = lines.join(&b"\r\n"[..]);
        body.extend_from_slice(b"\r\n");
        body
    })
}

#[derive(Clone, Debug)]
enum Tree {
    Leaf(&'static str, Vec<u8>),
    Parts(Vec<Tree>),
    Mail(Box<Tree>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = (
        prop::sample::select(vec![
            "",
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n",
            "Content-Type: text/html\r\n",
            "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n",
            "Content-Type: image/png; name=x\r\nContent-Disposition: attachment\r\n",
        ]),
        body(),
    );
    leaf.prop_map(|(header, body)| Tree::Leaf(header, body))
        .prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..4).prop_map(Tree::Parts),
                // A mail in a mail in a multipart: the other parser loses its way there.
                inner.prop_map(|tree| match tree {
                    Tree::Mail(inner) => Tree::Mail(inner),
                    tree => Tree::Mail(Box::new(tree)),
                }),
            ]
        })
}

/// Writes a tree; `id` makes boundaries differ.
fn write(tree: &Tree, id: &mut u32, out: &mut Vec<u8>) {
    match tree {
        Tree::Leaf(header, body) => {
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(body);
        }
        Tree::Parts(parts) => {
            *id += 1;
            let boundary = format!("=_{id}_boundary");
            out.extend_from_slice(
                format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n").as_bytes(),
            );
            for part in parts {
                out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
                write(part, id, out);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        }
        Tree::Mail(inner) => {
            out.extend_from_slice(
                b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\nMIME-Version: 1.0\r\n",
            );
            write(inner, id, out);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_part_decodes_to_the_octets_that_it_had(
        tree in tree(), chunk in 1_usize..3000, eight_bit: bool, line in prop::sample::select(vec![998_u64, u64::MAX]),
    ) {
        let limits = Limits { eight_bit, line };
        let mut mail = b"Subject: x\r\nMIME-Version: 1.0\r\n".to_vec();
        write(&tree, &mut 0, &mut mail);
        let out = convert(&mail, limits, chunk);
        prop_assert!(eight_bit || out.is_ascii());
        if line == 998 {
            prop_assert!(out.split(|octet| *octet == b'\n').all(|line| line.len() <= 999));
        }
        prop_assert_eq!(leaves(&out), leaves(&mail));
        // What was converted fits.
        prop_assert!(!survey(&out, limits, chunk).unwrap().changes());
    }

    #[test]
    fn anything_is_read_without_a_panic_and_in_any_chunks(
        mail in prop::collection::vec(prop::sample::select(vec![
            "--b", "--", "b", "\r\n", "\r", "\n", "\r\n\r\n", "Content-Type: multipart/mixed; boundary=b\r\n", "\u{fc}", " ", ":", "Content-Type: message/rfc822\r\n\r\n",
            "Content-Transfer-Encoding: base64\r\n", "\0",
        ]), 0..40),
        chunk in 1_usize..50,
    ) {
        let mail = mail.concat().into_bytes();
        let whole = survey(&mail, SEVEN_BIT, usize::MAX);
        prop_assert_eq!(&survey(&mail, SEVEN_BIT, chunk), &whole);
        if whole.is_ok() {
            prop_assert_eq!(convert(&mail, SEVEN_BIT, chunk), convert(&mail, SEVEN_BIT, usize::MAX));
        }
    }
}
