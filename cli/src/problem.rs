//! Reading problem documents (RFC 9457) as our HTTP interfaces answer them.

use serde_json::Value;

/// One line about an error answer: its detail, with the enhanced status code where it has one.
pub(crate) fn text(status: u16, body: &[u8]) -> String {
    let document = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let field = |name: &str| document.get(name).and_then(Value::as_str);
    let Some(what) = field("detail").or(field("title")) else {
        return format!("HTTP {status} without a reason");
    };
    let code = field("code").map(|code| format!("{code} ")).unwrap_or_default();
    format!("{code}{what} (HTTP {status})")
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn says_what_the_answer_says() {
        for (status, body, expected) in [
            (
                507,
                &br#"{"detail":"the disk is full"}"#[..],
                "the disk is full (HTTP 507)",
            ),
            (
                422,
                br#"{"title":"refused","code":"5.1.3"}"#,
                "5.1.3 refused (HTTP 422)",
            ),
            (502, b"<html>", "HTTP 502 without a reason"),
            (500, b"{}", "HTTP 500 without a reason"),
        ] {
            assert_eq!(text(status, body), expected);
        }
    }
}
