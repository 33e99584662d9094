use super::*;

#[test]
fn lines_are_read() {
    let mail = |text: &str| Ok(Command::Mail(text.parse().unwrap()));
    let rcpt = |text: &str| Ok(Command::Rcpt(text.parse().unwrap()));
    for (line, expected) in [
        (&b"HELO a.example"[..], Ok(Command::Helo("a.example".into()))),
        (b"ehlo [192.0.2.1]", Ok(Command::Ehlo("[192.0.2.1]".into()))),
        (b"MAIL FROM:<a@b> SIZE=3", mail("<a@b> SIZE=3")),
        (b"mail from: <a@b>", mail("<a@b>")),
        (b"MAIL FROM:<>", mail("<>")),
        (
            b"MAIL FROM:<a@b> BY=120;R MT-PRIORITY=3",
            mail("<a@b> MT-PRIORITY=3 BY=120;R"),
        ),
        (b"RCPT TO:<a@b> NOTIFY=NEVER", rcpt("<a@b> NOTIFY=NEVER")),
        (b"DATA", Ok(Command::Data)),
        (b"data ", Ok(Command::Data)),
        (b"BDAT 0", Ok(Command::Bdat { size: 0, last: false })),
        (b"BDAT 12 last", Ok(Command::Bdat { size: 12, last: true })),
        (b"NOOP whatever", Ok(Command::Noop)),
        (b"VRFY a", Ok(Command::Vrfy)),
        (b"QUIT", Ok(Command::Quit)),
    ] {
        assert_eq!(
            Command::parse(Protocol::Smtp, line),
            expected,
            "{}",
            line.escape_ascii()
        );
    }
}

#[test]
fn other_lines_are_refused_with_their_codes() {
    for (line, expected) in [
        (&b""[..], "500 5.5.2"),
        (b"WHAT", "500 5.5.2"),
        (b"LHLO a", "500 5.5.2"),
        (b"EHLO", "501 5.5.4"),
        (b"EHLO  ", "501 5.5.4"),
        (b"MAIL TO:<a@b>", "501 5.5.4"),
        (b"MAIL FROM:<a b>", "501 5.1.7"),
        (b"MAIL FROM:<a@b> X=1", "555 5.5.4"),
        (b"MAIL FROM:<a@b> SIZE=x", "501 5.5.4"),
        (b"MAIL FROM:<a@b> BODY=BINARYMIME", "555 5.6.1"),
        (b"MAIL FROM:<a@b\xff>", "501 5.5.2"),
        (b"RCPT TO:<>", "501 5.1.3"),
        (b"RCPT TO:<postmaster>", "501 5.1.3"),
        (b"RCPT TO:<a@b> SIZE=1", "555 5.5.4"),
        (b"RCPT TO:<a@b>\rRCPT TO:<c@d>", "500 5.5.2"),
        (b"RCPT TO:<a@b>\nRCPT TO:<c@d>", "500 5.5.2"),
        (b"RCPT TO:<a\0@b>", "500 5.5.2"),
        (b"DATA now", "501 5.5.4"),
        (b"BDAT", "501 5.5.4"),
        (b"BDAT x", "501 5.5.4"),
        (b"BDAT -1", "501 5.5.4"),
        (b"BDAT +1", "501 5.5.4"),
        (b"BDAT 1 LAST LAST", "501 5.5.4"),
        (b"BDAT 1 FIRST", "501 5.5.4"),
        (b"BDAT 99999999999999999999", "501 5.5.4"),
        (b"VRFY", "501 5.5.4"),
        (b"EXPN list", "502 5.5.1"),
        (b"AUTH PLAIN", "502 5.5.1"),
        (b"QUIT now", "501 5.5.4"),
    ] {
        let error = Command::parse(Protocol::Smtp, line).unwrap_err();
        let reply = Reply::from(error).to_string();
        assert!(reply.starts_with(expected), "{}: {reply}", line.escape_ascii());
    }
    for line in [b"HELO a".as_slice(), b"EHLO a"] {
        assert!(Command::parse(Protocol::Lmtp, line).is_err());
    }
}
