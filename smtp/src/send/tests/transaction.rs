use super::*;

/// Delivers to two recipients and compares outcome and whether the session may be used again.
async fn check(hello: &str, text: &str, expected: &str, reusable: bool) {
    let server = Server::start(script(&format!("{HELLO}{hello}{text}"))).await;
    let mut session = open(&server).await;
    assert_eq!(result(deliver(&mut session, 2).await), expected, "{text}");
    assert_eq!(session.is_reusable(), reusable, "{text}");
    drop(session);
    server.done().await;
}

/// Replies to MAIL, two RCPT and DATA in one group.
const PIPELINED: &[(&str, &str, bool)] = &[
    (
        "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 2.0.0 done",
        "+250 +250",
        true,
    ),
    (
        "S: 250 ok\nS: 251 ok\nS: 550 no\nS: 354 go\nBODY\nS: 250 done",
        "+250 -550",
        true,
    ),
    (
        "S: 250 ok\nS: 450 no\nS: 250 ok\nS: 354 go\nBODY\nS: 554 no",
        "-450 -554",
        true,
    ),
    (
        "S: 250 ok\nS: 550 no\nS: 450 no\nS: 354 go\nC: .\nS: 554 none",
        "-550 -450",
        true,
    ),
    (
        "S: 250 ok\nS: 550 no\nS: 450 no\nS: 554 none\nC: RSET\nS: 250 ok",
        "-550 -450",
        true,
    ),
    (
        "S: 250 ok\nS: 550 no\nS: 450 no\nS: 250 what\nC: RSET\nS: 250 ok",
        "-550 -450",
        true,
    ),
    ("S: 250 ok\nS: 550 no\nS: 450 no", "-550 -450", false),
    (
        "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 451 no\nC: RSET\nS: 250 ok",
        "-451 -451",
        true,
    ),
    (
        "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 451 no\nC: RSET\nS: 500 what",
        "-451 -451",
        false,
    ),
    (
        "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 451 no\nC: RSET",
        "-451 -451",
        false,
    ),
    ("S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 421 no", "-421 -421", false),
    (
        "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 250 what",
        "protocol DATA: unexpected reply 250 what",
        false,
    ),
    ("S: 250 ok\nS: 550 no\nS: 421 bye", "-550 -421", false),
    ("S: 250 ok\nS: 250 ok\nS: 421 bye", "-421 -421", false),
    ("S: 452 no\nS: 503 no\nS: 503 no\nS: 503 no", "-452 -452", true),
    (
        "S: 552 no\nS: 503 no\nS: 503 no\nS: 354 go\nC: .\nS: 554 none",
        "-552 -552",
        true,
    ),
    ("S: 550 no", "-550 -550", false),
    ("S: 421 bye", "-421 -421", false),
    ("S: 354 what", "protocol MAIL: unexpected reply 354 what", false),
    (
        "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 421 bye",
        "-421 -421",
        false,
    ),
    (
        "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 354 what",
        "? ?",
        false,
    ),
    (
        "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: hello",
        "? ?",
        false,
    ),
];

#[tokio::test]
async fn pipelined() {
    let group = "C: MAIL FROM:<from@earth.example> SIZE=21
        C: RCPT TO:<r0@moon.example>
        C: RCPT TO:<r1@moon.example>
        C: DATA\n";
    for (text, expected, reusable) in PIPELINED {
        check(PIPELINING, &format!("{group}{text}"), expected, *reusable).await;
    }
}

#[tokio::test]
async fn step_by_step() {
    let mail = "C: MAIL FROM:<from@earth.example> SIZE=21\nS: 250 ok\n";
    let both = "C: RCPT TO:<r0@moon.example>\nS: 250 ok\nC: RCPT TO:<r1@moon.example>\nS: 250 ok\nC: DATA\n";
    let cases = [
        (
            format!("{mail}{both}S: 354 go\nBODY\nS: 250 done"),
            "+250 +250",
            true,
        ),
        (
            format!("{mail}{both}S: 354 go\nBODY\nS: 452 full"),
            "-452 -452",
            true,
        ),
        (
            format!("{mail}{both}S: 554 no\nC: RSET\nS: 250 ok"),
            "-554 -554",
            true,
        ),
        (
            format!("{mail}C: RCPT\nS: 550 no\nC: RCPT\nS: 450 no\nC: RSET\nS: 250 ok"),
            "-550 -450",
            true,
        ),
        (
            format!("{mail}C: RCPT\nS: 550 no\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 ok"),
            "-550 +250",
            true,
        ),
        (
            format!("{mail}C: RCPT\nS: 550 no\nC: RCPT\nS: 421 bye"),
            "-550 -421",
            false,
        ),
        ("C: MAIL\nS: 451 no".to_owned(), "-451 -451", true),
        ("C: MAIL\nS: 550 5.7.1 no".to_owned(), "-550 -550", true),
        ("C: MAIL\nS: 421 bye".to_owned(), "-421 -421", false),
    ];
    for (text, expected, reusable) in cases {
        check(NO_PIPELINING, &text, expected, reusable).await;
    }
}

