//! The sums: what each setting is for a path, and why.

use std::time::Duration;

use lightpost_config::{Rate, duration_text};

use super::{
    Figures, Profile, Setting,
    overrides::{Congestion, LEAST_MTU},
};
use crate::Path;

/// The longest delay that is asked of the peer before it acknowledges.
const LONGEST_ACK_DELAY: Duration = Duration::from_secs(1);
/// Flow-control windows never go below these: a stream holds a mail of usual size, a connection many of them.
const LEAST_STREAM_WINDOW: u64 = 4 << 20;
const LEAST_WINDOW: u64 = 16 << 20;
/// Requests that a peer may have open at once.
const STREAMS: u32 = 10_000;
/// A connection on Earth that says nothing for this long is given up; opening it anew costs a tenth of a second.
const EARTH_IDLE: Duration = Duration::from_secs(60);
/// Packets in flight that even the slowest path may have.
const LEAST_PACKETS: u64 = 40;

pub(super) fn run(path: &Path) -> Profile {
    let mut derivation = Derivation {
        path,
        settings: Vec::new(),
    };
    let mtu = derivation.mtu();
    let acks = derivation.acks(mtu.unwrap_or(LEAST_MTU));
    let figures = Figures {
        initial_rtt: derivation.initial_rtt(),
        idle_timeout: derivation.idle_timeout(),
        mtu,
        receive_window: derivation.receive_window(),
        stream_receive_window: derivation.stream_receive_window(),
        send_window: derivation.send_window(),
        acks,
        packet_threshold: derivation.choose(
            "packet_threshold",
            path.quic.packet_threshold,
            || (3, "RFC 9002 section 6.1.1; 1, 3 and 10 were measured alike"),
            |packets| packets.to_string(),
        ),
        congestion: derivation.congestion(),
        congestion_window: derivation.congestion_window(acks.map(|(_, delay)| delay)),
        max_streams: derivation.choose(
            "max_streams",
            path.quic.max_streams,
            || {
                (
                    STREAMS,
                    "with 100 streams, 300 mails sent at once end 12 light times late",
                )
            },
            |streams| streams.to_string(),
        ),
    };
    Profile {
        figures,
        settings: derivation.settings,
    }
}

struct Derivation<'p> {
    path: &'p Path,
    settings: Vec<Setting>,
}

