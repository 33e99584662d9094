use proptest::prelude::*;

use super::{strategies, *};
use crate::{EnhancedCode, address::AddressError};

#[test]
fn every_parameter_is_read() {
    let sender: Sender =
        "<A@b.example> body=8bitmime Size=123 smtputf8 RET=hdrs ENVID=a+2Bb+20c MT-PRIORITY=-4"
            .parse()
            .unwrap();
    let parameters = &sender.parameters;
    assert_eq!(parameters.body, Some(Body::EightBitMime));
    assert_eq!(parameters.size, Some(123));
    assert!(parameters.smtputf8);
    assert_eq!(parameters.ret, Some(Ret::Headers));
    assert_eq!(parameters.envid.as_deref(), Some("a+b c"));
    assert_eq!(parameters.mt_priority, Some(-4));
    assert_eq!(
        sender.to_string(),
        "<A@b.example> BODY=8BITMIME SIZE=123 SMTPUTF8 RET=HDRS ENVID=a+2Bb+20c MT-PRIORITY=-4"
    );
    let recipient: Recipient = "<a@b>  NOTIFY=delay,Success ORCPT=rfc822;x+2By@z "
        .parse()
        .unwrap();
    assert_eq!(
        recipient.to_string(),
        "<a@b> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By@z"
    );
    assert_eq!(
        recipient.parameters.orcpt,
        Some(("rfc822".into(), "x+y@z".into()))
    );
}

#[test]
fn times_to_deliver_by() {
    for (text, written) in [
        ("120;R", Some("120;R")),
        ("+120;rt", Some("120;RT")),
        ("-30;N", Some("-30;N")),
        ("0;nt", Some("0;NT")),
        ("999999999;R", Some("999999999;R")),
        ("0;R", None),
        ("-1;R", None),
        ("1000000000;R", None),
        ("120", None),
        ("120;", None),
        ("120;X", None),
        ("120;R;T", None),
        (";R", None),
        ("+-1;N", None),
        ("1.5;N", None),
    ] {
        let read = format!("<a@b> BY={text}").parse::<Sender>();
        let read = read.map(|sender| sender.parameters.deliver_by.unwrap().to_string());
        assert_eq!(read.ok().as_deref(), written, "{text}");
    }
}

