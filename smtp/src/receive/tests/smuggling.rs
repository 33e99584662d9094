//! One connection that carries what somebody else wrote: nothing in it may become a second mail.

use proptest::prelude::*;

use super::*;

const HEAD: &[u8] = b"EHLO a.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n";
const SECOND: &str = "MAIL FROM:<mallory@b.example>#RCPT TO:<c@d.example>#DATA#smuggled#.#";

/// The probes of CVE-2023-51764, CVE-2023-51765 and CVE-2023-51766 as SEC Consult and the vendors published them, and relatives: a false end
/// of data, then a second mail with each kind of line end.
#[test]
fn no_probe_smuggles_a_mail() {
    for end in [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r.\r\n",
        "\r\n.\r",
        "\r\n\0.\r\n",
        "\r\n.\0\r\n",
        "\n\n.\r\n",
        "\r\r\n.\r\r\n",
        "\n\r.\r\n",
        "\r\n.\r\r\n",
        "\x0b.\x0b",
        "\x0c.\r\n",
        "\u{85}.\u{85}",
        "\u{2028}.\u{2028}",
    ] {
        for line_end in ["\r\n", "\n", "\r"] {
            let second = SECOND.replace('#', line_end);
            let data = format!("Subject: x\r\n\r\nfirst{end}{second}");
            // Where the second mail brings a right end itself, that is where the first one ends.
            let right = data.find("\r\n.\r\n").map_or(data.len(), |at| at + 5);
            let (mail, rest) = data.split_at(right);
            let body = mail.strip_suffix(".\r\n").unwrap_or(mail);
            let tail = if rest.is_empty() && body.len() == mail.len() {
                "\r\n.\r\n"
            } else {
                ""
            };
            let input = [HEAD, data.as_bytes(), tail.as_bytes(), b"QUIT\r\n"].concat();
            for sizes in [WHOLE, &[1], &[3]] {
                let (answers, taken) = converse_whole(settings(Protocol::Smtp), &input, sizes);
                assert_eq!(taken.len(), 1, "{} {answers}", end.escape_debug());
                assert_eq!(taken[0].sender, "<a@b.example>");
                assert!(
                    String::from_utf8_lossy(&taken[0].body).contains("smuggled"),
                    "{}",
                    end.escape_debug()
                );
            }
        }
    }
}

/// A bare LF is no way to end a command, and ends the connection.
#[test]
fn a_bare_lf_ends_no_command() {
    for input in [
        "EHLO a\nMAIL FROM:<a@b>\n",
        "EHLO a\r\nMAIL FROM:<a@b>\nRCPT TO:<c@d>\r\nDATA\r\n",
    ] {
        let (answers, taken) = converse_whole(settings(Protocol::Smtp), input.as_bytes(), WHOLE);
        assert!(codes(&answers).ends_with(" 521"), "{answers}");
        assert!(taken.is_empty());
    }
}

fn soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\r\n.\r\n".to_vec()),
        Just(b"\n.\n".to_vec()),
        Just(b"\r\n.\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\n".to_vec()),
        Just(b".".to_vec()),
        Just(b"MAIL FROM:<m@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n".to_vec()),
        Just(b"BDAT 5 LAST\r\n".to_vec()),
        Just(b"RSET\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What a correct client sends as one mail is one mail, octet for octet, however the network cuts it.
    #[test]
    fn a_stuffed_body_is_one_mail(text in soup(), sizes in proptest::collection::vec(1_usize..40, 1..5)) {
        let mut canonical = Vec::new();
        let mut machine = lightpost_mail::lines::Canonicaliser::new(lightpost_mail::lines::BareLineEnds::Normalise);
        machine.push(&text, &mut canonical).unwrap();
        machine.finish(&mut canonical).unwrap();
        let mut input = HEAD.to_vec();
        lightpost_mail::lines::Stuffer::new().push(&canonical, &mut input);
        input.extend_from_slice(b".\r\nQUIT\r\n");
        let (answers, taken) = converse_whole(settings(Protocol::Smtp), &input, &sizes);
        prop_assert_eq!(codes(&answers), "220 250 250 250 354 250 221");
        prop_assert_eq!(taken.len(), 1);
        prop_assert_eq!(&taken[0].body, &canonical);
    }

    /// The same holds of a chunk, which may hold anything.
    #[test]
    fn a_chunk_is_one_mail(text in soup(), sizes in proptest::collection::vec(1_usize..40, 1..5)) {
        let head = "EHLO a.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n";
        let mut input = format!("{head}BDAT {} LAST\r\n", text.len()).into_bytes();
        input.extend_from_slice(&text);
        input.extend_from_slice(b"QUIT\r\n");
        let (_, taken) = converse_whole(settings(Protocol::Smtp), &input, &sizes);
        prop_assert_eq!(taken.len(), 1);
        prop_assert_eq!(&taken[0].body, &text);
    }

    /// Whatever is said, it is answered and taken the same however it is cut.
    #[test]
    fn cuts_change_nothing(text in soup(), sizes in proptest::collection::vec(1_usize..40, 1..5)) {
        let input = [HEAD, text.as_slice(), b"\r\nQUIT\r\n"].concat();
        let whole = converse_whole(settings(Protocol::Smtp), &input, WHOLE);
        prop_assert_eq!(converse_whole(settings(Protocol::Smtp), &input, &sizes), whole);
    }
}
