//! The live timeline.

use std::{io::Write, time::Duration};

use jiff::Timestamp;
use lightpost_clock::until;
use lightpost_queue::MessageView;

use super::{
    journey::{Journey, Stage},
    picture::Flight,
};
use crate::{
    failure::Failure,
    output::{Output, Tone},
};

/// Prints what is new, and moves the dot.
pub(super) struct Screen {
    output: Output,
    owlt: Duration,
    /// Stages and incidents that were printed, by mail.
    printed: Vec<(Vec<Stage>, usize)>,
    /// Whether the dot's line is on the screen.
    dot: bool,
}

impl Screen {
    /// An empty one.
    pub(super) fn new(output: Output, owlt: Duration) -> Self {
        Self {
            output,
            owlt,
            printed: Vec::new(),
            dot: false,
        }
    }

    /// A line above the dot.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.wipe()?;
        self.output.line(text)
    }

    /// A new mail.
    pub(super) fn mail(&mut self, number: usize, message: &MessageView) -> Result<(), Failure> {
        let to: Vec<&str> = message
            .recipients
            .iter()
            .map(|recipient| recipient.address.as_str())
            .collect();
        let from = if message.sender.is_empty() {
            "<>"
        } else {
            &message.sender
        };
        let title = self.output.paint(Tone::Strong, &format!("mail {number}"));
        self.line(&format!(
            "\n{title}  {from} to {}, {} octets, {}",
            to.join(", "),
            message.size,
            message.id
        ))
    }

    /// What a mail's journey has that was not printed yet.
    pub(super) fn journey(&mut self, index: usize, journey: &Journey) -> Result<(), Failure> {
        while self.printed.len() <= index {
            self.printed.push((Vec::new(), 0));
        }
        let (stages, incidents) = self.printed.get(index).cloned().unwrap_or_default();
        let mut news: Vec<(Timestamp, Tone, String)> = Stage::ALL
            .iter()
            .filter(|stage| !stages.contains(stage))
            .filter_map(|stage| Some((journey.at(*stage)?, Tone::Good, stage.words().to_owned())))
            .collect();
        let known = stages.into_iter().chain(
            Stage::ALL
                .into_iter()
                .filter(|stage| journey.at(*stage).is_some()),
        );
        let known: std::collections::BTreeSet<Stage> = known.collect();
        news.extend(
            journey
                .incidents
                .iter()
                .skip(incidents)
                .map(|(at, text)| (*at, Tone::Bad, text.clone())),
        );
        if let Some(slot) = self.printed.get_mut(index) {
            *slot = (known.into_iter().collect(), journey.incidents.len());
        }
        news.sort_by_key(|(at, ..)| *at);
        for (at, tone, text) in news {
            let seconds = journey.seconds(at);
            let light_times = seconds / self.owlt.as_secs_f64();
            let times = format!("{seconds:>10.3} s {light_times:>8.2} light times");
            let text = self.output.paint(tone, &text);
            self.line(&format!(
                "{:>4}{}  {text}",
                index + 1,
                self.output.paint(Tone::Faint, &times)
            ))?;
        }
        Ok(())
    }

    /// Draws the dot for the oldest mail on its way.
    pub(super) fn animate(&mut self, journeys: &[Journey], now: Timestamp) -> Result<(), Failure> {
        if !self.output.terminal || self.output.json {
            return Ok(());
        }
        let owlt = self.owlt.as_secs_f64();
        let flying = journeys.iter().enumerate().find_map(|(index, journey)| {
            let left = journey
                .at(Stage::Left)
                .filter(|_| journey.at(Stage::Reply).is_none() && !journey.lost)?;
            let since = |at| until(at, now).as_secs_f64() / owlt;
            let flight = Flight {
                light_times: since(left),
                connected: journey.connected,
                answered: journey.at(Stage::Gateway).map(since),
            };
            Some((index, journey.seconds(now), flight))
        });
        let Some((index, seconds, flight)) = flying else {
            return self.wipe();
        };
        let line = format!("\r\x1b[K{:>4}{seconds:>10.1} s  {}", index + 1, flight.line());
        self.dot = true;
        self.output.raw(line.as_bytes())
    }

    /// Removes the dot's line.
    pub(super) fn wipe(&mut self) -> Result<(), Failure> {
        if !std::mem::take(&mut self.dot) {
            return Ok(());
        }
        self.output.raw(b"\r\x1b[K")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.dot {
            let _ = std::io::stdout().write_all(b"\r\x1b[K");
        }
    }
}
