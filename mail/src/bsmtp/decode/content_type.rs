//! The media type of an object and the extensions that it requires (RFC 2442 section 2, RFC 2045 section 5.1).

use crate::{EnhancedCode, bsmtp::MEDIA_TYPE, envelope::shown};

/// What an object without the parameter requires.
const DEFAULT_EXTENSIONS: &str = "8bitMIME,SIZE,NOTARY";
const SHOWN: usize = 128;

/// Checks a `Content-Type` value: the media type and its `required-extensions` (RFC 2442 section 2) against the `supported` keywords.
/// NOTARY is read as DSN; keywords are compared without case.
///
/// # Errors
/// The media type that was given, or the extensions that are not supported.
pub fn check_content_type(value: &str, supported: &[&str]) -> Result<(), ContentTypeError> {
    let (media_type, mut rest) = match value.split_once(';') {
        Some((media_type, rest)) => (media_type, Some(rest)),
        None => (value, None),
    };
    let media_type = media_type.trim_matches([' ', '\t']);
    if !media_type.eq_ignore_ascii_case(MEDIA_TYPE) {
        return Err(ContentTypeError::MediaType(shown(media_type, SHOWN)));
    }
    let mut required = None;
    while let Some(text) = rest {
        let (parameter, tail) = parameter(text)?;
        rest = tail;
        let Some((name, value)) = parameter else {
            continue;
        };
        if name.eq_ignore_ascii_case("required-extensions") && required.replace(value).is_some() {
            return Err(ContentTypeError::Malformed("required-extensions stands twice"));
        }
    }
    let required = required.unwrap_or_else(|| DEFAULT_EXTENSIONS.to_owned());
    let missing: Vec<String> = required
        .split(',')
        .map(|keyword| keyword.trim_matches([' ', '\t']))
        .filter(|keyword| !keyword.is_empty())
        .filter(|keyword| !supported.iter().any(|known| same_keyword(keyword, known)))
        .map(|keyword| shown(keyword, SHOWN))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ContentTypeError::Extensions(missing))
    }
}

/// Whether two keywords name one extension. NOTARY is what RFC 2442 called DSN.
fn same_keyword(a: &str, b: &str) -> bool {
    let modern = |keyword: &str| match keyword.to_ascii_uppercase().as_str() {
        "NOTARY" => "DSN".to_owned(),
        other => other.to_owned(),
    };
    modern(a) == modern(b)
}

type Parameter<'a> = (&'a str, String);

/// Reads one parameter; `None` for an empty one. Returns what follows the next semicolon, if there is one.
fn parameter(text: &str) -> Result<(Option<Parameter<'_>>, Option<&str>), ContentTypeError> {
    let text = text.trim_start_matches([' ', '\t']);
    let end = text.find(['=', ';']).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    let name = name.trim_end_matches([' ', '\t']);
    let Some(value) = rest.strip_prefix('=') else {
        return if name.is_empty() {
            Ok((None, rest.strip_prefix(';')))
        } else {
            Err(ContentTypeError::Malformed("a parameter has no value"))
        };
    };
    if !is_token(name) {
        return Err(ContentTypeError::Malformed("a parameter has no proper name"));
    }
    let value = value.trim_start_matches([' ', '\t']);
    let (value, rest) = if let Some(quoted) = value.strip_prefix('"') {
        quoted_string(quoted)?
    } else {
        let end = value.find(';').unwrap_or(value.len());
        let (token, rest) = value.split_at_checked(end).unwrap_or((value, ""));
        let token = token.trim_end_matches([' ', '\t']);
        // A list with commas should stand in quotes; the commas of one that does not are no reason to lose a mail.
        if token.is_empty() || !token.split(',').all(|part| part.is_empty() || is_token(part)) {
            return Err(ContentTypeError::Malformed(
                "a value is neither a token nor quoted",
            ));
        }
        (token.to_owned(), rest)
    };
    let rest = rest.trim_start_matches([' ', '\t']);
    match rest.strip_prefix(';') {
        None if !rest.is_empty() => Err(ContentTypeError::Malformed("something follows a quoted value")),
        tail => Ok((Some((name, value)), tail)),
    }
}

/// Reads a quoted string behind its opening quote; returns what it says and what follows it.
fn quoted_string(text: &str) -> Result<(String, &str), ContentTypeError> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return Ok((value, text.get(position + 1..).unwrap_or_default())),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    Err(ContentTypeError::Malformed("a quoted value is not closed"))
}

/// `token` of RFC 2045.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|c| c.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&c))
}

/// Why an object's `Content-Type` is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentTypeError {
    /// Not `application/batch-SMTP`.
    #[error("the media type \"{0}\" is not application/batch-SMTP")]
    MediaType(String),
    /// The parameters do not follow their grammar.
    #[error("the parameters of the media type cannot be read: {0}")]
    Malformed(&'static str),
    /// Extensions that nobody here supports.
    #[error("the object requires extensions that are not supported here: {}", .0.join(", "))]
    Extensions(Vec<String>),
}

impl ContentTypeError {
    /// The enhanced status code that tells it to a peer: 5.6.1 (media not supported), 5.5.4 (invalid arguments) or 5.6.3
    /// (conversion required but not supported).
    pub fn code(&self) -> EnhancedCode {
        match self {
            Self::MediaType(_) => EnhancedCode::new(5, 6, 1),
            Self::Malformed(_) => EnhancedCode::new(5, 5, 4),
            Self::Extensions(_) => EnhancedCode::new(5, 6, 3),
        }
    }
}
