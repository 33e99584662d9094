use super::*;

#[test]
fn a_group_of_commands_is_a_mail() {
    let input = b"EHLO a.example\r\nMAIL FROM:<a@b> RET=HDRS\r\nRCPT TO:<c@d> NOTIFY=NEVER\r\nRCPT TO:<nobody@d>\r\nDATA\r\n\
        x\r\n..y\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<e@f>\r\nDATA\r\n.\r\nQUIT\r\n";
    let (answers, taken) = converse_whole(settings(Protocol::Smtp), input, WHOLE);
    assert_eq!(codes(&answers), "220 250 250 250 550 354 250 250 250 354 250 221");
    assert!(
        answers.contains("550 5.1.1 no such user??250 smuggled\r\n"),
        "{answers}"
    );
    let one = |sender: &str, recipient: &str, body: &[u8]| Taken {
        with: "ESMTP",
        sender: sender.into(),
        recipients: vec![recipient.into()],
        body: body.into(),
    };
    assert_eq!(
        taken,
        [
            one("<a@b> RET=HDRS", "<c@d> NOTIFY=NEVER", b"x\r\n.y\r\n"),
            one("<>", "<e@f>", b"")
        ]
    );
}

#[test]
fn what_is_offered() {
    let (answers, _) = converse_whole(settings(Protocol::Smtp), b"EHLO a\r\nQUIT\r\n", WHOLE);
    for keyword in [
        "relay.example",
        "PIPELINING",
        "SIZE 10000",
        "8BITMIME",
        "SMTPUTF8",
        "DSN",
        "ENHANCEDSTATUSCODES",
        "CHUNKING",
        "MT-PRIORITY",
        "DELIVERBY",
    ] {
        let line = |mark: &str| answers.contains(&format!("250{mark}{keyword}\r\n"));
        assert!(line("-") || line(" "), "{keyword}: {answers}");
    }
    for keyword in ["STARTTLS", "BINARYMIME", "AUTH"] {
        assert!(!answers.contains(keyword), "{keyword}");
    }
}

#[test]
fn sequences_and_their_codes() {
    let cases: &[(&str, &str)] = &[
        ("MAIL FROM:<a@b>", "503"),
        ("EHLO a|RCPT TO:<a@b>", "250 503"),
        ("EHLO a|DATA", "250 503"),
        ("EHLO a|BDAT 0 LAST", "250 503"),
        ("EHLO a|MAIL FROM:<a@b>|MAIL FROM:<a@b>", "250 250 503"),
        ("EHLO a|MAIL FROM:<a@b>|DATA", "250 250 503"),
        (
            "EHLO a|MAIL FROM:<a@b>|RCPT TO:<nobody@c>|DATA",
            "250 250 550 503",
        ),
        ("EHLO a|MAIL FROM:<a@b>|RSET|RCPT TO:<a@b>", "250 250 250 503"),
        ("EHLO a|MAIL FROM:<a@b>|EHLO a|RCPT TO:<a@b>", "250 250 250 503"),
        (
            "HELO a|MAIL FROM:<a@b>|RCPT TO:<a@b>|DATA|x|.",
            "250 250 250 354 250",
        ),
        ("EHLO a|MAIL FROM:<a@b> SIZE=10001", "250 552"),
        ("EHLO a|MAIL FROM:<ä@b>", "250 553"),
        ("EHLO a|MAIL FROM:<ä@b> SMTPUTF8|RCPT TO:<ö@b>", "250 250 250"),
        ("EHLO a|MAIL FROM:<a@b>|RCPT TO:<ö@b>", "250 250 553"),
        ("EHLO a|STARTTLS", "250 502"),
        ("NOOP|VRFY a|HELP|RSET", "250 252 214 250"),
        (
            "EHLO a|MAIL FROM:<a@b>|RCPT TO:<1@b>|RCPT TO:<2@b>|RCPT TO:<3@b>|RCPT TO:<4@b>",
            "250 250 250 250 250 452",
        ),
        (
            "EHLO a|MAIL FROM:<a@b>|RCPT TO:<1@b>|DATA|REFUSE|.|MAIL FROM:<a@b>",
            "250 250 250 354 554 250",
        ),
    ];
    for (lines, expected) in cases {
        let input = lines.replace('|', "\r\n") + "\r\nQUIT\r\n";
        let (answers, _) = converse_whole(settings(Protocol::Smtp), input.as_bytes(), WHOLE);
        assert_eq!(codes(&answers), format!("220 {expected} 221"), "{lines}");
    }
}

#[test]
fn lmtp_answers_for_each_recipient() {
    let input = b"HELO a\r\nLHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<nobody@d>\r\nRCPT TO:<e@d>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n";
    let (answers, taken) = converse_whole(settings(Protocol::Lmtp), input, WHOLE);
    assert_eq!(codes(&answers), "220 500 250 250 250 550 250 354 250 250 221");
    assert_eq!(taken[0].recipients.len(), 2);
}

#[test]
fn chunks_are_a_body() {
    let head = "EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n";
    for (chunks, expected, body) in [
        (
            "BDAT 3\r\nx\r\nBDAT 6 LAST\r\n.\r\n.\r\n",
            "250 250",
            Some("x\r\n.\r\n.\r\n"),
        ),
        ("BDAT 0\r\nBDAT 0 LAST\r\n", "250 250", Some("")),
        ("BDAT 3\r\nx\r\nDATA\r\n", "250 503", None),
        ("BDAT 3\r\nx\r\nRCPT TO:<e@d>\r\n", "250 503", None),
        ("BDAT 3\r\nx\r\nRSET\r\nBDAT 3 LAST\r\nx\r\n", "250 250 503", None),
        ("BDAT 8\r\nREFUSE\r\nBDAT 3 LAST\r\nx\r\n", "554 554", None),
        ("BDAT 6\r\nQUIT\r\nBDAT 0 LAST\r\n", "250 250", Some("QUIT\r\n")),
    ] {
        let input = format!("{head}{chunks}QUIT\r\n");
        for sizes in [WHOLE, &[1], &[7]] {
            let (answers, taken) = converse_whole(settings(Protocol::Smtp), input.as_bytes(), sizes);
            assert_eq!(
                codes(&answers),
                format!("220 250 250 250 {expected} 221"),
                "{chunks}"
            );
            assert_eq!(
                taken.first().map(|mail| mail.body.as_slice()),
                body.map(str::as_bytes),
                "{chunks}"
            );
        }
    }
}

#[test]
fn the_protocol_of_the_trace_field() {
    let peer = |extended, tls| Peer {
        extended,
        tls,
        ..Peer::default()
    };
    use Protocol::{Lmtp, Smtp};
    for (protocol, extended, tls, utf8, expected) in [
        (Smtp, false, false, false, "SMTP"),
        (Smtp, true, false, false, "ESMTP"),
        (Smtp, true, true, false, "ESMTPS"),
        (Smtp, true, false, true, "UTF8SMTP"),
        (Smtp, true, true, true, "UTF8SMTPS"),
        (Lmtp, true, false, false, "LMTP"),
        (Lmtp, true, true, false, "LMTPS"),
        (Lmtp, true, false, true, "UTF8LMTP"),
        (Lmtp, true, true, true, "UTF8LMTPS"),
    ] {
        assert_eq!(peer(extended, tls).with(protocol, utf8), expected);
    }
}
