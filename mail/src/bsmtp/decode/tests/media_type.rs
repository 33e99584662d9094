use super::*;

const SUPPORTED: &[&str] = &["8BITMIME", "SIZE", "DSN", "SMTPUTF8"];

#[test]
fn media_types_that_are_taken() {
    for value in [
        "application/batch-SMTP",
        "Application/Batch-smtp ; charset=x",
        "application/batch-SMTP;required-extensions=SIZE",
        "application/batch-SMTP; Required-Extensions=\"8bitMIME,SIZE,NOTARY\"",
        "application/batch-SMTP; required-extensions=8bitmime,dsn;x=\"a;b\\\"\" ;",
        "application/batch-SMTP; required-extensions=\" size , \\sMtputf8,,\"",
        "application/batch-SMTP; required-extensions=\"\"",
        "application/batch-SMTP;;",
    ] {
        assert_eq!(check_content_type(value, SUPPORTED), Ok(()), "{value}");
    }
}

#[test]
fn media_types_that_are_refused() {
    for (value, supported, message) in [
        (
            "text/plain",
            SUPPORTED,
            "the media type \"text/plain\" is not application/batch-SMTP",
        ),
        ("", SUPPORTED, "the media type \"\" is not application/batch-SMTP"),
        (
            "application/batch-SMTPx",
            SUPPORTED,
            "the media type \"application/batch-SMTPx\" is not application/batch-SMTP",
        ),
        (
            "application/batch-SMTP; required-extensions=\"SIZE,X-FOO,BINARYMIME\"",
            SUPPORTED,
            "the object requires extensions that are not supported here: X-FOO, BINARYMIME",
        ),
        (
            "application/batch-SMTP",
            &["SIZE", "8BITMIME"],
            "the object requires extensions that are not supported here: NOTARY",
        ),
    ] {
        assert_eq!(
            check_content_type(value, supported).unwrap_err().to_string(),
            message
        );
    }
    for parameters in [
        "required-extensions",
        "required-extensions=",
        "required-extensions=\"SIZE",
        "required-extensions=\"SIZE\\",
        "required-extensions=\"SIZE\"x",
        "required-extensions=S IZE",
        "=SIZE",
        "a b=SIZE",
        "required-extensions=SIZE;Required-Extensions=SIZE",
    ] {
        let result = check_content_type(&format!("application/batch-SMTP; {parameters}"), SUPPORTED);
        assert!(
            matches!(result, Err(ContentTypeError::Malformed(_))),
            "{parameters} {result:?}"
        );
    }
}

#[test]
fn what_the_generator_names_is_understood() {
    let envelope = Envelope {
        sender: "<ä@b> MT-PRIORITY=1 ENVID=x".parse().unwrap(),
        recipients: vec![],
    };
    let extensions =
        crate::bsmtp::encode::required_extensions(&envelope, &crate::lines::BodyFacts::default());
    let value = format!(
        "{}; required-extensions=\"{extensions}\"",
        crate::bsmtp::MEDIA_TYPE
    );
    let all = ["8BITMIME", "SIZE", "NOTARY", "SMTPUTF8", "MT-PRIORITY"];
    assert_eq!(check_content_type(&value, &all), Ok(()));
    assert_eq!(
        check_content_type(&value, SUPPORTED),
        Err(ContentTypeError::Extensions(vec!["MT-PRIORITY".into()]))
    );
}

proptest::proptest! {
    #[test]
    fn any_value_is_judged(value in proptest::prelude::any::<String>()) {
        let _ = check_content_type(&value, SUPPORTED);
        let _ = check_content_type(&format!("application/batch-SMTP;{value}"), SUPPORTED);
    }
}
