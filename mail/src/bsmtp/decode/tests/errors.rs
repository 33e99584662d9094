use super::*;

const HEAD: &str = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";

fn message(line_ends: LineEnds, object: &str) -> String {
    let (_, result) = whole(line_ends, object);
    for size in [1, 2, 3, 7] {
        let (_, other) = decode(line_ends, Limits::default(), object.as_bytes(), &[size]);
        assert_eq!(result, other, "by {size}");
    }
    result.unwrap_err().to_string()
}

/// What follows a complete mail of 52 octets on 6 lines, and the error.
const BEHIND_A_MAIL: &[(&str, &str)] = &[
    (
        "STARTTLS\r\n",
        "line 7, octet 52, transaction 2 (begun on line 7): the command STARTTLS does not belong into Batch SMTP",
    ),
    (
        "auth PLAIN x\r\n",
        "line 7, octet 52, transaction 2 (begun on line 7): the command auth does not belong into Batch SMTP",
    ),
    (
        "BDAT 5 LAST\r\n",
        "line 7, octet 52, transaction 2 (begun on line 7): the command BDAT does not belong into Batch SMTP",
    ),
    (
        "VRFY x\r\n",
        "line 7, octet 52, transaction 2 (begun on line 7): the command VRFY does not belong into Batch SMTP",
    ),
    (
        "\x01\r\n",
        "line 7, octet 52, transaction 2 (begun on line 7): the command \\u{1} does not belong into Batch SMTP",
    ),
    (
        "\r\n",
        "line 7, octet 52, transaction 2 (begun on line 7): a command is missing",
    ),
    (
        "RCPT TO:<c@d>\r\n",
        "line 7, octet 52, transaction 2 (begun on line 7): RCPT stands before MAIL",
    ),
    (
        "DATA\r\n",
        "line 7, octet 52, transaction 2 (begun on line 7): DATA stands before MAIL",
    ),
    (
        "MAIL <a@b>\r\n",
        "line 7, octet 52, transaction 2 (begun on line 7): MAIL: expected FROM:<address>",
    ),
    (
        "MAIL FROM:<a>\r\n",
        "line 7, octet 52, transaction 2 (begun on line 7): MAIL: \"a\" has no domain",
    ),
    (
        "MAIL FROM:<>\r\nMAIL FROM:<>\r\n",
        "line 8, octet 66, transaction 2 (begun on line 7): MAIL stands inside a transaction",
    ),
    (
        "MAIL FROM:<>\r\nDATA\r\n",
        "line 8, octet 66, transaction 2 (begun on line 7): DATA stands before RCPT",
    ),
    (
        "MAIL FROM:<>\r\nRCPT <a@b>\r\n",
        "line 8, octet 66, transaction 2 (begun on line 7): RCPT: expected TO:<address>",
    ),
    (
        "MAIL FROM:<>\r\nQUIT\r\n",
        "line 8, octet 66, transaction 2 (begun on line 7): QUIT stands behind MAIL, before DATA",
    ),
    (
        "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA x\r\n",
        "line 9, octet 81, transaction 2 (begun on line 7): DATA: takes no argument",
    ),
    (
        "QUIT x\r\n",
        "line 7, octet 52, transaction 2 (begun on line 7): QUIT: takes no argument",
    ),
    (
        "QUIT\r\n\r\n",
        "line 8, octet 58, transaction 2 (begun on line 8): something follows QUIT",
    ),
    (
        "QUIT",
        "line 7, octet 52, transaction 2 (begun on line 7): the object ends in a command line",
    ),
    (
        "MAIL FROM:<>\r\n",
        "line 8, octet 66, transaction 2 (begun on line 7): the object ends behind MAIL, before DATA",
    ),
    (
        "NOOP\n",
        "line 7, octet 56, transaction 2 (begun on line 7): a LF that is no line end of this object",
    ),
    (
        "NO\rOP\r\n",
        "line 7, octet 54, transaction 2 (begun on line 7): a CR that is no line end of this object",
    ),
];

#[test]
fn errors_name_line_octet_and_transaction() {
    let first = format!("EHLO x\r\n{HEAD}x\r\n.\r\n");
    assert_eq!(first.len(), 52);
    for (rest, expected) in BEHIND_A_MAIL {
        assert_eq!(message(LineEnds::Crlf, &format!("{first}{rest}")), *expected);
    }
}

