//! Printing: tables and colour for people, JSON for programs.

use std::{
    io::{ErrorKind, IsTerminal, Write},
    process::ExitCode,
};

use comfy_table::{Attribute, Cell, Color, Table, presets};
use serde::Serialize;

use crate::failure::{Failure, code};

/// How a command prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON instead of text.
    pub(crate) json: bool,
    /// Whether standard output is a terminal.
    pub(crate) terminal: bool,
    colour: bool,
}

/// A colour's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Done.
    Good,
    /// Waits.
    Waiting,
    /// Went wrong.
    Bad,
    /// Less important.
    Faint,
    /// More important.
    Strong,
}

impl Output {
    /// Looks at standard output; `NO_COLOR` is honoured.
    pub(crate) fn new(json: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            json,
            terminal,
            colour: terminal && !plain && !dumb && !json,
        }
    }

    /// `text` in its tone, where colours are shown.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let sequence = match tone {
            Tone::Good => "32",
            Tone::Waiting => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        format!("\x1b[{sequence}m{text}\x1b[0m")
    }

    /// The same as a table's cell.
    pub(crate) fn cell(self, tone: Tone, text: &str) -> Cell {
        let cell = Cell::new(text);
        if !self.colour {
            return cell;
        }
        match tone {
            Tone::Good => cell.fg(Color::DarkGreen),
            Tone::Waiting => cell.fg(Color::DarkYellow),
            Tone::Bad => cell.fg(Color::DarkRed),
            Tone::Faint => cell.add_attribute(Attribute::Dim),
            Tone::Strong => cell.add_attribute(Attribute::Bold),
        }
    }

    /// One line of text.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// A value as one line of JSON.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub(crate) fn value(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| {
            Failure::new(
                code::SOFTWARE,
                format!("the answer cannot be written as JSON: {error}"),
                "report this",
            )
        })?;
        self.line(&text)
    }

    /// Octets as they are.
    ///
    /// # Errors
    /// When standard output cannot be written. A reader that went away (`| head`) ends the command quietly.
    pub(crate) fn raw(self, octets: &[u8]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(octets)
            .and_then(|()| out.flush())
            .map_err(|error| match error.kind() {
                ErrorKind::BrokenPipe => Failure::new(code::IOERR, "", ""),
                _ => Failure::new(code::IOERR, format!("standard output: {error}"), ""),
            })
    }

    /// Prints what ended the command; nothing when the command has told it already.
    pub(crate) fn failure(self, failure: &Failure) -> ExitCode {
        if self.json && !failure.what.is_empty() {
            let _ = self.value(failure);
        }
        for line in failure.to_string().lines() {
            // Standard error may be gone; the exit code still tells.
            let _ = writeln!(std::io::stderr(), "lightpost: {line}");
        }
        ExitCode::from(failure.code)
    }

    /// A table without lines, as wide as the terminal at most.
    pub(crate) fn table(self, header: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(header.iter().map(|title| self.cell(Tone::Faint, title)));
        if self.terminal {
            table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
        }
        table
    }

    /// A table's lines, without trailing blanks and without the padding on the left.
    pub(crate) fn print_table(self, table: &Table) -> Result<(), Failure> {
        table
            .lines()
            .try_for_each(|line| self.line(line.strip_prefix(' ').unwrap_or(&line).trim_end()))
    }
}
