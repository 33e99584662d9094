//! Any object, cut anywhere: no panic, the same verdict as for the whole, and whatever is decoded survives another crossing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lightpost_mail::{
    Envelope,
    bsmtp::{
        decode::{DecodeError, Decoder, Event, Limits, LineEnds},
        encode,
    },
    lines::{BareLineEnds, Canonicaliser, Stuffer},
};

const LIMITS: Limits = Limits {
    command_line: 200,
    recipients: 5,
    transactions: 5,
    body: 2000,
};

type Mail = (Envelope, Vec<u8>);

/// The complete mails of an object, and how it ended.
fn decode(line_ends: LineEnds, limits: Limits, object: &[u8], size: usize) -> (Vec<Mail>, Result<(), DecodeError>) {
    let mut decoder = Decoder::new(line_ends, limits);
    let mut events = Vec::new();
    let mut result = object
        .chunks(size)
        .try_for_each(|chunk| decoder.push(chunk, &mut events));
    if result.is_ok() {
        result = decoder.finish(&mut events);
    }
    let (mut mails, mut open) = (Vec::new(), None);
    for event in events {
        match event {
            Event::Envelope(envelope) => open = Some((envelope, Vec::new())),
            Event::Body(octets) => open.as_mut().expect("an envelope before its body").1.extend(octets),
            Event::End => mails.push(open.take().expect("an envelope before its end")),
            Event::BadRecipient { .. } | Event::Quit => {}
        }
    }
    assert_eq!(mails.len(), decoder.completed());
    (mails, result)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, object) = (usize::from(input.0).max(1), input.1);
    for line_ends in [LineEnds::Crlf, LineEnds::Detect] {
        let whole = decode(line_ends, LIMITS, object, usize::MAX);
        assert_eq!(whole, decode(line_ends, LIMITS, object, size));
        for (envelope, body) in whole.0 {
            again(&envelope, &body, size);
        }
    }
});

fn again(envelope: &Envelope, body: &[u8], size: usize) {
    let mut machine = Canonicaliser::new(BareLineEnds::Refuse);
    let mut same = Vec::new();
    machine.push(body, &mut same).expect("a canonical body");
    let facts = machine.finish(&mut same).expect("a canonical body");
    assert_eq!(same, body);
    if envelope.recipients.is_empty() {
        return;
    }
    let mut object = encode::head("x", envelope, &facts);
    Stuffer::new().push(body, &mut object);
    object.extend_from_slice(encode::TAIL);
    let mut expected = envelope.clone();
    expected.sender.parameters = encode::parameters(envelope, &facts);
    let (mails, result) = decode(LineEnds::Crlf, Limits::default(), &object, size);
    assert_eq!(result, Ok(()));
    assert_eq!(mails, [(expected, same)]);
}
