//! The commands, and the envelope that they build.

use super::{DecodeErrorKind, Event, Limits, Step};
use crate::{
    Envelope, Recipient, Sender,
    envelope::{ArgumentError, shown},
};

/// How much of a foreign command or argument an error or event repeats.
const SHOWN: usize = 1024;
const VERB_SHOWN: usize = 32;

/// The transaction that is being built; empty before MAIL.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    begun: u64,
    envelope: Envelope,
    bad: Vec<Event>,
}

impl Transaction {
    pub(super) fn begun(&self) -> bool {
        self.open.is_some()
    }

    /// The line of its MAIL.
    pub(super) fn begun_on(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.begun)
    }

    /// Carries out one command line.
    pub(super) fn command(
        &mut self,
        line: &[u8],
        number: u64,
        limits: &Limits,
        completed: usize,
        events: &mut Vec<Event>,
    ) -> Result<Step, DecodeErrorKind> {
        let (verb, argument) = split(line);
        match verb.to_ascii_uppercase().as_slice() {
            b"EHLO" | b"HELO" | b"RSET" => {
                self.open = None;
                Ok(Step::Continue)
            }
            b"NOOP" => Ok(Step::Continue),
            b"MAIL" => self.mail(argument, number, limits, completed),
            b"RCPT" => self.rcpt(argument, number, limits),
            b"DATA" => self.data(argument, events),
            b"QUIT" if self.open.is_some() => Err(DecodeErrorKind::Sequence {
                command: "QUIT",
                fault: "stands behind MAIL, before DATA",
            }),
            b"QUIT" => nothing("QUIT", argument).map(|()| Step::Quit),
            b"" => Err(DecodeErrorKind::EmptyLine),
            _ => Err(DecodeErrorKind::Command(shown(
                &String::from_utf8_lossy(verb),
                VERB_SHOWN,
            ))),
        }
    }

    fn mail(
        &mut self,
        argument: &[u8],
        number: u64,
        limits: &Limits,
        completed: usize,
    ) -> Result<Step, DecodeErrorKind> {
        if self.open.is_some() {
            return Err(DecodeErrorKind::Sequence {
                command: "MAIL",
                fault: "stands inside a transaction",
            });
        }
        if completed >= limits.transactions {
            return Err(too_large(
                "the number of transactions",
                limits.transactions as u64,
            ));
        }
        let argument = keyword(argument, "FROM:").ok_or(DecodeErrorKind::Syntax {
            command: "MAIL",
            expected: "expected FROM:<address>",
        })?;
        let sender: Sender = text(argument)
            .and_then(str::parse)
            .map_err(DecodeErrorKind::Mail)?;
        if sender.parameters.size.is_some_and(|size| size > limits.body) {
            return Err(too_large("the declared SIZE", limits.body));
        }
        self.open = Some(Open {
            begun: number,
            envelope: Envelope {
                sender,
                recipients: Vec::new(),
            },
            bad: Vec::new(),
        });
        Ok(Step::Continue)
    }

    fn rcpt(&mut self, argument: &[u8], number: u64, limits: &Limits) -> Result<Step, DecodeErrorKind> {
        let open = self.open.as_mut().ok_or(DecodeErrorKind::Sequence {
            command: "RCPT",
            fault: "stands before MAIL",
        })?;
        if open.envelope.recipients.len() + open.bad.len() >= limits.recipients {
            return Err(too_large("the number of recipients", limits.recipients as u64));
        }
        let argument = keyword(argument, "TO:").ok_or(DecodeErrorKind::Syntax {
            command: "RCPT",
            expected: "expected TO:<address>",
        })?;
        match text(argument).and_then(str::parse::<Recipient>) {
            Ok(recipient) => open.envelope.recipients.push(recipient),
            Err(error) => open.bad.push(Event::BadRecipient {
                line: number,
                argument: shown(String::from_utf8_lossy(argument).trim(), SHOWN),
                error,
            }),
        }
        Ok(Step::Continue)
    }

    fn data(&mut self, argument: &[u8], events: &mut Vec<Event>) -> Result<Step, DecodeErrorKind> {
        nothing("DATA", argument)?;
        let fault = match &self.open {
            None => "stands before MAIL",
            Some(open) if open.envelope.recipients.is_empty() && open.bad.is_empty() => "stands before RCPT",
            Some(_) => "",
        };
        if !fault.is_empty() {
            return Err(DecodeErrorKind::Sequence {
                command: "DATA",
                fault,
            });
        }
        if let Some(open) = &mut self.open {
            // What remains of it, the line on which it began, is for errors in the body.
            let envelope = Envelope {
                sender: open.envelope.sender.clone(),
                recipients: std::mem::take(&mut open.envelope.recipients),
            };
            events.push(Event::Envelope(envelope));
            events.append(&mut open.bad);
        }
        Ok(Step::Body)
    }
}

/// The verb, and what follows its space.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|c| *c == b' ').unwrap_or(line.len());
    line.split_at_checked(end).unwrap_or((line, b""))
}

/// The argument behind `FROM:` or `TO:`.
fn keyword<'a>(argument: &'a [u8], keyword: &str) -> Option<&'a [u8]> {
    let (found, rest) = argument.trim_ascii_start().split_at_checked(keyword.len())?;
    found.eq_ignore_ascii_case(keyword.as_bytes()).then_some(rest)
}

fn text(argument: &[u8]) -> Result<&str, ArgumentError> {
    str::from_utf8(argument).map_err(|_| ArgumentError::NotUtf8)
}

fn nothing(command: &'static str, argument: &[u8]) -> Result<(), DecodeErrorKind> {
    if argument.trim_ascii().is_empty() {
        return Ok(());
    }
    Err(DecodeErrorKind::Syntax {
        command,
        expected: "takes no argument",
    })
}

const fn too_large(what: &'static str, limit: u64) -> DecodeErrorKind {
    DecodeErrorKind::TooLarge { what, limit }
}
