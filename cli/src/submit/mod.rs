//! `lightpost submit`: one hand-over from a pipe.
//!
//! An MTA starts it for every mail and believes its exit code. 0 says: on disk at the agent. 65 and 77 make the MTA
//! return the mail, so they are given only when the agent itself refused it for good. All else is 75.

mod headers;
mod input;

use std::process::ExitCode;

use http::{Method, StatusCode, header};
use lightpost_clock::Clock;
use serde_json::Value;
use url::form_urlencoded::Serializer;

use self::input::Input;
use crate::{
    args::Submit,
    connection::{self, Answer, Trouble},
    endpoint::Endpoint,
    failure::{Failure, code},
    output::Output,
    problem, small_runtime,
};

/// Runs the command.
pub(crate) fn run(options: Submit, output: Output) -> ExitCode {
    let result = Endpoint::find(&options.place)
        .and_then(|endpoint| Ok((endpoint, small_runtime()?)))
        .map_err(|failure| failure.with_code(code::TEMPFAIL))
        .and_then(|(endpoint, runtime)| {
            let result = runtime.block_on(hand_over(options, &endpoint));
            // A reader of standard input that still blocks must not keep the process.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(answer) => {
            if output.json {
                // The mail is accepted, whoever reads this.
                let _ = output.raw(&[&answer.body[..], b"\n"].concat());
            }
            ExitCode::SUCCESS
        }
        Err(failure) => output.failure(&failure),
    }
}

/// Sends standard input to the agent; once more when the connection was lost after the request had begun.
async fn hand_over(mut options: Submit, endpoint: &Endpoint) -> Result<Answer, Failure> {
    let clock = Clock::system();
    let key = options
        .id
        .clone()
        .unwrap_or_else(|| ulid::Ulid::generate().to_string());
    let mut input = Input::read(tokio::io::stdin())
        .await
        .map_err(|error| unreadable(&error))?;
    if options.headers {
        take_headers(&mut options, &mut input)?;
    }
    let options = &options;
    let mut trouble = None;
    for _ in 0..2 {
        let Some(body) = input.body() else { break };
        let request = connection::request(endpoint, Method::POST, &target(options))
            .header(header::CONTENT_TYPE, media_type(options))
            .header("Idempotency-Key", quoted(&key))
            .body(body)
            .map_err(|error| {
                let what = format!("the request cannot be made: {error}");
                Failure::new(code::TEMPFAIL, what, "look at --id and the token file")
            })?;
        match connection::exchange(endpoint, request, &clock).await {
            Ok(answer) => return judge(answer, endpoint),
            Err(lost @ Trouble::Lost(_)) => trouble = Some(lost),
            Err(other) => {
                trouble = Some(other);
                break;
            }
        }
    }
    let trouble = trouble.unwrap_or(Trouble::Silent);
    Err(trouble.failure(endpoint).with_code(code::TEMPFAIL))
}

/// Takes what the header section says about the envelope, and Bcc out of the mail. Nothing was handed over yet, so whoever called can be told
/// what is wrong with it for good.
fn take_headers(options: &mut Submit, input: &mut Input) -> Result<(), Failure> {
    let wrong = |what: &str, remedy: &str| Err(Failure::new(code::DATAERR, what, remedy));
    let found = input.start();
    let Some((start, read)) = found.and_then(|(start, whole)| {
        let read = headers::read(start, whole)?;
        Some((start, read))
    }) else {
        return wrong(
            "the header section has no end within 256 KiB",
            "name the recipients instead of -t",
        );
    };
    if !read.bcc.is_empty() {
        *start = headers::without(start, &read.bcc).into();
    }
    options.recipients.extend(read.recipients);
    if options.recipients.is_empty() {
        return wrong("no recipient in To, Cc or Bcc", "name one");
    }
    if options.sender.is_none() {
        options.sender = read.sender;
    }
    if options.sender.is_none() {
        return wrong(
            "From does not hold exactly one address",
            "name the reverse-path with -f",
        );
    }
    Ok(())
}

fn unreadable(error: &std::io::Error) -> Failure {
    let what = format!("standard input: {error}");
    Failure::new(code::TEMPFAIL, what, "hand the mail over again")
}

fn media_type(options: &Submit) -> &'static str {
    if options.batch {
        lightpost_mail::bsmtp::MEDIA_TYPE
    } else {
        "message/rfc822"
    }
}

/// The request's target, with the envelope as the whole MAIL and RCPT arguments.
fn target(options: &Submit) -> String {
    let mut query = Serializer::new(String::new());
    if let Some(sender) = &options.sender {
        query.append_pair("from", bracketed(sender));
    }
    for recipient in &options.recipients {
        query.append_pair("to", recipient);
    }
    match query.finish() {
        empty if empty.is_empty() => "/v1/messages".into(),
        query => format!("/v1/messages?{query}"),
    }
}

/// The null reverse-path is written `''` in a shell.
fn bracketed(sender: &str) -> &str {
    if sender.trim().is_empty() { "<>" } else { sender }
}

