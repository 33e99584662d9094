//! Ugly mails: such as mail systems have met and broken, made for the project. The legal ones are every header section of [`heads`] with
//! every body of [`bodies`]; each has a number in it by which it is known again.

use crate::corpus::Noise;

/// A part of a mail and what it is.
pub type Part = (&'static str, Vec<u8>);

/// A mail that has to cross as it is.
#[derive(Clone, Debug)]
pub struct Ugly {
    /// What it is made of.
    pub name: String,
    /// All of it, canonical.
    pub mail: Vec<u8>,
}

/// All of them.
pub fn legal() -> Vec<Ugly> {
    let (heads, bodies) = (heads(), bodies());
    let mut all = Vec::new();
    for (what, head) in &heads {
        for (kind, body) in &bodies {
            let marker = format!("ugly mail number {:04}\r\n", all.len());
            let parts = [head.as_slice(), b"\r\n", marker.as_bytes(), body];
            all.push(Ugly {
                name: format!("{what}, {kind}"),
                mail: parts.concat(),
            });
        }
    }
    // Without a body, or without a header section.
    for (name, mail) in [
        ("a header section that ends with the mail", "Subject: end\r\n"),
        ("a header section and the empty line", "Subject: end\r\n\r\n"),
        ("an empty line", "\r\n"),
        ("an empty line and text", "\r\ntext\r\n"),
        (
            "text without a header section",
            "This is not a header\r\nnor is this\r\n",
        ),
        (
            "a folded line first",
            " folded: onto nothing\r\nSubject: x\r\n\r\nx\r\n",
        ),
        ("a colon first", ": x\r\n\r\nx\r\n"),
        ("a header section of dots", ".\r\n..\r\n\r\n.\r\n"),
        (
            "an mbox line first",
            "From alice@earth.example Sun Nov 22 12:00:00 2026\r\nSubject: mbox\r\n\r\nx\r\n",
        ),
        (
            "a quoted mbox line first",
            ">From alice\r\nSubject: mbox\r\n\r\nx\r\n",
        ),
    ] {
        all.push(Ugly {
            name: name.to_owned(),
            mail: mail.as_bytes().to_vec(),
        });
    }
    all
}

fn text(name: &'static str, text: &str) -> Part {
    (name, text.as_bytes().to_vec())
}

/// Header sections, without the empty line behind them.
pub fn heads() -> Vec<Part> {
    let mut latin = b"Subject: Gr\xfc\xdfe vom Mond\r\nFrom: J\xf6rg <joerg@earth.example>\r\n".to_vec();
    latin.extend_from_slice(b"X-Raw: \x80\x81\xfe\xff\r\n");
    let references: String = (0..400).map(|n| format!("\r\n <{n}.x@earth.example>")).collect();
    let hops: String = (0..40)
        .map(|n| format!("Received: from a{n}.example by b{n}.example; Sun, 22 Nov 2026 12:00:00 +0000\r\n"))
        .collect();
    let fields: String = (0..2000).map(|n| format!("X-Field-{n}: {n}\r\n")).collect();
    vec![
        text(
            "folded with tabs and blanks",
            "Subject: a\r\n\tb\r\n  c\r\n \t \r\nTo: bob@moon.example,\r\n eve@moon.example\r\n",
        ),
        text(
            "names that are odd",
            "!#$%&'*+-/=?^_`{|}~.: x\r\nX:\r\n0: 0\r\nSUBJECT:no blank\r\nsubject : one before the colon\r\n",
        ),
        text(
            "everything twice",
            "From: a@b.example\r\nFrom: c@d.example\r\nSubject: 1\r\nSubject: 2\r\nDate: never\r\nDate: Sun, 31 Feb 2026 25:61:61 +9999\r\nMessage-ID: <1@b>\r\nMessage-ID: 2\r\n",
        ),
        text(
            "addresses of old",
            "From: \"A \\\"quoted\\\" (name)\" <@relay.example,@b.example:a@b.example> (com(ment)ed)\r\nTo: undisclosed recipients:;, group: a@b.example, <c@d.example>;\r\nCc: <\"odd \\\" local\"@b.example>, a . b @ c . example\r\n",
        ),
        text(
            "encoded words, whole and broken",
            "Subject: =?utf-8?b?R3LDvMOfZQ==?= =?utf-8?q?_vom?=\r\n =?utf-8?q?_Mond?=\r\nX-Broken: =?utf-8?b?!!!?= =?nope?x?y?= =?utf-8?q?=C3?= =??=\r\n",
        ),
        ("octets that are no UTF-8", latin),
        text(
            "UTF-8 as it is",
            "Subject: žluťoučký kůň 月より \u{1f680}\r\nFrom: Jürgen <juergen@earth.example>\r\nTo: \u{feff}bob\u{200b}@moon.example\r\n",
        ),
        (
            "control characters",
            b"Subject: \x01\x07\x08\x0b\x0c\x1b[31m\x7f\r\nX-Tab:\t\x09\r\n".to_vec(),
        ),
        (
            "a very long line",
            [b"Subject: ".as_slice(), &vec![b's'; 50_000], b"\r\nX: y\r\n"].concat(),
        ),
        (
            "a name of a thousand octets",
            [&vec![b'N'; 1000], b": v\r\n".as_slice()].concat(),
        ),
        text(
            "many references",
            &format!("References:{references}\r\nSubject: Re: Re: Re:\r\n"),
        ),
        text("forty hops", &hops),
        text("two thousand fields", &fields),
        text(
            "what others would remove or add",
            "Return-Path: <x@y.example>\r\nBcc: secret@moon.example\r\nDelivered-To: bob@moon.example\r\nX-Original-To: x\r\nContent-Length: 99999\r\nLines: -1\r\nStatus: RO\r\nResent-From: a@b.example\r\nResent-Bcc:\r\n",
        ),
        text(
            "MIME that contradicts itself",
            "MIME-Version: 9.9 (comment)\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\r\nContent-Type: text/plain; charset=\"nope; charset=utf-8\r\nContent-Transfer-Encoding: 9bit\r\nContent-Type:\r\n",
        ),
        text(
            "a multipart",
            "MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n boundary=\"=_b'()+_,-./:=? x\"\r\n",
        ),
        text(
            "RFC 2231 at its worst",
            "Content-Type: application/x; name*1*=%FF%zz; name*0*=utf-8'de'%e2%82; name=plain; name*9999999999=x\r\nContent-Disposition: attachment; filename*=''\r\n",
        ),
        text(
            "a signature",
            "DKIM-Signature: v=1; a=rsa-sha256; d=earth.example; s=s; c=simple/simple;\r\n\th=from : to  :subject; bh=AAAA=;\r\n b=AAAA BBBB\r\n\tCCCC==\r\nFrom:  alice@earth.example  \r\nTo:\tbob@moon.example\r\nSubject:   keep   my  blanks   \r\n",
        ),
        text(
            "dots at the beginning of lines",
            "Subject: dots\r\n .folded dot\r\nX: y\r\n .\r\n",
        ),
        text(
            "no colon in the middle",
            "Subject: x\r\nthis is no field\r\nTo: bob@moon.example\r\n",
        ),
    ]
}

/// Bodies; a line with the number stands before each.
pub fn bodies() -> Vec<Part> {
    let mut octets: Vec<u8> = (1..=255).filter(|octet| !b"\r\n".contains(octet)).collect();
    octets.extend_from_slice(b"\r\n");
    let mut noise = Noise::new(1);
    let mut random: Vec<u8> = (0..20_000).map(|_| 1 + noise.below(255) as u8).collect();
    random.retain(|octet| !b"\r\n".contains(octet));
    for at in (70..random.len()).step_by(200) {
        random.splice(at..at, *b"\r\n");
    }
    random.extend_from_slice(b"\r\n");
    let lines: Vec<u8> = [
        1, 76, 77, 78, 79, 510, 511, 512, 996, 997, 998, 999, 1000, 1001, 4095, 4096, 4097, 65_535, 65_536,
    ]
    .into_iter()
    .flat_map(|length| [vec![b'l'; length], b"\r\n".to_vec()].concat())
    .collect();
    let deep: String = (0..60)
        .map(|n| {
            format!(
                "--b{n}\r\nContent-Type: multipart/mixed; boundary=b{}\r\n\r\n",
                n + 1
            )
        })
        .collect();
    vec![
        text("nothing more", ""),
        text(
            "dots",
            ".\r\n..\r\n...\r\n. \r\n.\t\r\n.x\r\n\r\n.\r\n\r\n.\r\nRSET\r\n",
        ),
        text(
            "commands",
            "DATA\r\n.\r\nQUIT\r\nMAIL FROM:<x@y.example>\r\nRCPT TO:<bob@moon.example>\r\nBDAT 5 LAST\r\n--\r\nEHLO x\r\n",
        ),
        text(
            "blanks at the ends of lines",
            "a \r\nb\t\r\n \r\n\t\r\n\r\n\r\n\r\n",
        ),
        text("mbox lines", "From alice\r\n>From bob\r\n>>From eve\r\nFrom \r\n"),
        ("every octet but NUL, CR and LF", octets),
        ("noise", random),
        ("lines of critical lengths", lines),
        text(
            "quoted-printable that is none",
            "=\r\n=4\r\n=ZZ=3D=\r\n=20 \r\n=C3=BC=\r\n",
        ),
        text(
            "base64 that is none",
            "AAAA\r\n===\r\nA\r\n====AAAA!!!!\r\n-_-_\r\n",
        ),
        text(
            "parts without end",
            "--=_b'()+_,-./:=? x\r\n\r\none\r\n--=_b'()+_,-./:=? x\r\nContent-Type: text/plain\r\n--=_b'()+_,-./:=? x-\r\n--\r\n",
        ),
        text("parts sixty deep", &deep),
        text(
            "a mail in the mail",
            "Received: from x by y; z\r\nFrom: x@y.example\r\nMessage-ID: <inner@y.example>\r\n\r\n\r\n.\r\n",
        ),
        text(
            "UTF-8, marks and separators",
            "\u{feff}BOM\r\n\u{2028}line\u{2029}paragraph\u{85}next\u{202e}right to left\u{0301}\r\n\u{1f468}\u{200d}\u{1f469}\r\n",
        ),
        (
            "UTF-16 without CR, LF and NUL",
            b"\xff\xfeG\x01r\x02\xfc\x03\r\n\xfe\xff\x20\x20\r\n".to_vec(),
        ),
        text(
            "old encodings",
            "begin 644 x\r\n#86)C\r\n`\r\nend\r\n=ybegin line=128 size=1 name=x\r\n\u{1a}\r\n",
        ),
    ]
}
