use super::*;

mod chunks;
mod errors;
mod media_type;
mod round_trip;
mod smuggling;

/// What an object gives, neighbouring pieces of a body joined.
pub(super) fn decode(
    line_ends: LineEnds,
    limits: Limits,
    object: &[u8],
    sizes: &[usize],
) -> (Vec<Event>, Result<(), DecodeError>) {
    let mut decoder = Decoder::new(line_ends, limits);
    let mut events = Vec::new();
    let mut rest = object;
    let mut sizes = sizes.iter().cycle();
    let mut result = Ok(());
    while !rest.is_empty() && result.is_ok() {
        let size = sizes.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len());
        let (chunk, tail) = rest.split_at(size);
        result = decoder.push(chunk, &mut events);
        rest = tail;
    }
    if result.is_ok() {
        result = decoder.finish(&mut events);
    }
    if let Err(error) = &result {
        assert_eq!(decoder.push(b"x", &mut events).as_ref(), Err(error));
        assert_eq!(decoder.finish(&mut events).as_ref(), Err(error));
    }
    let ended = events.iter().filter(|event| **event == Event::End).count();
    assert_eq!(ended, decoder.completed());
    (joined(events), result)
}

fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut joined: Vec<Event> = Vec::new();
    for event in events {
        match (joined.last_mut(), event) {
            (Some(Event::Body(all)), Event::Body(more)) => all.extend(more),
            (_, event) => joined.push(event),
        }
    }
    joined
}

fn whole(line_ends: LineEnds, object: &str) -> (Vec<Event>, Result<(), DecodeError>) {
    decode(line_ends, Limits::default(), object.as_bytes(), &[usize::MAX])
}

fn envelope(sender: &str, recipients: &[&str]) -> Event {
    Event::Envelope(Envelope {
        sender: sender.parse().unwrap(),
        recipients: recipients.iter().map(|text| text.parse().unwrap()).collect(),
    })
}

fn body(text: &str) -> Event {
    Event::Body(text.as_bytes().to_vec())
}

#[test]
fn a_full_session() {
    let object = "EHLO relay.example\r\nMAIL FROM:<a@b> BODY=8BITMIME SIZE=5\r\nRCPT TO:<c@d> NOTIFY=NEVER\r\n\
                  RCPT TO:<e@f>\r\nDATA\r\n..\r\nx\r\n.\r\nQUIT\r\n";
    let (events, result) = whole(LineEnds::Crlf, object);
    assert_eq!(result, Ok(()));
    assert_eq!(
        events,
        [
            envelope("<a@b> BODY=8BITMIME SIZE=5", &["<c@d> NOTIFY=NEVER", "<e@f>"]),
            body(".\r\nx\r\n"),
            Event::End,
            Event::Quit
        ]
    );
}

#[test]
fn what_exim_writes() {
    let object =
        "MAIL FROM:<>\nRCPT TO:<c@d>\nDATA\nSubject: x\n\n..\n.\nmail from: <a@b>\nrcpt to: <c@d>\ndata\n.\n";
    let (events, result) = whole(LineEnds::Detect, object);
    assert_eq!(result, Ok(()));
    assert_eq!(
        events,
        [
            envelope("<>", &["<c@d>"]),
            body("Subject: x\r\n\r\n.\r\n"),
            Event::End,
            envelope("<a@b>", &["<c@d>"]),
            Event::End,
        ]
    );
    let crlf = object.replace('\n', "\r\n");
    assert_eq!(whole(LineEnds::Detect, &crlf), (events.clone(), Ok(())));
    assert_eq!(whole(LineEnds::Crlf, &crlf), (events, Ok(())));
}

#[test]
fn what_was_begun_is_dropped_by_rset_and_ehlo() {
    for reset in ["RSET", "EHLO again", "HELO again", "rset "] {
        let object = format!(
            "NOOP\r\nNOOP x\r\nMAIL FROM:<x@y>\r\nRCPT TO:<bad>\r\nRCPT TO:<x@y>\r\n{reset}\r\n\
             MAIL FROM:<a@b>\r\nNOOP\r\nRCPT TO:<c@d>\r\nDATA \r\n.\r\nRSET\r\nQUIT\r\n"
        );
        let (events, result) = whole(LineEnds::Crlf, &object);
        assert_eq!(result, Ok(()), "{reset}");
        assert_eq!(events, [envelope("<a@b>", &["<c@d>"]), Event::End, Event::Quit]);
    }
}

#[test]
fn bad_recipients_follow_their_envelope() {
    let object = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<c\0@d>\r\nRCPT TO:<c@d> X=1\r\nDATA\r\nx\r\n.\r\n\
                  MAIL FROM:<a@b>\r\nRCPT TO:<postmaster>\r\nDATA\r\n.\r\n";
    let (events, result) = whole(LineEnds::Crlf, object);
    assert_eq!(result, Ok(()));
    let seen: Vec<String> = events
        .iter()
        .map(|event| match event {
            Event::BadRecipient {
                line,
                argument,
                error,
            } => format!("{line} {argument} {error}"),
            Event::Envelope(envelope) => format!("{} recipients", envelope.recipients.len()),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        seen,
        [
            "1 recipients",
            "3 <c\\u{0}@d> \"c\\u{0}@d\" holds the control character \\u{0}",
            "4 <c@d> X=1 the parameter X is not known",
            "Body([120, 13, 10])",
            "End",
            "0 recipients",
            "9 <postmaster> \"postmaster\" has no domain: a relay cannot tell whose postmaster is meant",
            "End",
        ]
    );
}