/// A structured field's string (RFC 9651 section 3.3.3).
fn quoted(key: &str) -> String {
    format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What the agent's answer means to an MTA.
fn judge(answer: Answer, endpoint: &Endpoint) -> Result<Answer, Failure> {
    let status = answer.status;
    if status.is_success() {
        return match refused(&answer.body) {
            none if none.is_empty() => Ok(answer),
            some => Err(Failure::new(
                code::DATAERR,
                format!("{endpoint}: refused: {}", some.join("; ")),
                "the mail was accepted for the other recipients all the same",
            )),
        };
    }
    let (code, remedy) = match status {
        StatusCode::BAD_REQUEST
        | StatusCode::CONFLICT
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::URI_TOO_LONG
        | StatusCode::UNPROCESSABLE_ENTITY => (code::DATAERR, "the mail goes back to its sender"),
        StatusCode::FORBIDDEN => (code::NOPERM, "the mail goes back to its sender"),
        StatusCode::UNAUTHORIZED => (code::TEMPFAIL, "name the right --token-file"),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            (code::TEMPFAIL, "name the agent's listener with --url or --socket")
        }
        _ => (code::TEMPFAIL, "hand the mail over again later"),
    };
    let mut what = problem::text(status.as_u16(), &answer.body);
    let refused = refused(&answer.body);
    // One recipient's reason is the problem's own text already.
    if refused.len() > 1 || answer.body.windows(10).any(|window| window == b"\"messages\"") {
        what = [vec![what], refused].concat().join("; ");
    }
    Err(Failure::new(code, format!("{endpoint}: {what}"), remedy))
}

/// The recipients that an accepting answer refuses. An exit code cannot say it of one recipient, and silence would lose its mail.
fn refused(body: &[u8]) -> Vec<String> {
    let receipt: Value = serde_json::from_slice(body).unwrap_or_default();
    let batch = receipt.get("messages").and_then(Value::as_array);
    let receipts = batch.map_or(std::slice::from_ref(&receipt), Vec::as_slice);
    let recipients = receipts
        .iter()
        .filter_map(|receipt| receipt.get("recipients")?.as_array())
        .flatten();
    recipients
        .filter(|recipient| recipient.get("status").and_then(Value::as_str) == Some("refused"))
        .map(|recipient| {
            let text = |name: &str| recipient.get(name).and_then(Value::as_str).unwrap_or_default();
            format!("{}: {} {}", text("address"), text("code"), text("detail"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::args::Place;

    fn options(sender: Option<&str>, recipients: &[&str]) -> Submit {
        Submit {
            sender: sender.map(str::to_owned),
            recipients: recipients.iter().map(|text| (*text).to_owned()).collect(),
            batch: sender.is_none(),
            headers: false,
            ignore_dots: false,
            option: Vec::new(),
            id: None,
            place: Place::default(),
        }
    }

    #[test]
    fn the_envelope_travels_in_the_query() {
        let submit = options(Some("<a@b> RET=HDRS"), &["<c+d@e> NOTIFY=NEVER", "ü@f"]);
        assert_eq!(
            target(&submit),
            "/v1/messages?from=%3Ca%40b%3E+RET%3DHDRS&to=%3Cc%2Bd%40e%3E+NOTIFY%3DNEVER&to=%C3%BC%40f"
        );
        assert_eq!(
            target(&options(Some(""), &["a@b"])),
            "/v1/messages?from=%3C%3E&to=a%40b"
        );
        assert_eq!(target(&options(None, &[])), "/v1/messages");
    }

    #[test]
    fn only_a_refusal_for_good_returns_the_mail() {
        let endpoint = Endpoint {
            address: crate::endpoint::Address::Tcp("h:1".into()),
            prefix: String::new(),
            token: None,
        };
        for (status, expected) in [
            (200, None),
            (202, None),
            (301, Some(75)),
            (400, Some(65)),
            (401, Some(75)),
            (403, Some(77)),
            (404, Some(75)),
            (408, Some(75)),
            (409, Some(65)),
            (413, Some(65)),
            (422, Some(65)),
            (429, Some(75)),
            (500, Some(75)),
            (503, Some(75)),
            (507, Some(75)),
        ] {
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                body: Bytes::new(),
            };
            let code = judge(answer, &endpoint).err().map(|failure| failure.code);
            assert_eq!(code, expected, "{status}");
        }
    }

    #[test]
    fn refused_recipients_are_named() {
        let one = r#"{"id":"x","recipients":[{"address":"a@b","status":"queued","code":"2.1.5","detail":""},
            {"address":"c@d","status":"refused","code":"5.1.2","detail":"no route"}]}"#;
        assert_eq!(refused(one.as_bytes()), ["c@d: 5.1.2 no route"]);
        let batch = format!("{{\"messages\":[{one},{one}]}}");
        assert_eq!(refused(batch.as_bytes()).len(), 2);
        assert!(refused(b"").is_empty() && refused(b"{}").is_empty());
    }

    #[test]
    fn keys_are_quoted() {
        assert_eq!(quoted("a\"b\\"), "\"a\\\"b\\\\\"");
    }
}
