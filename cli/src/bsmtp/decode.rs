//! An object to envelopes and bodies.

use std::{
    fs::File,
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use lightpost_mail::bsmtp::decode::{DecodeError, Decoder, Event, Limits, LineEnds};
use serde::Serialize;

use super::{broken, reader};
use crate::{
    args::Decode,
    failure::{Failure, code},
    output::{Output, Tone},
};

const CHUNK: usize = 64 * 1024;

/// One transaction as it is shown.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Transaction {
    /// From 1.
    transaction: usize,
    /// The MAIL argument.
    from: String,
    /// The RCPT arguments.
    to: Vec<String>,
    /// RCPT commands that cannot be parsed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<Refused>,
    /// Octets of the canonical body.
    size: u64,
    /// Where the body was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Refused {
    line: u64,
    argument: String,
    error: String,
}

/// Runs the command.
pub(super) fn run(options: &Decode, output: Output) -> Result<(), Failure> {
    if let Some(folder) = &options.bodies {
        std::fs::create_dir_all(folder).map_err(|error| broken(&folder.display().to_string(), &error))?;
    }
    let mut source = reader(options.input.as_deref())?;
    let line_ends = if options.strict {
        LineEnds::Crlf
    } else {
        LineEnds::Detect
    };
    // A command at a terminal has no peer to be protected from; what fits on the disk is read.
    let limits = Limits {
        body: u64::MAX,
        transactions: usize::MAX,
        ..Limits::default()
    };
    let mut decoder = Decoder::new(line_ends, limits);
    let mut collector = Collector::new(options.bodies.as_deref());
    let (mut chunk, mut events) = (vec![0; CHUNK], Vec::new());
    loop {
        let read = source
            .read(&mut chunk)
            .map_err(|error| broken("the object", &error))?;
        let result = match chunk.get(..read) {
            Some(octets) if read > 0 => decoder.push(octets, &mut events),
            _ => decoder.finish(&mut events),
        };
        for event in events.drain(..) {
            if let Some(transaction) = collector.take(event)? {
                show(&transaction, output)?;
            }
        }
        result.map_err(|error| wrong(&error, collector.done))?;
        if read == 0 {
            return Ok(());
        }
    }
}

fn wrong(error: &DecodeError, done: usize) -> Failure {
    let remedy = format!("{done} transactions before it are complete");
    Failure::new(code::DATAERR, error.to_string(), remedy)
}

fn show(transaction: &Transaction, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.value(transaction);
    }
    let label = |name: &str| output.paint(Tone::Faint, &format!("{name:8}"));
    let number = transaction.transaction;
    output.line(&format!(
        "{} {number}, {} octets",
        label("mail"),
        transaction.size
    ))?;
    output.line(&format!("{} {}", label("from"), transaction.from))?;
    for recipient in &transaction.to {
        output.line(&format!("{} {recipient}", label("to")))?;
    }
    for refused in &transaction.refused {
        let text = format!("line {}: {}: {}", refused.line, refused.argument, refused.error);
        output.line(&format!(
            "{} {}",
            label("refused"),
            output.paint(Tone::Bad, &text)
        ))?;
    }
    if let Some(file) = &transaction.file {
        output.line(&format!("{} {}", label("body"), file.display()))?;
    }
    Ok(())
}

/// Gathers events to transactions and writes bodies.
struct Collector<'a> {
    folder: Option<&'a Path>,
    current: Transaction,
    file: Option<BufWriter<File>>,
    done: usize,
}

impl<'a> Collector<'a> {
    fn new(folder: Option<&'a Path>) -> Self {
        Self {
            folder,
            current: Transaction::default(),
            file: None,
            done: 0,
        }
    }

    /// Takes an event; a transaction that it completes is returned.
    fn take(&mut self, event: Event) -> Result<Option<Transaction>, Failure> {
        match event {
            Event::Envelope(envelope) => {
                self.current = Transaction {
                    transaction: self.done + 1,
                    from: envelope.sender.to_string(),
                    to: envelope.recipients.iter().map(ToString::to_string).collect(),
                    ..Transaction::default()
                };
                self.open()?;
            }
            Event::BadRecipient {
                line,
                argument,
                error,
            } => self.current.refused.push(Refused {
                line,
                argument,
                error: error.to_string(),
            }),
            Event::Body(octets) => {
                self.current.size += octets.len() as u64;
                self.with_file(|file| file.write_all(&octets))?;
            }
            Event::End => {
                self.with_file(Write::flush)?;
                self.file = None;
                self.done += 1;
                return Ok(Some(std::mem::take(&mut self.current)));
            }
            Event::Quit => {}
        }
        Ok(None)
    }

    fn open(&mut self) -> Result<(), Failure> {
        let Some(folder) = self.folder else { return Ok(()) };
        let path = folder.join(format!("{}.eml", self.current.transaction));
        let file = File::create(&path).map_err(|error| broken(&path.display().to_string(), &error))?;
        self.current.file = Some(path);
        self.file = Some(BufWriter::new(file));
        Ok(())
    }

    fn with_file(
        &mut self,
        write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let result = self.file.as_mut().map_or(Ok(()), write);
        result.map_err(|error| broken("a body's file", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_become_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut collector = Collector::new(Some(folder.path()));
        let envelope = lightpost_mail::Envelope {
            sender: "<>".parse().unwrap(),
            recipients: vec!["<a@b.example> NOTIFY=NEVER".parse().unwrap()],
        };
        let mut shown = Vec::new();
        for event in [
            Event::Envelope(envelope),
            Event::Body(b"one\r\n".to_vec()),
            Event::Body(b"two\r\n".to_vec()),
            Event::End,
            Event::Quit,
        ] {
            shown.extend(collector.take(event).unwrap());
        }
        let file = folder.path().join("1.eml");
        assert_eq!(std::fs::read(&file).unwrap(), b"one\r\ntwo\r\n");
        let expected = Transaction {
            transaction: 1,
            from: "<>".into(),
            to: vec!["<a@b.example> NOTIFY=NEVER".into()],
            refused: Vec::new(),
            size: 10,
            file: Some(file),
        };
        assert_eq!(shown, [expected]);
    }
}
