use proptest::prelude::*;

use super::*;
use crate::{
    bsmtp::encode,
    envelope::strategies,
    lines::{
        BareLineEnds, BodyFacts, Canonicaliser, Stuffer,
        tests::{chunk_sizes, octet_soup},
    },
};

pub(super) fn canonical(body: &[u8]) -> (Vec<u8>, BodyFacts) {
    let mut machine = Canonicaliser::new(BareLineEnds::Normalise);
    let mut out = Vec::new();
    machine.push(body, &mut out).unwrap();
    let facts = machine.finish(&mut out).unwrap();
    (out, facts)
}

pub(super) fn object(envelope: &Envelope, body: &[u8], facts: &BodyFacts) -> Vec<u8> {
    let mut object = encode::head("relay.example", envelope, facts);
    Stuffer::new().push(body, &mut object);
    object.extend_from_slice(encode::TAIL);
    object
}

proptest! {
    #[test]
    fn any_envelope_and_body_survive(
        envelope in strategies::envelope(),
        body in octet_soup(),
        sizes in chunk_sizes(),
    ) {
        let (body, facts) = canonical(&body);
        let mut expected = envelope.clone();
        expected.sender.parameters = encode::parameters(&envelope, &facts);
        let mut events = vec![Event::Envelope(expected)];
        if !body.is_empty() {
            events.push(Event::Body(body.clone()));
        }
        events.extend([Event::End, Event::Quit]);
        let object = object(&envelope, &body, &facts);
        for line_ends in [LineEnds::Crlf, LineEnds::Detect] {
            let decoded = decode(line_ends, Limits::default(), &object, &sizes);
            prop_assert_eq!(&decoded, &(events.clone(), Ok(())));
        }
        let bare: Vec<u8> = object.into_iter().filter(|octet| *octet != b'\r').collect();
        let decoded = decode(LineEnds::Detect, Limits::default(), &bare, &sizes);
        prop_assert_eq!(decoded, (events, Ok(())));
    }
}
