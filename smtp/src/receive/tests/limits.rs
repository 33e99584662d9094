use tokio::io::{AsyncBufReadExt, BufReader};

use super::*;

#[test]
fn a_mail_that_is_too_large_is_refused_and_thrown_away() {
    let head = "EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n";
    let (over, far_over) = ("x".repeat(10_001), "x".repeat(30_000));
    for (body, expected) in [
        (format!("DATA\r\n{over}\r\n.\r\nNOOP\r\n"), "354 552 250"),
        (
            format!("BDAT {}\r\n{over}BDAT 0 LAST\r\nNOOP\r\n", over.len()),
            "552 552 250",
        ),
        // Far beyond it the connection ends: nobody reads for ever.
        (format!("DATA\r\n{far_over}\r\n.\r\nNOOP\r\n"), "354 552"),
        (format!("BDAT 999999999999 LAST\r\n{far_over}"), "552"),
    ] {
        let (answers, taken) = converse_whole(
            settings(Protocol::Smtp),
            format!("{head}{body}").as_bytes(),
            WHOLE,
        );
        assert_eq!(codes(&answers), format!("220 250 250 250 {expected}"));
        assert!(taken.is_empty());
    }
}

#[test]
fn mistakes_end_the_connection() {
    let (answers, _) = converse_whole(settings(Protocol::Smtp), &b"WHAT\r\n".repeat(9), WHOLE);
    assert_eq!(codes(&answers), "220 500 500 500 500 500 421");
    let (answers, _) = converse_whole(settings(Protocol::Smtp), &b"NOOP\r\n".repeat(500), WHOLE);
    assert_eq!(answers.matches("250 ").count(), 200);
    assert!(codes(&answers).ends_with("250 421"));
    let long = [b"NOOP ".as_slice(), &[b'x'; 5000]].concat();
    let (answers, _) = converse_whole(settings(Protocol::Smtp), &long, WHOLE);
    assert_eq!(codes(&answers), "220 500");
    for input in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@b>\r\n",
        "POST / HTTP/1.1\r\n\r\nEHLO a\r\n",
    ] {
        let (answers, _) = converse_whole(settings(Protocol::Smtp), input.as_bytes(), WHOLE);
        assert_eq!(codes(&answers), "220 421");
    }
}

#[test]
fn refused_recipients_are_no_mistakes() {
    let mut settings = settings(Protocol::Smtp);
    settings.max_recipients = 100;
    let recipients = "RCPT TO:<nobody@d>\r\n".repeat(50);
    let input =
        format!("EHLO a\r\nMAIL FROM:<a@b>\r\n{recipients}RCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n");
    let (answers, taken) = converse_whole(settings, input.as_bytes(), WHOLE);
    assert!(codes(&answers).ends_with("550 250 354 250 221"), "{answers}");
    assert_eq!(taken.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_told_and_left() {
    for (said, expected) in [
        ("", "220 421"),
        ("EHLO a", "220 421"),
        (
            "EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx",
            "220 250 250 250 354 421",
        ),
    ] {
        let mut bench = Bench::new(settings(Protocol::Smtp));
        bench.stream.write_all(said.as_bytes()).await.unwrap();
        let mut answers = String::new();
        let ended = Clock::system()
            .timeout(
                Duration::from_secs(400),
                bench.stream.read_to_string(&mut answers),
            )
            .await;
        ended.unwrap().unwrap();
        assert_eq!(codes(&answers), expected);
        assert!(bench.taken().is_empty());
    }
}

#[tokio::test]
async fn connections_beyond_the_limits_are_told() {
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(
        Listener::Tcp(tcp),
        Arc::new(Keeper::default()),
        Arc::new(settings(Protocol::Smtp)),
        Clock::system(),
        stop.clone(),
    ));
    let greeting = || async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        (stream, line)
    };
    let (first, line) = greeting().await;
    assert!(line.starts_with("220 "), "{line}");
    let (mut second, line) = greeting().await;
    assert!(line.starts_with("220 "), "{line}");
    let (_, line) = greeting().await;
    assert_eq!(line, "421 4.3.2 too many connections\r\n");
    drop(first);
    // The place is free again as soon as the session has seen the end.
    while !greeting().await.1.starts_with("220") {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let mut farewell = String::new();
    second.read_to_string(&mut farewell).await.unwrap();
    assert_eq!(farewell, "421 4.3.2 the service ends\r\n");
    serving.await.unwrap();
}
