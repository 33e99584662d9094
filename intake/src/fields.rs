//! Request fields: `Idempotency-Key`, digests (RFC 9530 and `Unencoded-Digest`), `Content-Encoding`, `Content-Type`.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, header};

use crate::Problem;

/// The longest `Idempotency-Key`.
const LONGEST_KEY: usize = 255;

/// `Idempotency-Key`: `"..."` (a structured field's string) or the bare key. `None` when absent.
///
/// # Errors
/// 400 when it stands twice, is empty, too long or not printable ASCII.
pub fn idempotency_key(fields: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(text) = single(fields, &HeaderName::from_static("idempotency-key"))? else {
        return Ok(None);
    };
    let wrong = || {
        Problem::bad_request(format!(
            "Idempotency-Key is not a string of 1 to {LONGEST_KEY} printable ASCII characters, with or without quotes"
        ))
    };
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquote(quoted).ok_or_else(wrong)?,
        None => text.to_owned(),
    };
    let printable = key.bytes().all(|octet| matches!(octet, 0x20..=0x7e));
    if key.is_empty() || key.len() > LONGEST_KEY || !printable {
        return Err(wrong());
    }
    Ok(Some(key))
}

/// What stands before the closing quote; nothing may follow it but parameters, which are ignored.
fn unquote(quoted: &str) -> Option<String> {
    let mut text = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => match characters.next()? {
                escaped @ ('"' | '\\') => text.push(escaped),
                _ => return None,
            },
            character => text.push(character),
        }
    }
    let rest = characters.as_str().trim();
    (rest.is_empty() || rest.starts_with(';')).then_some(text)
}

/// The urgency that `Priority` asks for, 0 to 7 (RFC 9218 section 4.1); `None` where there is none that can be read.
pub fn urgency(fields: &HeaderMap) -> Option<u8> {
    let texts = fields.get_all(HeaderName::from_static("priority"));
    let members = texts
        .iter()
        .filter_map(|text| text.to_str().ok())
        .flat_map(|text| text.split(','));
    // Of several, the last one counts (RFC 9651 section 4.2.2).
    let mut urgencies = members.filter_map(|member| {
        let value = member.split(';').next()?.trim().strip_prefix("u=")?;
        value.parse().ok().filter(|urgency| *urgency <= 7)
    });
    urgencies.next_back()
}

/// `Content-Length`, where it is a number (RFC 9110 section 8.6).
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// SHA-256 digests that the request claims for its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// Over the body without its content encoding: `Unencoded-Digest`, or any of the others where there is no encoding.
    pub decoded: Option<[u8; 32]>,
    /// Over the body as sent: `Repr-Digest` or `Content-Digest`.
    pub encoded: Option<[u8; 32]>,
}

/// The SHA-256 digests among the request's fields. Other algorithms are passed over, as RFC 9530 section 2 allows.
///
/// # Errors
/// 400 when a field cannot be parsed or two of them contradict each other.
pub fn digests(fields: &HeaderMap, encoding: Encoding) -> Result<Digests, Problem> {
    let mut found = Digests::default();
    for (name, encoded) in [
        ("unencoded-digest", false),
        ("repr-digest", true),
        ("content-digest", true),
    ] {
        let Some(digest) = sha256(fields, &HeaderName::from_static(name))? else {
            continue;
        };
        let slot = if encoded && encoding != Encoding::Identity {
            &mut found.encoded
        } else {
            &mut found.decoded
        };
        if slot.is_some_and(|other| other != digest) {
            return Err(Problem::bad_request(
                "the request's digest fields contradict each other",
            ));
        }
        *slot = Some(digest);
    }
    Ok(found)
}

/// The member `sha-256=:...:` of a dictionary that may be spread over several fields.
fn sha256(fields: &HeaderMap, name: &HeaderName) -> Result<Option<[u8; 32]>, Problem> {
    let wrong = || {
        Problem::bad_request(format!(
            "{name} is not a dictionary of digests such as sha-256=:<32 octets in base64>:"
        ))
    };
    let mut found = None;
    for value in fields.get_all(name) {
        let text = value.to_str().map_err(|_| wrong())?;
        for member in text.split(',') {
            let (key, value) = member.trim().split_once('=').ok_or_else(wrong)?;
            if key != "sha-256" {
                continue;
            }
            let value = value.split(';').next().unwrap_or_default().trim();
            let inner = value
                .strip_prefix(':')
                .and_then(|rest| rest.strip_suffix(':'))
                .ok_or_else(wrong)?;
            let octets = STANDARD.decode(inner).map_err(|_| wrong())?;
            found = Some(octets.try_into().map_err(|_| wrong())?);
        }
    }
    Ok(found)
}

/// A digest as the value of a digest field.
pub fn digest_value(digest: &[u8; 32]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(digest))
}

