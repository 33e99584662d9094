//! One command line, read.

use lightpost_mail::{Recipient, Sender, envelope::ArgumentError};

use super::reply;
use crate::{Reply, send::Protocol};

/// Longest verb that an error repeats.
const SHOWN: usize = 16;
/// Longest argument of HELO that is kept: a domain (RFC 5321 section 4.5.3.1.2).
const HELO_MAX: usize = 255;
/// Most digits of a chunk's size.
const DIGITS: usize = 18;

/// A command with its argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `HELO`; the argument.
    Helo(String),
    /// `EHLO`, or `LHLO` in LMTP; the argument.
    Ehlo(String),
    /// `MAIL FROM:`
    Mail(Sender),
    /// `RCPT TO:`
    Rcpt(Recipient),
    /// `DATA`
    Data,
    /// `BDAT` (RFC 3030).
    Bdat {
        /// Octets of the chunk.
        size: u64,
        /// Whether it is the last one.
        last: bool,
    },
    /// `RSET`
    Rset,
    /// `NOOP`
    Noop,
    /// `VRFY`
    Vrfy,
    /// `HELP`
    Help,
    /// `STARTTLS`
    StartTls,
    /// `QUIT`
    Quit,
}

/// Why a line is no command; each is a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// Not a command of this protocol.
    Unknown(String),
    /// A command that is known and not offered.
    NotOffered(&'static str),
    /// The argument is not what the command needs.
    Syntax(&'static str),
    /// The argument of MAIL.
    Mail(ArgumentError),
    /// The argument of RCPT.
    Rcpt(ArgumentError),
    /// A control character in the line: a bare CR or LF, or NUL.
    Control,
}

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Self {
        let parameter = |error: &ArgumentError| {
            // RFC 5321 section 4.2.2 has a code of its own for parameters that are not known or not offered.
            matches!(
                error,
                ArgumentError::UnknownParameter(_) | ArgumentError::BinaryMime
            )
        };
        let of = |code, enhanced, text| Self {
            code,
            enhanced: Some(enhanced),
            text,
        };
        match error {
            CommandError::Unknown(verb) => reply(500, Some((5, 5, 2)), format!("{verb}: no such command")),
            CommandError::NotOffered(verb) => reply(502, Some((5, 5, 1)), format!("{verb} is not offered")),
            CommandError::Syntax(expected) => reply(501, Some((5, 5, 4)), expected),
            CommandError::Control => reply(500, Some((5, 5, 2)), "a control character in a command"),
            CommandError::Mail(error) if parameter(&error) => of(555, error.code(), error.to_string()),
            CommandError::Mail(error) => of(501, error.sender_code(), error.to_string()),
            CommandError::Rcpt(error) if parameter(&error) => of(555, error.code(), error.to_string()),
            CommandError::Rcpt(error) => of(501, error.code(), error.to_string()),
        }
    }
}

impl Command {
    /// Reads a line without its CRLF.
    ///
    /// # Errors
    /// [`CommandError`]
    pub fn parse(protocol: Protocol, line: &[u8]) -> Result<Self, CommandError> {
        if line.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)) {
            return Err(CommandError::Control);
        }
        let end = line.iter().position(|octet| *octet == b' ').unwrap_or(line.len());
        let (verb, argument) = line.split_at_checked(end).unwrap_or((line, b""));
        let argument = argument.strip_prefix(b" ").unwrap_or(argument);
        let lmtp = protocol == Protocol::Lmtp;
        match verb.to_ascii_uppercase().as_slice() {
            b"HELO" if !lmtp => hello(argument).map(Self::Helo),
            b"EHLO" if !lmtp => hello(argument).map(Self::Ehlo),
            b"LHLO" if lmtp => hello(argument).map(Self::Ehlo),
            b"MAIL" => {
                let argument = after(argument, "FROM:", "write MAIL FROM:<address>")?;
                let read = text(argument).and_then(str::parse);
                read.map(Self::Mail).map_err(CommandError::Mail)
            }
            b"RCPT" => {
                let argument = after(argument, "TO:", "write RCPT TO:<address>")?;
                let read = text(argument).and_then(str::parse);
                read.map(Self::Rcpt).map_err(CommandError::Rcpt)
            }
            b"DATA" => alone(argument, Self::Data),
            b"BDAT" => chunk(argument),
            b"RSET" => alone(argument, Self::Rset),
            b"NOOP" => Ok(Self::Noop),
            b"QUIT" => alone(argument, Self::Quit),
            b"STARTTLS" => alone(argument, Self::StartTls),
            b"VRFY" if argument.trim_ascii().is_empty() => Err(CommandError::Syntax("write VRFY address")),
            b"VRFY" => Ok(Self::Vrfy),
            b"HELP" => Ok(Self::Help),
            b"EXPN" => Err(CommandError::NotOffered("EXPN")),
            b"AUTH" => Err(CommandError::NotOffered("AUTH")),
            b"ETRN" => Err(CommandError::NotOffered("ETRN")),
            other => {
                let shown = other.get(..other.len().min(SHOWN)).unwrap_or_default();
                Err(CommandError::Unknown(shown.escape_ascii().to_string()))
            }
        }
    }
}

/// A name is wanted and not verified: RFC 5321 section 4.1.4 forbids to refuse for what it says.
fn hello(argument: &[u8]) -> Result<String, CommandError> {
    let name = str::from_utf8(argument.trim_ascii()).unwrap_or_default();
    if name.is_empty() || name.len() > HELO_MAX || name.contains(char::is_control) {
        return Err(CommandError::Syntax("write your host name behind it"));
    }
    Ok(name.to_owned())
}

fn after<'a>(argument: &'a [u8], keyword: &str, expected: &'static str) -> Result<&'a [u8], CommandError> {
    let argument = argument.trim_ascii_start();
    match argument.split_at_checked(keyword.len()) {
        Some((found, rest)) if found.eq_ignore_ascii_case(keyword.as_bytes()) => Ok(rest),
        _ => Err(CommandError::Syntax(expected)),
    }
}

fn text(argument: &[u8]) -> Result<&str, ArgumentError> {
    str::from_utf8(argument).map_err(|_| ArgumentError::NotUtf8)
}

fn alone(argument: &[u8], command: Command) -> Result<Command, CommandError> {
    if argument.trim_ascii().is_empty() {
        Ok(command)
    } else {
        Err(CommandError::Syntax("the command takes no argument"))
    }
}

/// `BDAT size [LAST]` (RFC 3030 section 2).
fn chunk(argument: &[u8]) -> Result<Command, CommandError> {
    const EXPECTED: CommandError = CommandError::Syntax("write BDAT size, or BDAT size LAST");
    let text = str::from_utf8(argument).map_err(|_| EXPECTED)?;
    let mut words = text.split_ascii_whitespace();
    let size = words
        .next()
        .filter(|digits| digits.len() <= DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or(EXPECTED)?;
    match (words.next(), words.next()) {
        (None, _) => Ok(Command::Bdat { size, last: false }),
        (Some(word), None) if word.eq_ignore_ascii_case("LAST") => Ok(Command::Bdat { size, last: true }),
        _ => Err(EXPECTED),
    }
}
