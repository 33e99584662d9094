use super::*;
use crate::lines::BodyFacts;

fn envelope(sender: &str, recipients: &[&str]) -> Envelope {
    Envelope {
        sender: sender.parse().unwrap(),
        recipients: recipients.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

fn facts(eight_bit: bool, eight_bit_headers: bool) -> BodyFacts {
    BodyFacts {
        size: 42,
        eight_bit,
        eight_bit_headers,
        ..BodyFacts::default()
    }
}

#[test]
fn an_object_names_what_it_uses() {
    for (sender, recipient, facts, mail, extensions) in [
        ("<>", "<c@d>", facts(false, false), "<> SIZE=42", "SIZE"),
        (
            "<a@b> SIZE=7",
            "<c@d>",
            facts(false, false),
            "<a@b> SIZE=42",
            "SIZE",
        ),
        (
            "<a@b>",
            "<c@d>",
            facts(true, false),
            "<a@b> BODY=8BITMIME SIZE=42",
            "8bitMIME,SIZE",
        ),
        (
            "<a@b> BODY=7BIT",
            "<c@d>",
            facts(true, false),
            "<a@b> BODY=8BITMIME SIZE=42",
            "8bitMIME,SIZE",
        ),
        (
            "<a@b> BODY=7BIT",
            "<c@d>",
            facts(false, false),
            "<a@b> SIZE=42",
            "SIZE",
        ),
        (
            "<a@b>",
            "<c@d>",
            facts(true, true),
            "<a@b> BODY=8BITMIME SIZE=42",
            "8bitMIME,SIZE",
        ),
        (
            "<a@b> SMTPUTF8",
            "<c@d>",
            facts(true, true),
            "<a@b> BODY=8BITMIME SIZE=42 SMTPUTF8",
            "8bitMIME,SIZE,SMTPUTF8",
        ),
        (
            "<a@b> SMTPUTF8",
            "<c@d>",
            facts(false, false),
            "<a@b> SIZE=42",
            "SIZE",
        ),
        (
            "<a@b>",
            "<ö@d>",
            facts(false, false),
            "<a@b> SIZE=42 SMTPUTF8",
            "8bitMIME,SIZE,SMTPUTF8",
        ),
    ] {
        assert_named(sender, recipient, &facts, mail, extensions);
    }
}

#[test]
fn an_object_names_the_parameters_that_it_has() {
    for (sender, recipient, facts, mail, extensions) in [
        (
            "<a@b>",
            "<c@d> NOTIFY=NEVER",
            facts(false, false),
            "<a@b> SIZE=42",
            "SIZE,DSN",
        ),
        (
            "<a@b> ENVID=x MT-PRIORITY=3",
            "<c@d>",
            facts(false, false),
            "<a@b> SIZE=42 ENVID=x MT-PRIORITY=3",
            "SIZE,DSN,MT-PRIORITY",
        ),
        (
            "<a@b> BY=60;NT",
            "<c@d>",
            facts(false, false),
            "<a@b> SIZE=42 BY=60;NT",
            "SIZE,DELIVERBY",
        ),
    ] {
        assert_named(sender, recipient, &facts, mail, extensions);
    }
}

fn assert_named(sender: &str, recipient: &str, facts: &BodyFacts, mail: &str, extensions: &str) {
    let envelope = envelope(sender, &[recipient]);
    let head = String::from_utf8(head("relay.example", &envelope, facts)).unwrap();
    let expected = format!("EHLO relay.example\r\nMAIL FROM:{mail}\r\nRCPT TO:{recipient}\r\nDATA\r\n");
    assert_eq!(head, expected);
    assert_eq!(required_extensions(&envelope, facts), extensions);
}

#[test]
fn the_name_cannot_break_its_line() {
    let envelope = envelope("<>", &["<c@d>"]);
    let head = |name| String::from_utf8(head(name, &envelope, &facts(false, false))).unwrap();
    assert!(head("x\r\nMAIL FROM:<y@z>").starts_with("EHLO xMAILFROM:<y@z>\r\nMAIL FROM:<>"));
    assert!(head(" \r\n").starts_with("EHLO localhost\r\n"));
}
