//! The sums: what each setting is for a path, and why.

use std::time::Duration;

use lightpost_config::Rate;

use super::{Figures, Profile, Setting};
use crate::Path;

mod flow;
mod packets;
mod redundancy;
#[cfg(test)]
mod tests;
mod timing;

/// Why a value is what it is when the operator says so.
const FIXED: &str = "fixed in the configuration";

pub(super) fn run(path: &Path) -> Profile {
    let mut derivation = Derivation {
        path,
        settings: Vec::new(),
    };
    let figures = derivation.figures();
    Profile {
        figures,
        settings: derivation.settings,
    }
}

/// What is known, and the lines that explain it, in the order in which they were derived.
struct Derivation<'p> {
    path: &'p Path,
    settings: Vec<Setting>,
}

impl Derivation<'_> {
    fn figures(&mut self) -> Figures {
        let initial_rtt = self.initial_rtt();
        let idle_timeout = self.idle_timeout();
        let packet_threshold = self.packet_threshold();
        let time_threshold = self.time_threshold();
        let mtu = self.mtu();
        let padding = self.padding();
        let connection_id = self.connection_id();
        let grease = self.grease();
        let early_data = self.early_data();
        let acks = self.acks(mtu);
        let congestion = self.congestion();
        let hold = self.hold(congestion);
        let receive_window = self.receive_window();
        let stream_receive_window = self.stream_receive_window();
        let send_window = self.send_window();
        let max_streams = self.max_streams();
        let redundancy = self.redundancy(congestion);
        let hedge = self.hedge();
        Figures {
            round_trip: self.path.round_trip_max(),
            rate: self.path.rate_up,
            initial_rtt,
            idle_timeout,
            packet_threshold,
            time_threshold,
            mtu,
            padding,
            connection_id,
            grease,
            early_data,
            acks,
            congestion,
            hold,
            receive_window,
            stream_receive_window,
            send_window,
            max_streams,
            redundancy,
            hedge,
        }
    }

    /// Takes what the operator fixed, else what `derive` gives, and notes it.
    fn choose<T, W: Into<String>>(
        &mut self,
        name: &'static str,
        fixed: Option<T>,
        derive: impl FnOnce() -> (T, W),
        text: impl FnOnce(&T) -> String,
    ) -> T {
        let (value, why) = match fixed {
            Some(value) => (value, FIXED.to_owned()),
            None => {
                let (value, why) = derive();
                (value, why.into())
            }
        };
        self.note(name, text(&value), why);
        value
    }

    fn note(&mut self, name: &'static str, value: String, why: impl Into<String>) {
        self.settings.push(Setting {
            name,
            value,
            why: why.into(),
        });
    }
}

/// What a rate carries in a span, in octets.
trait Carries {
    fn carries(self, span: Duration) -> u64;
}

impl Carries for Rate {
    fn carries(self, span: Duration) -> u64 {
        (self.0 * span.as_secs_f64() / 8.0) as u64
    }
}

fn octets(value: &u64) -> String {
    format!("{value} octets")
}

fn on_off(value: &bool) -> String {
    if *value { "on" } else { "off" }.to_owned()
}
