//! Reading the argument of MAIL and RCPT: a path, then parameters (RFC 5321 section 4.1.2, `Mail-parameters`).

use std::str::FromStr;

use super::{
    ArgumentError, Body, DeliverBy, DeliverByMode, MailParameters, Notify, RcptParameters, Recipient, Ret,
    Sender, shown, xtext,
};
use crate::address::{Address, AddressError, ReversePath, path};

/// Longest xtext of ENVID (RFC 3461 section 4.4).
const ENVID_MAX: usize = 100;
/// Longest value of ORCPT (RFC 3461 section 4.2).
const ORCPT_MAX: usize = 500;
/// How much of a text from outside an error repeats: an address in full.
const SHOWN: usize = 256;

impl FromStr for Sender {
    type Err = ArgumentError;
    /// Reads `<a@b> SIZE=10 ...`; a bare address without brackets and parameters is taken too.
    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let (inner, parameters) = split(text)?;
        let path = if inner == "<>" {
            ReversePath::Null
        } else {
            ReversePath::Address(address(inner)?)
        };
        Ok(Self {
            path,
            parameters: mail_parameters(parameters)?,
        })
    }
}

impl FromStr for Recipient {
    type Err = ArgumentError;
    /// Reads `<a@b> NOTIFY=NEVER ...`; a bare address without brackets and parameters is taken too.
    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let (inner, parameters) = split(text)?;
        if inner == "<>" {
            return Err(ArgumentError::NullRecipient);
        }
        Ok(Self {
            address: address(inner)?,
            parameters: rcpt_parameters(parameters)?,
        })
    }
}

/// The path with its brackets (or a bare address), and the parameters. Spaces around the whole are dropped.
fn split(text: &str) -> Result<(&str, &str), ArgumentError> {
    let text = text.trim_matches(' ');
    if !text.starts_with('<') {
        return Ok((text, ""));
    }
    let (_, parameters) = path::split(text).map_err(|error| bad_path(text, error))?;
    if !parameters.is_empty() && !parameters.starts_with(' ') {
        return Err(ArgumentError::Malformed(shown(parameters, SHOWN)));
    }
    let (inner, _) = text
        .split_at_checked(text.len() - parameters.len())
        .unwrap_or((text, ""));
    Ok((inner, parameters))
}

fn address(path: &str) -> Result<Address, ArgumentError> {
    let inner = path.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    inner
        .map_or_else(|| Address::parse(path), path::address)
        .map_err(|error| bad_path(inner.unwrap_or(path), error))
}

fn bad_path(path: &str, error: AddressError) -> ArgumentError {
    ArgumentError::Path {
        path: shown(path, SHOWN),
        error,
    }
}

/// Splits parameters at their spaces, each into its keyword and, behind the first `=`, its value.
fn parameters(text: &str) -> impl Iterator<Item = Result<(&str, Option<&str>), ArgumentError>> {
    text.split(' ').filter(|word| !word.is_empty()).map(|word| {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        let malformed = !keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !keyword.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        if malformed {
            return Err(ArgumentError::Malformed(shown(word, SHOWN)));
        }
        Ok((keyword, value))
    })
}

fn mail_parameters(text: &str) -> Result<MailParameters, ArgumentError> {
    let mut read = MailParameters::default();
    let mut smtputf8 = None;
    for parameter in parameters(text) {
        let (keyword, value) = parameter?;
        match keyword.to_ascii_uppercase().as_str() {
            "BODY" => set(&mut read.body, "BODY", body(value)?)?,
            "SIZE" => set(&mut read.size, "SIZE", size(value)?)?,
            "SMTPUTF8" if value.is_none() => set(&mut smtputf8, "SMTPUTF8", ())?,
            "SMTPUTF8" => return Err(bad_value("SMTPUTF8", value, "but takes none")),
            "RET" => set(&mut read.ret, "RET", ret(value)?)?,
            "ENVID" => set(&mut read.envid, "ENVID", envid(value)?)?,
            "MT-PRIORITY" => set(&mut read.mt_priority, "MT-PRIORITY", priority(value)?)?,
            "BY" => set(&mut read.deliver_by, "BY", deliver_by(value)?)?,
            _ => return Err(ArgumentError::UnknownParameter(shown(keyword, SHOWN))),
        }
    }
    read.smtputf8 = smtputf8.is_some();
    Ok(read)
}

fn rcpt_parameters(text: &str) -> Result<RcptParameters, ArgumentError> {
    let mut read = RcptParameters::default();
    for parameter in parameters(text) {
        let (keyword, value) = parameter?;
        match keyword.to_ascii_uppercase().as_str() {
            "NOTIFY" => set(&mut read.notify, "NOTIFY", notify(value)?)?,
            "ORCPT" => set(&mut read.orcpt, "ORCPT", orcpt(value)?)?,
            _ => return Err(ArgumentError::UnknownParameter(shown(keyword, SHOWN))),
        }
    }
    Ok(read)
}