/// A `Content-Encoding` that is understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// None.
    #[default]
    Identity,
    /// `zstd` (RFC 8878), with a window of at most 8 MiB (RFC 9659).
    Zstd,
}

/// The request's `Content-Encoding`.
///
/// # Errors
/// 415 when it is another one, or several.
pub fn encoding(fields: &HeaderMap) -> Result<Encoding, Problem> {
    match single(fields, &header::CONTENT_ENCODING)?
        .map(|text| text.trim().to_ascii_lowercase())
        .as_deref()
    {
        None | Some("" | "identity") => Ok(Encoding::Identity),
        Some("zstd") => Ok(Encoding::Zstd),
        Some(other) => Err(Problem::unsupported(format!(
            "the content encoding {} is not supported; use zstd or none",
            other.escape_debug()
        ))),
    }
}

/// The request's `Content-Type`, whole.
///
/// # Errors
/// 400 when it stands twice or is not text; 415 when it is missing.
pub fn content_type(fields: &HeaderMap) -> Result<&str, Problem> {
    single(fields, &header::CONTENT_TYPE)?.ok_or_else(|| Problem::unsupported("Content-Type is missing"))
}

/// The media type in a `Content-Type` value, lower case, without parameters.
pub fn media_type(content_type: &str) -> String {
    let (name, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    name.trim().to_ascii_lowercase()
}

/// A field that may stand once.
fn single<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = fields.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::bad_request(format!("{name} stands twice")));
    }
    value
        .to_str()
        .map(|text| Some(text.trim()))
        .map_err(|_| Problem::bad_request(format!("{name} is not ASCII")))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use sha2::{Digest, Sha256};

    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn keys() {
        let long = "x".repeat(256);
        for (value, key) in [
            ("\"01J0\"", Some("01J0")),
            ("01J0", Some("01J0")),
            ("\"a\\\"b\\\\\"", Some("a\"b\\")),
            ("\"k\";p=1", Some("k")),
            ("\"\"", None),
            ("\"open", None),
            ("\"a\\x\"", None),
            ("\"a\" b", None),
            (long.as_str(), None),
        ] {
            let read = idempotency_key(&fields(&[("idempotency-key", value)]));
            assert_eq!(read.ok().flatten().as_deref(), key, "{value}");
        }
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
        assert!(idempotency_key(&fields(&[("idempotency-key", "a"), ("idempotency-key", "a")])).is_err());
    }

    #[test]
    fn digests_by_encoding() {
        let (one, two): ([u8; 32], [u8; 32]) = (Sha256::digest(b"1").into(), Sha256::digest(b"2").into());
        let (first, second) = (digest_value(&one), digest_value(&two));
        let both = fields(&[("unencoded-digest", &first), ("content-digest", &second)]);
        let read = digests(&both, Encoding::Zstd).unwrap();
        assert_eq!(
            read,
            Digests {
                decoded: Some(one),
                encoded: Some(two)
            }
        );
        assert!(
            digests(&both, Encoding::Identity).is_err(),
            "they contradict each other without an encoding"
        );
        let listed = fields(&[("repr-digest", &format!("sha-512=:AAAA:, {first}"))]);
        assert_eq!(digests(&listed, Encoding::Identity).unwrap().decoded, Some(one));
        for broken in ["sha-256", "sha-256=:AAAA:", "sha-256=AAAA", "sha-256=:***:"] {
            assert!(
                digests(&fields(&[("repr-digest", broken)]), Encoding::Identity).is_err(),
                "{broken}"
            );
        }
        let other = fields(&[("repr-digest", "md5=:AAAA:")]);
        assert_eq!(digests(&other, Encoding::Identity).unwrap(), Digests::default());
    }

    #[test]
    fn urgencies() {
        for (text, expected) in [
            ("u=1", Some(1)),
            ("i, u=5;x", Some(5)),
            ("u=2, u=7", Some(7)),
            ("u=8", None),
            ("u", None),
            ("i", None),
        ] {
            assert_eq!(urgency(&fields(&[("priority", text)])), expected, "{text}");
        }
        assert_eq!(urgency(&HeaderMap::new()), None);
    }

    #[test]
    fn encodings_and_types() {
        assert_eq!(encoding(&HeaderMap::new()).unwrap(), Encoding::Identity);
        assert_eq!(
            encoding(&fields(&[("content-encoding", "ZSTD")])).unwrap(),
            Encoding::Zstd
        );
        for other in ["gzip", "zstd, zstd"] {
            let problem = encoding(&fields(&[("content-encoding", other)])).unwrap_err();
            assert_eq!(problem.status, 415);
        }
        assert_eq!(content_type(&HeaderMap::new()).unwrap_err().status, 415);
        assert_eq!(
            media_type("Application/Batch-SMTP ; a=b"),
            "application/batch-smtp"
        );
    }
}