/// Before the final dot a cut means that nothing was accepted; behind it nobody knows.
#[tokio::test]
async fn cut_at_each_point() {
    let group = "C: MAIL\nC: RCPT\nC: RCPT\nC: DATA\n";
    let replies = ["S: 250 ok\n", "S: 250 ok\n", "S: 250 ok\n", "S: 354 go\nBODY\n"];
    for (count, expected) in ["lost MAIL", "lost RCPT", "lost RCPT", "lost DATA", "? ?"]
        .into_iter()
        .enumerate()
    {
        let text = format!("{HELLO}{PIPELINING}{group}{}", replies[..count].concat());
        let server = Server::start(script(&text)).await;
        let mut session = open(&server).await;
        assert_eq!(result(deliver(&mut session, 2).await), expected, "{count}");
        assert!(!session.is_reusable());
        server.done().await;
    }
    let steps = [
        "C: MAIL\nS: 250 ok\n",
        "C: RCPT\nS: 250 ok\n",
        "C: RCPT\nS: 250 ok\n",
        "C: DATA\nS: 354 go\nBODY\n",
    ];
    for (count, expected) in ["lost MAIL", "lost RCPT", "lost RCPT", "lost DATA", "? ?"]
        .into_iter()
        .enumerate()
    {
        let text = format!("{HELLO}{NO_PIPELINING}{}", steps[..count].concat());
        let server = Server::start(script(&text)).await;
        let mut session = open(&server).await;
        assert_eq!(result(deliver(&mut session, 2).await), expected, "{count}");
        server.done().await;
    }
}

#[tokio::test]
async fn lmtp() {
    let hello = format!("{}{PIPELINING}", HELLO.replace("EHLO", "LHLO"));
    let group = "C: MAIL\nC: RCPT\nC: RCPT\nC: RCPT\nC: DATA\nS: 250 ok\n";
    let cases = [
        (
            "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 a\nS: 452 b\nS: 550 c",
            "+250 -452 -550",
            true,
        ),
        (
            "S: 250 ok\nS: 550 no\nS: 250 ok\nS: 354 go\nBODY\nS: 250 a\nS: 250 c",
            "+250 -550 +250",
            true,
        ),
        (
            "S: 250 ok\nS: 550 no\nS: 250 ok\nS: 354 go\nBODY\nS: 250 a",
            "+250 -550 ?",
            false,
        ),
        ("S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY", "? ? ?", false),
        (
            "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 550 a\nS: 421 b",
            "-550 -421 ?",
            false,
        ),
        (
            "S: 550 no\nS: 550 no\nS: 450 no\nS: 503 none\nC: RSET\nS: 250 ok",
            "-550 -550 -450",
            true,
        ),
        // Nobody knows how many replies follow such a dot.
        (
            "S: 550 no\nS: 550 no\nS: 550 no\nS: 354 go\nC: .",
            "-550 -550 -550",
            false,
        ),
    ];
    for (text, expected, reusable) in cases {
        let mut server = Server::start(script(&format!("{hello}{group}{text}"))).await;
        server.target.protocol = Protocol::Lmtp;
        let mut session = open(&server).await;
        assert_eq!(result(deliver(&mut session, 3).await), expected, "{text}");
        assert_eq!(session.is_reusable(), reusable, "{text}");
        drop(session);
        server.done().await;
    }
}

#[tokio::test]
async fn one_session_carries_many_mails() {
    let mail = "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 done\n";
    let refused = "C: MAIL\nC: RCPT\nC: DATA\nS: 550 no\nS: 503 no\nS: 503 no\n";
    let text = format!("{HELLO}{PIPELINING}{mail}{refused}{mail}C: QUIT\nS: 221 bye");
    let server = Server::start(script(&text)).await;
    let mut session = open(&server).await;
    for expected in ["+250", "-550", "+250"] {
        assert_eq!(result(deliver(&mut session, 1).await), expected);
    }
    session.close().await;
    server.done().await;
}

/// More recipients than one group holds.
#[tokio::test]
async fn many_recipients_go_in_groups() {
    let recipients = 250;
    let mut steps = script(&format!("{HELLO}{PIPELINING}C: MAIL\n"));
    for group in [100, 100, 50] {
        steps.extend(vec![Step::Expect("RCPT".to_owned()); group]);
        // DATA comes with the last group only: were it missing or early, the script would not match.
        if group == 50 {
            steps.push(Step::Expect("DATA".to_owned()));
        }
        if steps
            .iter()
            .filter(|step| matches!(step, Step::Expect(_)))
            .count()
            == 102
        {
            steps.push(Step::Send(b"250 ok\r\n".to_vec()));
        }
        steps.push(Step::Send(b"250 ok\r\n".repeat(group)));
    }
    steps.extend(script("S: 354 go\nBODY\nS: 250 done"));
    let server = Server::start(steps).await;
    let mut session = open(&server).await;
    assert_eq!(
        result(deliver(&mut session, recipients).await),
        ["+250"; 250].join(" ")
    );
    server.done().await;
}