fn set<T>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), ArgumentError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ArgumentError::Duplicate(name)),
    }
}

fn bad_value(name: &'static str, value: Option<&str>, expected: &'static str) -> ArgumentError {
    ArgumentError::Value {
        name,
        value: shown(value.unwrap_or_default(), SHOWN),
        expected,
    }
}

fn body(value: Option<&str>) -> Result<Body, ArgumentError> {
    match value.unwrap_or_default().to_ascii_uppercase().as_str() {
        "7BIT" => Ok(Body::SevenBit),
        "8BITMIME" => Ok(Body::EightBitMime),
        "BINARYMIME" => Err(ArgumentError::BinaryMime),
        _ => Err(bad_value("BODY", value, "expected 7BIT or 8BITMIME")),
    }
}

fn size(value: Option<&str>) -> Result<u64, ArgumentError> {
    value
        .filter(|digits| digits.len() <= 20 && digits.bytes().all(|c| c.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| bad_value("SIZE", value, "expected a number of octets"))
}

fn ret(value: Option<&str>) -> Result<Ret, ArgumentError> {
    match value.unwrap_or_default().to_ascii_uppercase().as_str() {
        "FULL" => Ok(Ret::Full),
        "HDRS" => Ok(Ret::Headers),
        _ => Err(bad_value("RET", value, "expected FULL or HDRS")),
    }
}

fn envid(value: Option<&str>) -> Result<String, ArgumentError> {
    value
        .and_then(xtext::decode)
        .filter(|id| !id.is_empty() && id.is_ascii() && xtext::encode(id).len() <= ENVID_MAX)
        .ok_or_else(|| {
            bad_value(
                "ENVID",
                value,
                "expected printable ASCII as xtext, at most 100 characters",
            )
        })
}

fn priority(value: Option<&str>) -> Result<i8, ArgumentError> {
    value
        .filter(|digits| {
            let number = digits.strip_prefix('-').unwrap_or(digits);
            matches!(number.as_bytes(), [b'1'..=b'9']) || *digits == "0"
        })
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| bad_value("MT-PRIORITY", value, "expected -9 to 9"))
}

/// `by-time ";" by-mode ["T"]` (RFC 2852 section 4); a mail that is to be returned needs a time that is not over yet.
fn deliver_by(value: Option<&str>) -> Result<DeliverBy, ArgumentError> {
    let read = || {
        let (time, how) = value?.split_once(';')?;
        let digits = time.strip_prefix(['+', '-']).unwrap_or(time);
        let sound = matches!(digits.len(), 1..=9) && digits.bytes().all(|c| c.is_ascii_digit());
        let seconds = time.parse::<i32>().ok().filter(|_| sound)?;
        let (mode, trace) = match how.to_ascii_uppercase().as_str() {
            "R" => (DeliverByMode::Return, false),
            "RT" => (DeliverByMode::Return, true),
            "N" => (DeliverByMode::Notify, false),
            "NT" => (DeliverByMode::Notify, true),
            _ => return None,
        };
        (mode == DeliverByMode::Notify || seconds > 0).then_some(DeliverBy { seconds, mode, trace })
    };
    let expected = "expected seconds, \";\", and R (with a time above 0) or N, perhaps T";
    read().ok_or_else(|| bad_value("BY", value, expected))
}

fn notify(value: Option<&str>) -> Result<Notify, ArgumentError> {
    let error = || {
        bad_value(
            "NOTIFY",
            value,
            "expected NEVER or a list of SUCCESS, FAILURE, DELAY",
        )
    };
    let text = value.unwrap_or_default();
    if text.eq_ignore_ascii_case("NEVER") {
        return Ok(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for case in text.split(',') {
        let case = match case.to_ascii_uppercase().as_str() {
            "SUCCESS" => &mut success,
            "FAILURE" => &mut failure,
            "DELAY" => &mut delay,
            _ => return Err(error()),
        };
        *case = true;
    }
    Ok(Notify::On {
        success,
        failure,
        delay,
    })
}

fn orcpt(value: Option<&str>) -> Result<(String, String), ArgumentError> {
    value
        .and_then(|value| value.split_once(';'))
        .filter(|(kind, _)| !kind.is_empty() && kind.chars().all(xtext::is_type_character))
        .and_then(|(kind, text)| Some((kind.to_owned(), xtext::decode_address(kind, text)?)))
        .filter(|(kind, address)| {
            // The limit is on what would be sent on, so that whatever is read can be written.
            !address.is_empty() && kind.len() + 1 + xtext::encode_address(kind, address).len() <= ORCPT_MAX
        })
        .ok_or_else(|| {
            bad_value(
                "ORCPT",
                value,
                "expected an address type, \";\" and an address as xtext",
            )
        })
}
