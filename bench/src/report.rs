//! What is printed.

use std::io::{IsTerminal, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::Result;

/// One measured figure, ours beside the peer's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: &'static str,
    /// Our figure.
    pub(crate) ours: f64,
    /// The peer's, or what ours is compared with; absent where there is none.
    pub(crate) peer: Option<f64>,
    /// Ours by the peer's.
    pub(crate) ratio: Option<f64>,
    /// The figures' unit.
    pub(crate) unit: &'static str,
}

impl Row {
    /// A figure with one to compare it with.
    pub(crate) fn beside(name: &'static str, ours: f64, peer: f64, unit: &'static str) -> Self {
        Self {
            name,
            ours: round(ours),
            peer: Some(round(peer)),
            ratio: (peer > 0.0).then(|| round(ours / peer)),
            unit,
        }
    }

    /// The medians of rounds that took turns, so that both sides met the same moods of the machine.
    pub(crate) fn of_rounds(name: &'static str, rounds: &[(f64, f64)], unit: &'static str) -> Self {
        let (ours, theirs): (Vec<f64>, Vec<f64>) = rounds.iter().copied().unzip();
        Self::beside(name, median(ours), median(theirs), unit)
    }

    /// A figure of its own.
    pub(crate) fn alone(name: &'static str, ours: f64, unit: &'static str) -> Self {
        Self {
            name,
            ours: round(ours),
            peer: None,
            ratio: None,
            unit,
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn round(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

/// Prints the rows.
pub(crate) fn print<T: Serialize>(rows: &[T], json: bool, table: impl Fn(&[T]) -> String) -> Result<()> {
    let text = if json {
        serde_json::to_string(rows).map_err(|error| error.to_string())?
    } else {
        table(rows)
    };
    writeln!(std::io::stdout(), "{text}").map_err(|error| format!("standard output: {error}"))
}

/// The table of [`Row`]s.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "ours", "peer", "ratio", "unit"]);
    let number = |figure: Option<f64>| figure.map(|figure| format!("{figure:.2}")).unwrap_or_default();
    for row in rows {
        table.add_row([
            row.name.to_owned(),
            number(Some(row.ours)),
            number(row.peer),
            number(row.ratio),
            row.unit.to_owned(),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// Lines about the progress, on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
}

impl Progress {
    /// Looks at standard error.
    pub(crate) fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// A line that stays.
    pub(crate) fn say(&self, text: &str) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        let _ = writeln!(std::io::stderr(), "{clear}{text}");
    }

    /// A line that the next one replaces; only on a terminal.
    pub(crate) fn step(&self, text: &str) {
        if self.terminal {
            let mut out = std::io::stderr();
            let _ = write!(out, "\r\x1b[K{text}").and_then(|()| out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_flat() {
        let rows = [
            Row::beside("accept", 4000.0, 400.0, "mails/s"),
            Row::alone("start_s", 0.5, "s"),
        ];
        assert_eq!(
            serde_json::to_string(&rows).unwrap(),
            "[{\"name\":\"accept\",\"ours\":4000.0,\"peer\":400.0,\"ratio\":10.0,\"unit\":\"mails/s\"},\
             {\"name\":\"start_s\",\"ours\":0.5,\"peer\":null,\"ratio\":null,\"unit\":\"s\"}]"
        );
    }
}
