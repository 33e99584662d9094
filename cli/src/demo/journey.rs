//! One mail's way, pieced together from the histories of both queues and the mailbox.

use std::time::Duration;

use jiff::Timestamp;
use lightpost_clock::until;
use lightpost_queue::MessageView;
use serde::Serialize;
use ulid::Ulid;

use crate::args::Carrier;

/// A stage of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// On the agent's disk.
    Accepted,
    /// First octets sent.
    Left,
    /// On the gateway's disk.
    Gateway,
    /// The gateway's answer is on the agent's disk.
    Reply,
    /// The mailbox server has taken it.
    Mailbox,
}

impl Stage {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [
        Self::Accepted,
        Self::Left,
        Self::Gateway,
        Self::Reply,
        Self::Mailbox,
    ];

    /// For people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Accepted => "accepted, on disk",
            Self::Left => "left Earth",
            Self::Gateway => "at the gateway",
            Self::Reply => "reply back",
            Self::Mailbox => "in the mailbox",
        }
    }
}

/// What is known about a mail's way.
#[derive(Clone, Debug)]
pub(super) struct Journey {
    /// The agent's id of it.
    pub(super) id: Ulid,
    /// When it was handed over.
    start: Timestamp,
    /// Whether the connection was there when it left.
    pub(super) connected: bool,
    /// Exchanges that carried it.
    pub(super) exchanges: Vec<String>,
    /// What happened that is not a stage, for people: kind and detail.
    pub(super) incidents: Vec<(Timestamp, String)>,
    /// The end without a mailbox.
    pub(super) lost: bool,
    times: [Option<Timestamp>; 5],
}

/// What `--json` prints: times in seconds since the hand-over.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Facts {
    id: String,
    owlt_s: f64,
    accepted_s: Option<f64>,
    left_s: Option<f64>,
    gateway_s: Option<f64>,
    reply_s: Option<f64>,
    mailbox_s: Option<f64>,
    gateway_owlt: Option<f64>,
    transport: &'static str,
}

impl Journey {
    /// A mail that was handed over at `start`.
    pub(super) fn new(id: Ulid, start: Timestamp) -> Self {
        Self {
            id,
            start,
            connected: false,
            exchanges: Vec::new(),
            incidents: Vec::new(),
            lost: false,
            times: [None; 5],
        }
    }

    /// Notes a stage; the first time counts.
    pub(super) fn note(&mut self, stage: Stage, at: Timestamp) {
        if let Some(slot) = self.times.get_mut(stage as usize) {
            slot.get_or_insert(at);
        }
    }

    /// Corrects the beginning: the queue knows when the agent began to take the mail, not when the answer came.
    pub(super) fn handed_over(&mut self, start: Timestamp, acknowledged: Timestamp) {
        self.start = start;
        if let Some(slot) = self.times.get_mut(Stage::Accepted as usize) {
            *slot = Some(acknowledged);
        }
    }

    /// When it got there.
    pub(super) fn at(&self, stage: Stage) -> Option<Timestamp> {
        self.times.get(stage as usize).copied().flatten()
    }

    /// Learns from the agent's history.
    pub(super) fn learn(&mut self, message: &MessageView) {
        self.exchanges.clear();
        self.exchanges.extend(
            message
                .recipients
                .iter()
                .filter_map(|recipient| Some(recipient.exchange?.to_string())),
        );
        self.incidents.clear();
        for event in &message.history {
            match event.kind.as_str() {
                "accepted" => self.note(Stage::Accepted, event.at),
                "sent" => self.note(Stage::Left, event.at),
                "delivered" => self.note(Stage::Reply, event.at),
                "failed" | "expired" | "cancelled" => {
                    self.lost = true;
                    self.incidents
                        .push((event.at, format!("{}: {}", event.kind, event.detail)));
                }
                "deferred" | "held" | "interrupted" => {
                    self.incidents
                        .push((event.at, format!("{}: {}", event.kind, event.detail)));
                }
                _ => {}
            }
        }
    }

    /// Whether there is nothing more to come.
    pub(super) fn is_over(&self) -> bool {
        self.lost || self.times.iter().all(Option::is_some)
    }

    /// Seconds from the hand-over.
    pub(super) fn seconds(&self, at: Timestamp) -> f64 {
        until(self.start, at).as_secs_f64()
    }

    /// The facts for `--json`.
    pub(super) fn facts(&self, owlt: Duration, carrier: Carrier) -> Facts {
        let seconds = |stage| self.at(stage).map(|at| rounded(self.seconds(at)));
        let owlt = owlt.as_secs_f64();
        let crossing = self.at(Stage::Left).zip(self.at(Stage::Gateway));
        Facts {
            id: self.id.to_string(),
            owlt_s: owlt,
            accepted_s: seconds(Stage::Accepted),
            left_s: seconds(Stage::Left),
            gateway_s: seconds(Stage::Gateway),
            reply_s: seconds(Stage::Reply),
            mailbox_s: seconds(Stage::Mailbox),
            gateway_owlt: crossing
                .map(|(left, there)| rounded((self.seconds(there) - self.seconds(left)) / owlt)),
            transport: match carrier {
                Carrier::Quic => "quic",
                Carrier::Bundle => "bundle",
            },
        }
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_900_000_000 + seconds).unwrap()
    }

    #[test]
    fn facts_are_seconds_since_the_hand_over() {
        let mut journey = Journey::new(Ulid::nil(), time(0));
        for (stage, at) in [
            (Stage::Accepted, 0),
            (Stage::Left, 1),
            (Stage::Gateway, 25),
            (Stage::Mailbox, 26),
        ] {
            journey.note(stage, time(at));
        }
        assert!(!journey.is_over());
        journey.note(Stage::Reply, time(33));
        journey.note(Stage::Reply, time(99));
        assert!(journey.is_over());
        let facts = serde_json::to_value(journey.facts(Duration::from_secs(8), Carrier::Quic)).unwrap();
        assert_eq!(
            facts,
            serde_json::json!({"id": Ulid::nil().to_string(), "owlt_s": 8.0, "accepted_s": 0.0, "left_s": 1.0, "gateway_s": 25.0,
                "reply_s": 33.0, "mailbox_s": 26.0, "gateway_owlt": 3.0, "transport": "quic"})
        );
    }
}