#[test]
fn errors_in_bodies_name_their_place() {
    for (line_ends, rest, expected) in [
        (
            LineEnds::Crlf,
            "a\nb\r\n.\r\n",
            "line 4, octet 39, transaction 1 (begun on line 1): a LF that is no line end of this object",
        ),
        (
            LineEnds::Crlf,
            "a\r\nb\rc\r\n.\r\n",
            "line 5, octet 42, transaction 1 (begun on line 1): a CR that is no line end of this object",
        ),
        (
            LineEnds::Detect,
            "a\r\n.\n",
            "line 5, octet 42, transaction 1 (begun on line 1): a LF that is no line end of this object",
        ),
        (
            LineEnds::Crlf,
            "a\r\n",
            "line 4, octet 38, transaction 1 (begun on line 1): the object ends in a body, without the final dot",
        ),
        (
            LineEnds::Crlf,
            "a\r\n.\r",
            "line 4, octet 38, transaction 1 (begun on line 1): the object ends in a body, without the final dot",
        ),
    ] {
        assert_eq!(message(line_ends, &format!("{HEAD}{rest}")), expected);
    }
    let exim = HEAD.replace("\r\n", "\n");
    assert_eq!(
        message(LineEnds::Detect, &format!("{exim}a\r\n.\r\n")),
        "line 4, octet 36, transaction 1 (begun on line 1): a CR that is no line end of this object"
    );
    assert_eq!(
        message(LineEnds::Crlf, &exim),
        "line 1, octet 15, transaction 1 (begun on line 1): a LF that is no line end of this object"
    );
}

#[test]
fn an_object_without_mail_is_an_error() {
    for object in ["", "EHLO x\r\n", "MAIL FROM:<a@b>\r\nRSET\r\n", "QUIT\r\n"] {
        let (_, result) = whole(LineEnds::Crlf, object);
        assert_eq!(
            result.unwrap_err().kind,
            DecodeErrorKind::NoTransaction,
            "{object}"
        );
    }
}

#[test]
fn limits_hold_exactly() {
    let limits = Limits {
        command_line: 20,
        recipients: 2,
        transactions: 2,
        body: 5,
    };
    let run = |object: &str| {
        let (_, result) = decode(LineEnds::Crlf, limits, object.as_bytes(), &[usize::MAX]);
        for size in [1, 3] {
            assert_eq!(
                decode(LineEnds::Crlf, limits, object.as_bytes(), &[size]).1,
                result
            );
        }
        result.map_err(|error| format!("{} {} {}", error.line, error.offset, error.kind))
    };
    let mail = |body: &str| format!("{HEAD}{body}.\r\n");
    assert_eq!(run(&mail("abc\r\n")), Ok(()));
    assert_eq!(run(&mail("..bc\r\n")), Ok(()));
    assert_eq!(
        run(&mail("abcd\r\n")),
        Err("4 38 the body exceeds the limit of 5".into())
    );
    assert_eq!(run(&mail("").repeat(2)), Ok(()));
    assert_eq!(
        run(&mail("").repeat(3)),
        Err("9 82 the number of transactions exceeds the limit of 2".into())
    );
    assert_eq!(run(&format!("NOOP {}\r\n{}", "x".repeat(13), mail(""))), Ok(()));
    assert_eq!(
        run(&format!("NOOP {}\r\n{}", "x".repeat(14), mail(""))),
        Err("1 0 the command line exceeds the limit of 20".into())
    );
    assert_eq!(
        run("MAIL FROM:<>\r\nRCPT TO:<a>\r\nRCPT TO:<a@b>\r\nRCPT TO:<a@b>\r\n"),
        Err("4 42 the number of recipients exceeds the limit of 2".into())
    );
    assert_eq!(
        run("MAIL FROM:<> SIZE=6\r\n").map_err(|error| error.contains("command line")),
        Err(true)
    );
    assert_eq!(
        run("MAIL FROM:<>SIZE=6"),
        Err("1 0 the object ends in a command line".to_owned())
    );
}

#[test]
fn a_declared_size_over_the_limit_is_refused_at_once() {
    let limits = Limits {
        body: 5,
        ..Limits::default()
    };
    let (_, result) = decode(LineEnds::Crlf, limits, b"MAIL FROM:<> SIZE=6\r\n", &[1]);
    let error = result.unwrap_err();
    assert_eq!(error.kind.to_string(), "the declared SIZE exceeds the limit of 5");
    assert_eq!(error.code().to_string(), "5.3.4");
}
