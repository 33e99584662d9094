//! No body and no parameter can carry a second transaction across.

use proptest::prelude::*;

use super::{
    round_trip::{canonical, object},
    *,
};
use crate::{ReversePath, Sender, envelope::MailParameters, lines::tests::octet_soup};

fn transactions(object: &[u8]) -> usize {
    let (events, result) = decode(LineEnds::Crlf, Limits::default(), object, &[usize::MAX]);
    assert_eq!(result, Ok(()));
    events
        .iter()
        .filter(|event| matches!(event, Event::Envelope(_)))
        .count()
}

const SECOND: &str = "MAIL FROM:<evil@x>\r\nRCPT TO:<v@x>\r\nDATA\r\nhello\r\n.\r\n";

#[test]
fn no_known_trick_ends_a_body() {
    let envelope = Envelope {
        sender: "<a@b>".parse().unwrap(),
        recipients: vec!["<c@d>".parse().unwrap()],
    };
    for trick in [
        "\r\n.\r\n",
        "\n.\n",
        "\n.\r\n",
        "\r.\r\n",
        "\r\n.\r",
        "\r\n.\n",
        "\r.\r",
        "\r\r\n.\r\r\n",
        "\r\n\0.\r\n",
        "\0\n.\n\0",
        "\r\n.\r\r\n",
        "\r\n..\r\n",
    ] {
        let (body, facts) = canonical(format!("x{trick}{SECOND}").as_bytes());
        assert_eq!(transactions(&object(&envelope, &body, &facts)), 1, "{trick:?}");
    }
}

proptest! {
    #[test]
    fn no_body_carries_a_second_transaction(body in octet_soup(), tail in octet_soup()) {
        let envelope = Envelope { sender: Sender::new(ReversePath::Null), recipients: vec!["<c@d>".parse().unwrap()] };
        let (body, facts) = canonical(&[&body, SECOND.as_bytes(), &tail].concat());
        prop_assert_eq!(transactions(&object(&envelope, &body, &facts)), 1);
    }

    #[test]
    fn no_parameter_carries_a_second_transaction(envid in any::<String>(), kind in "\\PC{0,5}", orcpt in any::<String>(), break_out in any::<bool>()) {
        let tail = if break_out { "\r\nDATA\r\n.\r\n" } else { "" };
        let mut envelope = Envelope {
            sender: Sender {
                path: ReversePath::Null,
                parameters: MailParameters { envid: Some(format!("{envid}{tail}")), ..MailParameters::default() },
            },
            recipients: vec!["<c@d>".parse().unwrap()],
        };
        envelope.recipients[0].parameters.orcpt = Some((kind, format!("{orcpt}{tail}{SECOND}")));
        let (body, facts) = canonical(b"x");
        let object = object(&envelope, &body, &facts);
        // A value that no reader takes back makes the object an error, never a second mail.
        let head = object.split(|octet| *octet == b'\n').count();
        prop_assert_eq!(head, 8);
        let (events, _) = decode(LineEnds::Crlf, Limits::default(), &object, &[usize::MAX]);
        prop_assert!(events.iter().filter(|event| matches!(event, Event::Envelope(_))).count() <= 1);
    }

    #[test]
    fn no_argument_that_is_read_carries_a_line_end(text in "<[ -~\\r\\n]{0,12}@[ -~\\r\\n]{0,8}>[ -~\\r\\n]{0,20}") {
        for written in [
            text.parse::<Sender>().map(|sender| sender.to_string()),
            text.parse::<crate::Recipient>().map(|recipient| recipient.to_string()),
        ].into_iter().flatten() {
            prop_assert!(!written.contains(['\r', '\n']));
        }
    }
}
