//! What an outcome means for the recipients: decided here once, for all transports.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use lightpost_clock::until;
use lightpost_mail::{Address, EnhancedCode, Recipient};
use lightpost_queue::WaitReason;
use lightpost_transport::Reply;
use serde::Deserialize;

/// What a gateway's answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// On disk at the gateway, all but these recipients.
    Accepted(Vec<RefusedRecipient>),
    /// On disk at the gateway, but for which recipients cannot be understood.
    Unclear(String),
    /// Refused for good.
    Refused(EnhancedCode, String),
    /// To be tried again.
    Later(Later),
}

/// When and how to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Later {
    /// Why.
    pub(crate) reason: WaitReason,
    /// Not before this time has passed.
    pub(crate) after: Option<Duration>,
    /// Whether the gateway said that it did not take the mail; if not, the same exchange is repeated, lest it arrives twice.
    pub(crate) not_taken: bool,
    /// Whether it would say the same to every other mail now.
    pub(crate) whole_gateway: bool,
    /// One line.
    pub(crate) detail: String,
}

/// A recipient that a gateway refused at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusedRecipient {
    /// The address as the gateway repeats it.
    pub(crate) address: String,
    pub(crate) code: EnhancedCode,
    pub(crate) detail: String,
}

impl RefusedRecipient {
    /// Whether `address` is meant: as it is, or as the argument of RCPT TO.
    pub(crate) fn is(&self, address: &Address) -> bool {
        if self.address == address.as_str() {
            return true;
        }
        let argument: Option<Recipient> = self.address.parse().ok();
        argument.is_some_and(|argument| argument.address == *address)
    }
}

#[derive(Debug, Default, Deserialize)]
struct Problem {
    code: Option<String>,
    detail: Option<String>,
    title: Option<String>,
    /// Of each transaction; only where the object was read.
    recipients: Option<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
struct Accepted {
    #[serde(default)]
    recipients: Vec<Named>,
    #[serde(default)]
    refused: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    #[serde(alias = "recipient")]
    address: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    detail: Option<String>,
}

/// What `reply` means.
pub(crate) fn judge(reply: &Reply, now: Timestamp) -> Meaning {
    let status = reply.status;
    if status.is_success() {
        return accepted(reply);
    }
    let problem: Problem = serde_json::from_slice(&reply.body).unwrap_or_default();
    let said = problem.detail.as_deref().or(problem.title.as_deref());
    let detail = one_line(&match said {
        Some(said) => format!("{status}: {said}"),
        None => status.to_string(),
    });
    let later = |not_taken, whole_gateway| {
        Meaning::Later(Later {
            reason: WaitReason::Busy,
            after: retry_after(&reply.headers, now),
            not_taken,
            whole_gateway,
            detail: detail.clone(),
        })
    };
    match status.as_u16() {
        425 | 429 | 503 | 507 => later(true, true),
        // This mail is refused, not all of ours.
        403 if problem.recipients.is_some() => {
            Meaning::Refused(code(status, problem.code.as_deref()), detail)
        }
        // An operator has to mend certificates, tokens or lists of peers. Refusing for good would return everybody's mail for it.
        401 | 403 | 407 => later(true, true),
        // The gateway has other content under this id. Nothing is lost by sending ours under a new one.
        409 => later(true, false),
        408 | 500..=599 => later(false, false),
        400..=499 => Meaning::Refused(code(status, problem.code.as_deref()), detail),
        // Redirects are not followed: where mail goes is configured or in the DNS.
        _ => later(true, true),
    }
}

fn code(status: StatusCode, given: Option<&str>) -> EnhancedCode {
    given
        .and_then(|text| text.parse().ok())
        .filter(|code: &EnhancedCode| code.is_permanent())
        .unwrap_or(match status.as_u16() {
            413 => EnhancedCode::new(5, 3, 4),
            415 => EnhancedCode::new(5, 6, 1),
            404 | 410 => EnhancedCode::new(5, 4, 4),
            _ => EnhancedCode::new(5, 5, 0),
        })
}

/// What a 2xx says of the recipients. One that is meant to say something and does not may hide refusals.
fn accepted(reply: &Reply) -> Meaning {
    let media_type = reply.headers.get(header::CONTENT_TYPE);
    let json = media_type
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .ends_with("json")
        });
    let body = reply.body.trim_ascii();
    if body.is_empty() || !(json || body.starts_with(b"{")) {
        return Meaning::Accepted(Vec::new());
    }
    match serde_json::from_slice(body) {
        Ok(accepted) => Meaning::Accepted(refused(accepted)),
        Err(error) => Meaning::Unclear(format!(
            "{}, but its body is cut or broken and may refuse recipients: {error}",
            reply.status
        )),
    }
}

fn refused(accepted: Accepted) -> Vec<RefusedRecipient> {
    let listed = accepted
        .recipients
        .into_iter()
        .filter(|one| one.status.as_deref() == Some("refused"));
    listed
        .chain(accepted.refused)
        .map(|one| RefusedRecipient {
            address: one.address,
            code: one
                .code
                .and_then(|code| code.parse().ok())
                .filter(|code: &EnhancedCode| code.is_permanent())
                .unwrap_or(EnhancedCode::new(5, 1, 0)),
            detail: one_line(one.detail.as_deref().unwrap_or("refused by the gateway")),
        })
        .collect()
}

fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(until(now, at.timestamp()))
}

/// Text from outside as one bounded line.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(500)
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;

    fn reply(status: u16, body: &str, retry_after: Option<&str>) -> Meaning {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        }
        let reply = Reply {
            exchange: ulid::Ulid::nil(),
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        judge(&reply, "2030-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn every_status() {
        for (status, expected) in [
            (200, "accepted"),
            (202, "accepted"),
            (204, "accepted"),
            (301, "later, not taken, whole"),
            (307, "later, not taken, whole"),
            (400, "5.5.0"),
            (401, "later, not taken, whole"),
            (403, "later, not taken, whole"),
            (404, "5.4.4"),
            (407, "later, not taken, whole"),
            (408, "later, perhaps taken, one"),
            (409, "later, not taken, one"),
            (410, "5.4.4"),
            (413, "5.3.4"),
            (415, "5.6.1"),
            (422, "5.5.0"),
            (425, "later, not taken, whole"),
            (429, "later, not taken, whole"),
            (500, "later, perhaps taken, one"),
            (502, "later, perhaps taken, one"),
            (503, "later, not taken, whole"),
            (504, "later, perhaps taken, one"),
            (507, "later, not taken, whole"),
            (599, "later, perhaps taken, one"),
        ] {
            let shown = match reply(status, "", None) {
                Meaning::Accepted(_) => "accepted".to_owned(),
                Meaning::Unclear(_) => "unclear".to_owned(),
                Meaning::Refused(code, _) => code.to_string(),
                Meaning::Later(later) => format!(
                    "later, {} taken, {}",
                    if later.not_taken { "not" } else { "perhaps" },
                    if later.whole_gateway { "whole" } else { "one" }
                ),
            };
            assert_eq!(shown, expected, "{status}");
        }
    }

    #[test]
    fn problem_documents_name_code_and_text() {
        let Meaning::Refused(code, detail) = reply(422, r#"{"code":"5.1.1","detail":"no such\nuser"}"#, None)
        else {
            panic!("not refused");
        };
        assert_eq!(code, EnhancedCode::new(5, 1, 1));
        assert_eq!(detail, "422 Unprocessable Entity: no such user");
        // A code that contradicts the status is not believed.
        assert!(
            matches!(reply(422, r#"{"code":"4.2.0"}"#, None), Meaning::Refused(code, _) if code.class == 5)
        );
    }

    #[test]
    fn a_403_about_the_mail_refuses_the_mail() {
        let body = r#"{"code":"5.7.1","detail":"sender not allowed","recipients":[]}"#;
        assert!(
            matches!(reply(403, body, None), Meaning::Refused(code, _) if code == EnhancedCode::new(5, 7, 1))
        );
    }

    #[test]
    fn a_reply_that_may_hide_refusals_is_unclear() {
        for (body, clear) in [
            ("", true),
            (" \r\n", true),
            ("thank you", true),
            ("{}", true),
            (r#"{"recipients":[{"address":"a@b","status":"refu"#, false),
            (r#"{"recipients":[{"status":"refused"}]}"#, false),
        ] {
            let meaning = reply(202, body, None);
            assert_eq!(
                matches!(meaning, Meaning::Accepted(_)),
                clear,
                "{body}: {meaning:?}"
            );
            assert_eq!(matches!(meaning, Meaning::Unclear(_)), !clear, "{body}");
        }
    }

    #[test]
    fn refused_addresses_are_found_as_they_are_and_as_arguments() {
        let one = |address: &str| RefusedRecipient {
            address: address.into(),
            code: EnhancedCode::new(5, 1, 1),
            detail: String::new(),
        };
        let odd = Address::parse("\"a>b\"@moon.example").unwrap();
        assert!(one("\"a>b\"@moon.example").is(&odd));
        assert!(one("<\"a>b\"@moon.example> NOTIFY=NEVER").is(&odd));
        assert!(!one("a@moon.example").is(&odd));
    }

    #[test]
    fn retry_after_as_number_and_as_date() {
        for (value, seconds) in [
            ("120", Some(120)),
            ("Tue, 01 Jan 2030 00:01:00 GMT", Some(60)),
            ("Mon, 31 Dec 2029 00:00:00 GMT", Some(0)),
            ("soon", None),
        ] {
            let Meaning::Later(later) = reply(503, "", Some(value)) else {
                panic!("not later");
            };
            assert_eq!(later.after, seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn recipients_refused_at_once() {
        let body = r#"{"id":"x","recipients":[{"address":"a@b","status":"queued"},
            {"address":"c@d","status":"refused","code":"5.1.1","detail":"unknown"}],
            "refused":[{"recipient":"<e@f>","code":"2.0.0"}]}"#;
        let Meaning::Accepted(refused) = reply(202, body, None) else {
            panic!("not accepted");
        };
        let shown: Vec<_> = refused
            .iter()
            .map(|one| (one.address.as_str(), one.code.to_string()))
            .collect();
        assert_eq!(
            shown,
            [("c@d", "5.1.1".to_owned()), ("<e@f>", "5.1.0".to_owned())]
        );
    }
}