impl Derivation<'_> {
    /// Takes what the operator fixed, else what `derive` gives, and notes it.
    fn choose<T, W: Into<String>>(
        &mut self,
        name: &'static str,
        fixed: Option<T>,
        derive: impl FnOnce() -> (T, W),
        text: impl FnOnce(&T) -> String,
    ) -> T {
        let (value, why) = match fixed {
            Some(value) => (value, "fixed in the configuration".to_owned()),
            None => {
                let (value, why) = derive();
                (value, why.into())
            }
        };
        self.settings.push(Setting {
            name,
            value: text(&value),
            why,
        });
        value
    }

    fn initial_rtt(&mut self) -> Duration {
        let rtt = self.path.round_trip_max().max(Duration::from_millis(1));
        self.choose(
            "initial_rtt",
            self.path.quic.initial_rtt,
            || {
                let why = "the longest light time there and back, outages left out: with them the first flight is \
                           paced many times too slowly and a lost first packet is sent again only after hours";
                (rtt, why)
            },
            |rtt| duration_text(*rtt),
        )
    }

    fn idle_timeout(&mut self) -> Option<Duration> {
        let terrestrial = self.path.is_terrestrial();
        self.choose(
            "idle_timeout",
            self.path.quic.idle_timeout,
            || match terrestrial {
                true => (
                    Some(EARTH_IDLE),
                    "opening a connection anew costs little on a terrestrial path, and a dead peer is noticed: the client asks for a sign of \
                     life every twelfth of it",
                ),
                false => (
                    None,
                    "a connection outlives outages and silence of any length; each request has a deadline of its own",
                ),
            },
            |idle| idle.map_or_else(|| "off".into(), duration_text),
        )
    }

    fn mtu(&mut self) -> Option<u16> {
        let terrestrial = self.path.is_terrestrial();
        let fixed = self.path.quic.mtu.map(Some);
        self.choose(
            "mtu",
            fixed,
            || match terrestrial {
                true => (None, "found by probing, which is cheap on a terrestrial path"),
                false => (
                    Some(LEAST_MTU),
                    "what every path carries (RFC 9000 section 14); probing would cost 11 kB and round trips",
                ),
            },
            |mtu| mtu.map_or_else(|| "discovered".into(), |octets| octets.to_string()),
        )
    }

    fn receive_window(&mut self) -> u64 {
        let product = self.path.rate_down.carries(self.path.round_trip_max());
        self.choose(
            "receive_window",
            self.path.quic.receive_window,
            || {
                let why = "twice what is under way in a round trip, at least 16 MiB: never the bottleneck, and \
                           what a peer can make us hold is bounded";
                (product.saturating_mul(2).max(LEAST_WINDOW), why)
            },
            octets,
        )
    }

    fn stream_receive_window(&mut self) -> u64 {
        let product = self.path.rate_down.carries(self.path.round_trip_max());
        self.choose(
            "stream_receive_window",
            self.path.quic.stream_receive_window,
            || {
                let why =
                    "what is under way in a round trip, at least 4 MiB: a single large mail fills the path";
                let spare = product.saturating_add(product / 4);
                (spare.max(LEAST_STREAM_WINDOW), why)
            },
            octets,
        )
    }

    fn send_window(&mut self) -> u64 {
        let product = self.path.rate_up.carries(self.path.round_trip_max());
        self.choose(
            "send_window",
            self.path.quic.send_window,
            || {
                let why = "twice what is under way in a round trip, at least 16 MiB: kept until acknowledged";
                (product.saturating_mul(2).max(LEAST_WINDOW), why)
            },
            octets,
        )
    }

    /// How often the peer acknowledges what we send.
    fn acks(&mut self, mtu: u16) -> Option<(u32, Duration)> {
        let (path, fixed) = (self.path, &self.path.quic);
        if path.is_terrestrial() && fixed.ack_threshold.is_none() && fixed.max_ack_delay.is_none() {
            self.settings.push(Setting {
                name: "ack_threshold",
                value: "the peer's default".into(),
                why: "a terrestrial path has room for acknowledgements".into(),
            });
            return None;
        }
        let round_trip = path.round_trip_max();
        let packets = path.rate_up.carries(round_trip) / u64::from(mtu);
        let threshold = self.choose(
            "ack_threshold",
            fixed.ack_threshold,
            || {
                let why = "an eighth of the packets under way, 2 to 100: a thirtieth of the usual traffic back, and \
                           far below the 64 gaps that an acknowledgement can tell";
                ((packets / 8).clamp(2, 100) as u32, why)
            },
            |packets| format!("{packets} packets"),
        );
        let delay = self.choose(
            "max_ack_delay",
            fixed.max_ack_delay,
            || {
                let why = "a quarter of a round trip, at most 1 s: small beside the light time";
                (
                    (round_trip / 4).clamp(Duration::from_millis(25), LONGEST_ACK_DELAY),
                    why,
                )
            },
            |delay| duration_text(*delay),
        );
        Some((threshold, delay))
    }

    fn congestion(&mut self) -> Congestion {
        let terrestrial = self.path.is_terrestrial();
        self.choose(
            "congestion",
            self.path.quic.congestion,
            || match terrestrial {
                true => (Congestion::Cubic, "a terrestrial path is shared with others"),
                false => (
                    Congestion::Fixed,
                    "loss and silence are no congestion here; CUBIC takes twelve times as long for 20 MiB at Mars",
                ),
            },
            |congestion| congestion.name().to_owned(),
        )
    }

    fn congestion_window(&mut self, ack_delay: Option<Duration>) -> u64 {
        let span = self.path.round_trip_max() + ack_delay.unwrap_or_default();
        let mtu = u64::from(self.path.quic.mtu.unwrap_or(LEAST_MTU));
        let window = self.path.rate_up.carries(span).max(LEAST_PACKETS * mtu);
        self.choose(
            "congestion_window",
            None,
            || {
                let why = "what the rate carries in a round trip and the peer's delay before it acknowledges; used by \
                           \"fixed\" only";
                (window, why)
            },
            octets,
        )
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quic::profile::derive;

    fn path(one_way: f64, outage: u64, rate: f64) -> Path {
        Path {
            one_way_min: Duration::from_secs_f64(one_way),
            one_way_max: Duration::from_secs_f64(one_way),
            outage_max: Duration::from_secs(outage),
            rate_up: Rate(rate),
            rate_down: Rate(rate),
            ..Path::earth()
        }
    }

    #[test]
    fn profiles_by_path() {
        use Congestion::{Cubic, Fixed};
        let cases = [
            // one way, outage, rate; controller, idle off, window, ack threshold
            (0.1, 0, 1e9, Cubic, false, 25_000_000, None),
            (0.1, 7200, 1e9, Fixed, true, 31_250_000, Some(100)),
            (1.3, 7200, 2e6, Fixed, true, 812_500, Some(67)),
            (182.0, 21_600, 1e6, Fixed, true, 45_625_000, Some(100)),
            (1.3, 0, 64e3, Fixed, true, 48_000, Some(2)),
        ];
        for (one_way, outage, rate, congestion, idle_off, window, acks) in cases {
            let figures = derive(&path(one_way, outage, rate)).figures;
            let context = format!("{one_way} s, {outage} s, {rate} bit/s: {figures:?}");
            assert_eq!(figures.congestion, congestion, "{context}");
            assert_eq!(figures.idle_timeout.is_none(), idle_off, "{context}");
            assert_eq!(figures.congestion_window, window, "{context}");
            assert_eq!(figures.acks.map(|(threshold, _)| threshold), acks, "{context}");
            assert_eq!(
                figures.initial_rtt,
                Duration::from_secs_f64(one_way * 2.0),
                "{context}"
            );
            let under_way = (rate * one_way * 2.0 / 8.0) as u64;
            assert!(figures.stream_receive_window >= under_way, "{context}");
            assert!(
                figures.receive_window >= figures.stream_receive_window,
                "{context}"
            );
        }
    }

    #[test]
    fn what_the_operator_fixed_wins_and_says_so() {
        let mut path = path(182.0, 0, 1e6);
        path.quic.initial_rtt = Some(Duration::from_secs(400));
        path.quic.idle_timeout = Some(Some(Duration::from_secs(86_400)));
        path.quic.mtu = Some(1280);
        let profile = derive(&path);
        for (name, value) in [("initial_rtt", "6m40s"), ("idle_timeout", "1d"), ("mtu", "1280")] {
            let setting = profile
                .settings()
                .iter()
                .find(|setting| setting.name == name)
                .unwrap();
            assert_eq!(setting.value, value);
            assert_eq!(setting.why, "fixed in the configuration");
        }
    }
}