#[tokio::test]
async fn too_large_is_refused_without_asking() {
    let server = Server::start(script(&format!("{HELLO}{PIPELINING}C: QUIT\nS: 221 bye"))).await;
    let mut session = open(&server).await;
    let delivery = session
        .deliver(&envelope(2), &facts(1001), body(""))
        .await
        .unwrap();
    let RecipientOutcome::Refused(reply) = &delivery.recipients[1] else {
        panic!("{delivery:?}");
    };
    assert_eq!(
        reply.to_string(),
        "552 5.3.4 the mail has 1001 octets, the server takes 1000"
    );
    assert!(delivery.dsn && session.is_reusable());
    session.close().await;
    server.done().await;
}

#[tokio::test]
async fn smtputf8_that_is_not_offered() {
    let text = format!("{HELLO}{PIPELINING}C: MAIL FROM:<from@earth.example> SIZE=21\r\nC: RCPT TO:<r0@moon.example>\nC: DATA
        S: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 done\nC: QUIT\nS: 221 bye");
    let server = Server::start(script(&text)).await;
    let mut session = open(&server).await;
    let mut mixed = envelope(2);
    mixed.recipients[1] = "<ünal@moon.example>".parse().unwrap();
    let delivery = session
        .deliver(&mixed, &facts(BODY.len()), body(BODY))
        .await
        .unwrap();
    assert_eq!(short(&delivery), "+250 !SMTPUTF8");
    let mut sender = envelope(1);
    sender.sender = "<ünal@earth.example>".parse().unwrap();
    let mut headers = envelope(1);
    headers.sender = "<a@earth.example> SMTPUTF8".parse().unwrap();
    let eight_bit_headers = BodyFacts {
        eight_bit_headers: true,
        ..facts(BODY.len())
    };
    for (envelope, facts) in [(sender, facts(BODY.len())), (headers, eight_bit_headers)] {
        let delivery = session.deliver(&envelope, &facts, body(BODY)).await.unwrap();
        assert_eq!(short(&delivery), "!SMTPUTF8");
    }
    session.close().await;
    server.done().await;
}

/// A body that breaks off, lies about its size or leaves its last line open never gets a final dot.
#[tokio::test]
async fn bodies_that_fail() {
    let broken = || {
        let chunks = [
            Ok(Bytes::from_static(b"Subject: x\r\n")),
            Err(io::Error::other("disk on fire")),
        ];
        stream::iter(chunks).boxed()
    };
    let cases = [
        (broken(), 21, "disk on fire"),
        (body("Subject: x\r\n"), 21, "12 octets instead of 21"),
        (body("Subject: x"), 10, "the last line has no end"),
    ];
    for (body, size, expected) in cases {
        let group = "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nHOLD";
        let server = Server::start(script(&format!("{HELLO}{PIPELINING}{group}"))).await;
        let mut session = open(&server).await;
        let error = session
            .deliver(&envelope(1), &facts(size), body)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), format!("the body cannot be read: {expected}"));
        assert!(!session.is_reusable());
        drop(session);
        server.done().await;
    }
}

#[tokio::test]
async fn bodies_are_stuffed() {
    let text = ".\r\n..x\r\n\r\n.y\r\n";
    let mut steps = script(&format!(
        "{HELLO}{PIPELINING}C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go"
    ));
    steps.push(Step::Body(b"..\r\n...x\r\n\r\n..y\r\n".to_vec()));
    steps.extend(script("S: 250 done"));
    let server = Server::start(steps).await;
    let mut session = open(&server).await;
    let delivery = session
        .deliver(&envelope(1), &facts(text.len()), body(text))
        .await
        .unwrap();
    assert_eq!(short(&delivery), "+250");
    server.done().await;
}

/// A server that has had enough in the middle of a body says so and hangs up: nothing was accepted.
#[tokio::test]
async fn refused_in_the_middle_of_a_body() {
    let hello = HELLO.replace("SIZE 1000", "SIZE");
    let text = format!(
        "{hello}{PIPELINING}C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nS: 552 enough"
    );
    let server = Server::start(script(&text)).await;
    let mut session = open(&server).await;
    // Far more than the socket buffers hold.
    let chunk =
        Bytes::from("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(1024));
    let chunks = vec![chunk; 1024];
    let size = chunks.iter().map(Bytes::len).sum();
    let body = stream::iter(chunks.into_iter().map(Ok)).boxed();
    let got = result(session.deliver(&envelope(1), &facts(size), body).await);
    // A reset may overtake the reply.
    assert!(got == "-552" || got == "lost body", "{got}");
    server.done().await;
}

#[tokio::test]
async fn silence_behind_the_dot() {
    let text = format!(
        "{HELLO}{PIPELINING}C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nPAUSE\nHOLD"
    );
    let server = Server::start(script(&text)).await;
    let mut session = open(&server).await;
    let delivery = deliver(&mut session, 1).await.unwrap();
    let RecipientOutcome::Unknown(cause) = &delivery.recipients[0] else {
        panic!("{delivery:?}");
    };
    assert!(cause.contains("no reply within 5s"), "{cause}");
    drop(session);
    server.done().await;
}
