//! `GET /metrics`: figures for monitoring, in Prometheus's text exposition format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4).
//!
//! Times are given as times, not as ages, as is the custom there: `time() - lightpost_queue_oldest_message_timestamp_seconds` is an age.

use std::fmt::{Display, Write};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};
use jiff::Timestamp;

use super::Operator;
use crate::Problem;

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Something that has figures beside the queue's.
pub trait Measured: Send + Sync {
    /// Writes them.
    fn measure(&self, exposition: &mut Exposition);
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up, from zero at the start of the program.
    Counter,
}

/// The text that is being written.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// One metric with all its samples, each with its labels; nothing when there are none.
    pub fn metric<'a, V: Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, V)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        for (labels, value) in samples {
            let labels: Vec<String> = labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            if labels.is_empty() {
                self.line(format_args!("{name} {value}"));
            } else {
                self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
            }
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing into a text does not fail.
        let _ = writeln!(self.0, "{line}");
    }
}

/// A label's value.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// A time as a sample has it.
pub fn seconds(at: Timestamp) -> String {
    format!("{:.3}", at.as_millisecond() as f64 / 1000.0)
}

pub(super) async fn metrics(State(operator): State<Operator>) -> Result<Response, Problem> {
    let totals = operator.store.totals().await?;
    let oldest = operator.store.oldest().await?;
    let events = operator.store.events();
    let mut page = Exposition::default();
    page.metric(
        "lightpost_build_info",
        Kind::Gauge,
        "The version of the program.",
        [(vec![("version", env!("CARGO_PKG_VERSION"))], 1)],
    );
    page.metric(
        "lightpost_queue_recipients",
        Kind::Gauge,
        "Recipients that are stored, by status; those that are done stay for the retention.",
        totals
            .recipients
            .iter()
            .map(|(status, count)| (vec![("status", status.as_str())], *count)),
    );
    page.metric(
        "lightpost_queue_messages",
        Kind::Gauge,
        "Messages with a recipient that is not done.",
        [(Vec::new(), totals.messages)],
    );
    page.metric(
        "lightpost_queue_oldest_message_timestamp_seconds",
        Kind::Gauge,
        "When the oldest message was accepted that is not done; absent when there is none.",
        oldest.map(|at| (Vec::new(), seconds(at))),
    );
    page.metric(
        "lightpost_queue_events_total",
        Kind::Counter,
        "Lines of histories since the start: messages accepted and notified of, recipients delivered, failed, expired, deferred.",
        events.iter().map(|(kind, count)| (vec![("event", *kind)], *count)),
    );
    if let Some(more) = &operator.measured {
        more.measure(&mut page);
    }
    let mut response = page.0.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format() {
        let mut page = Exposition::default();
        page.metric(
            "a_total",
            Kind::Counter,
            "All.",
            [(vec![("to", "x\"\\\ny"), ("by", "z")], 7), (Vec::new(), 8)],
        );
        page.metric("none", Kind::Gauge, "None.", std::iter::empty::<(_, u64)>());
        let expected = "# HELP a_total All.\n# TYPE a_total counter\na_total{to=\"x\\\"\\\\\\ny\",by=\"z\"} 7\na_total 8\n";
        assert_eq!(page.0, expected);
        let at = Timestamp::from_millisecond(1_900_000_000_250).unwrap();
        assert_eq!(seconds(at), "1900000000.250");
    }
}