#[test]
fn forms_that_are_taken_and_written_strictly() {
    for (text, written) in [
        ("<>", "<>"),
        ("<> SIZE=0", "<> SIZE=0"),
        ("a@b", "<a@b>"),
        (" <a@b>", "<a@b>"),
        (r#""x y>"@b"#, r#"<"x y>"@b>"#),
        (r#"<"x y>"@b> SIZE=1"#, r#"<"x y>"@b> SIZE=1"#),
        ("<@r,@s:a@b> RET=FULL", "<a@b> RET=FULL"),
        ("<ä@ö.example>", "<ä@ö.example>"),
        ("<a@b> BODY=7bit", "<a@b> BODY=7BIT"),
        ("<a@b> MT-PRIORITY=0", "<a@b> MT-PRIORITY=0"),
    ] {
        assert_eq!(text.parse::<Sender>().unwrap().to_string(), written, "{text}");
    }
    for (text, written) in [
        ("<a@b> NOTIFY=never", "<a@b> NOTIFY=NEVER"),
        ("<a@b> ORCPT=utf-8;ä@ö", "<a@b> ORCPT=utf-8;\\x{E4}@\\x{F6}"),
        (
            "<a@b> ORCPT=UTF-8;\\x{e4}\\x{20}\\x{1F680}",
            "<a@b> ORCPT=UTF-8;\\x{E4}\\x{20}\\x{1F680}",
        ),
        ("<a@b> ORCPT=rfc822;+c3+a4@b", "<a@b> ORCPT=rfc822;+C3+A4@b"),
    ] {
        assert_eq!(text.parse::<Recipient>().unwrap().to_string(), written, "{text}");
    }
}

#[test]
fn refused_senders_say_why() {
    for (text, message, code) in [
        ("", "\"\" is empty", "5.1.7"),
        ("a", "\"a\" has no domain", "5.1.7"),
        ("<a@b", "\"<a@b\" is not enclosed in < and >", "5.1.7"),
        ("<a@b>SIZE=1", "\"SIZE=1\" is not a parameter", "5.5.4"),
        ("<a@b> =1", "\"=1\" is not a parameter", "5.5.4"),
        ("<a@b> Ä=1", "\"Ä=1\" is not a parameter", "5.5.4"),
        ("<a@b> X-FOO=1", "the parameter X-FOO is not known", "5.5.4"),
        ("<a@b> NOTIFY=NEVER", "the parameter NOTIFY is not known", "5.5.4"),
        ("<a@b> SIZE=1 size=2", "the parameter SIZE stands twice", "5.5.4"),
        (
            "<a@b> SMTPUTF8 SMTPUTF8",
            "the parameter SMTPUTF8 stands twice",
            "5.5.4",
        ),
        (
            "<a@b> SMTPUTF8=1",
            "the parameter SMTPUTF8 has the value \"1\", but takes none",
            "5.5.4",
        ),
        (
            "<a@b> SIZE",
            "the parameter SIZE has the value \"\", expected a number of octets",
            "5.5.4",
        ),
        (
            "<a@b> SIZE=+1",
            "the parameter SIZE has the value \"+1\", expected a number of octets",
            "5.5.4",
        ),
        (
            "<a@b> BODY=BINARYMIME",
            "BODY=BINARYMIME cannot be carried, convert the mail to 8BITMIME or less",
            "5.6.1",
        ),
        (
            "<a@b> MT-PRIORITY=10",
            "the parameter MT-PRIORITY has the value \"10\", expected -9 to 9",
            "5.5.4",
        ),
        (
            "<a@b> MT-PRIORITY=-0",
            "the parameter MT-PRIORITY has the value \"-0\", expected -9 to 9",
            "5.5.4",
        ),
        (
            "<a@b\r\n>",
            "\"a@b\\u{d}\\u{a}\" holds the control character \\u{d}",
            "5.1.7",
        ),
        (
            "<a@b> SIZE=1\r\nRCPT",
            "the parameter SIZE has the value \"1\\u{d}\\u{a}RCPT\", expected a number of octets",
            "5.5.4",
        ),
    ] {
        let error = text.parse::<Sender>().unwrap_err();
        assert_eq!(
            (
                error.to_string().as_str(),
                error.sender_code().to_string().as_str()
            ),
            (message, code)
        );
    }
    let tail = ", expected printable ASCII as xtext, at most 100 characters";
    let long = "x".repeat(101);
    for value in [
        "", "a+0D+0Ab", "a+7F", "a+C3+A4", "a=b", "a+2", "a+zz", "ä", "a\u{0}", &long,
    ] {
        let error = format!("<a@b> ENVID={value}")
            .parse::<Sender>()
            .unwrap_err()
            .to_string();
        assert!(error.ends_with(tail), "{error}");
    }
}

#[test]
fn refused_recipients_say_why() {
    assert_eq!("<>".parse::<Recipient>(), Err(ArgumentError::NullRecipient));
    let error = "<postmaster>".parse::<Recipient>().unwrap_err();
    assert_eq!(
        error,
        ArgumentError::Path {
            path: "postmaster".into(),
            error: AddressError::Postmaster
        }
    );
    assert_eq!(error.code(), EnhancedCode::new(5, 1, 3));
    let long = format!("rfc822;{}", "x".repeat(494));
    for parameter in [
        "NOTIFY",
        "NOTIFY=",
        "NOTIFY=NEVER,DELAY",
        "NOTIFY=DELAY,",
        "NOTIFY=X",
        "ORCPT",
        "ORCPT=a@b",
        "ORCPT=;a@b",
        "ORCPT=rfc822;",
        "ORCPT=rfc822;a+0D+0Ab",
        "ORCPT=rfc822;ä",
        "ORCPT=rfc 822;a",
        "ORCPT=utf-8;\\x{D800}",
        "ORCPT=utf-8;\\x{0A}",
        "ORCPT=utf-8;a\\b",
        "ORCPT=utf-8;a+b",
        "ORCPT=utf-8;\\x{1",
        "ORCPT=utf-8;\\x{+1}",
        &format!("ORCPT={long}"),
        "SIZE=1",
    ] {
        let error = format!("<a@b> {parameter}").parse::<Recipient>().unwrap_err();
        assert_eq!(error.code(), EnhancedCode::new(5, 5, 4), "{parameter}");
    }
}

#[test]
fn hand_made_fields_cannot_break_the_line() {
    let mut sender = Sender::new(ReversePath::Null);
    sender.parameters.envid = Some("a\r\nRCPT TO:<x@y>\0ä".into());
    sender.parameters.mt_priority = Some(100);
    let mut recipient = Recipient::new(Address::parse("a@b").unwrap());
    recipient.parameters.orcpt = Some(("utf-8\r\n".into(), "\r\nDATA".into()));
    for line in [sender.to_string(), recipient.to_string()] {
        assert!(line.bytes().all(|c| matches!(c, b' '..=b'~')), "{line:?}");
    }
}

#[test]
fn long_texts_are_cut_in_errors() {
    let text = format!("<a@b> X{}", "y".repeat(10_000));
    assert!(text.parse::<Sender>().unwrap_err().to_string().len() < 400);
}

proptest! {
    #[test]
    fn what_is_written_reads_back(envelope in strategies::envelope()) {
        let sender = envelope.sender.to_string();
        prop_assert!(!sender.contains(['\r', '\n', '\0']));
        prop_assert_eq!(sender.parse::<Sender>().unwrap(), envelope.sender);
        for recipient in envelope.recipients {
            let text = recipient.to_string();
            prop_assert_eq!(text.parse::<Recipient>().unwrap(), recipient);
        }
    }

    #[test]
    fn whatever_is_read_writes_the_same_again(text in "<[ -~]{0,20}@[a-z.]{1,9}> (BODY|SIZE|ENVID|ORCPT|X)=[ -~äλ]{0,20}") {
        if let Ok(sender) = text.parse::<Sender>() {
            prop_assert_eq!(sender.to_string().parse::<Sender>(), Ok(sender));
        }
        if let Ok(recipient) = text.parse::<Recipient>() {
            prop_assert_eq!(recipient.to_string().parse::<Recipient>(), Ok(recipient));
        }
    }

    #[test]
    fn any_text_is_judged_without_a_panic(text in any::<String>()) {
        let _ = text.parse::<Sender>();
        let _ = text.parse::<Recipient>();
        if let Ok(address) = Address::parse(&text) {
            prop_assert!(!address.destination().is_empty());
        }
    }
}
