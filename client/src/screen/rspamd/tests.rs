use super::*;

fn rspamd(greylist: bool) -> Rspamd {
    let settings = config::Rspamd {
        url: "http://127.0.0.1:11333/checkv2".into(),
        timeout: Duration::from_secs(1),
        max_size: 1,
        accept_when_down: false,
        greylist,
        header: "X-Spam: Yes".into(),
    };
    Rspamd::new(&settings, &Clock::system())
}

fn obeyed(answer: &str, greylist: bool) -> Result<Verdict, String> {
    let answer: Answer = serde_json::from_str(answer).unwrap();
    rspamd(greylist)
        .obey(&answer)
        .map_err(|refusal| refusal.to_string())
}

#[tokio::test]
async fn each_action_is_obeyed() {
    let answer = |action: &str, message: &str| {
        format!(
            r#"{{"is_skipped":false,"score":7.25,"required_score":15.0,"action":"{action}","symbols":{{}},"messages":{{{message}}}}}"#
        )
    };
    for (action, message, expected) in [
        (
            "reject",
            r#""smtp_message":"Gtube pattern""#,
            "550 5.7.1 Gtube pattern",
        ),
        ("reject", "", "550 5.7.1 the content is unwanted"),
        (
            "reject",
            r#""smtp_message":"a\r\n250 ok \u0007é""#,
            "550 5.7.1 a??250 ok ??",
        ),
        ("discard", "", "550 5.7.1 the content is unwanted"),
        (
            "soft reject",
            r#""smtp_message":"Try again later""#,
            "451 4.7.1 Try again later",
        ),
        ("greylist", "", "451 4.7.1 greylisted; try again later"),
    ] {
        assert_eq!(obeyed(&answer(action, message), true).unwrap_err(), expected);
    }
    for (action, field, hold) in [
        ("no action", None, None),
        ("greylist", None, None),
        ("add header", Some("X-Spam: Yes"), None),
        ("rewrite subject", Some("X-Spam: Yes"), None),
        (
            "quarantine",
            None,
            Some("quarantined by Rspamd: unwanted content"),
        ),
        ("tomorrow's action", None, None),
    ] {
        let verdict = obeyed(&answer(action, ""), false).unwrap();
        assert_eq!(
            (verdict.field.as_deref(), verdict.hold.as_deref()),
            (field, hold),
            "{action}"
        );
        assert_eq!(verdict.note, format!("Rspamd: {action}, 7.2 of 15.0"));
    }
    let bare = obeyed(r#"{"action":"no action"}"#, true).unwrap();
    assert_eq!(bare.note, "Rspamd: no action, ? of ?");
}
