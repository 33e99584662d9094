//! How much is under way, and how fast.

use std::time::Duration;

use lightpost_config::{Rate, duration_text};

use super::{Carries, Derivation, octets};
use crate::quic::profile::Congestion;

/// Flow-control windows never go below these: a stream holds a mail of usual size, a connection many of them.
const LEAST_STREAM_WINDOW: u64 = 4 << 20;
const LEAST_WINDOW: u64 = 16 << 20;
/// No window of one connection makes a host keep more than this unless the operator says so.
const MOST: u64 = 1 << 30;
/// Octets that are handed to QUIC at once, twice: one piece is sent while another is acknowledged.
const PIECES: u64 = 2 << 20;
/// Requests that a peer may have open at once.
const STREAMS: u32 = 10_000;
/// What a paced line takes before writers wait.
const HOLD: Duration = Duration::from_millis(50);

impl Derivation<'_> {
    pub(super) fn congestion(&mut self) -> Congestion {
        let terrestrial = self.path.is_terrestrial();
        self.choose(
            "congestion",
            self.path.quic.congestion,
            || match terrestrial {
                true => (Congestion::Cubic, "a terrestrial path is shared with others"),
                false => (
                    Congestion::Fixed,
                    "the draft: neither stored packets nor a closed link are congestion. The path's rate, whatever is lost; 20 MiB at Mars \
                     take 359 s of 350 at best, 837 with BBR, 4282 with CUBIC. BBR is acceptable in line of sight",
                ),
            },
            |congestion| congestion.name().to_owned(),
        )
    }

    /// How much is taken ahead of a paced line.
    pub(super) fn hold(&mut self, congestion: Congestion) -> Duration {
        let text = rate(self.path.rate_up);
        match congestion {
            Congestion::Fixed => self.note(
                "pacing",
                text,
                "exactly rate_up, the headers of UDP and IP counted: quinn's own pacer sends 1.25 times as much, 4.8 MB of which wait at the \
                 link at Mars; a queue of 1 MB there loses so much that the connection dies",
            ),
            _ => self.note("pacing", "by the congestion controller".into(), "it measures the rate itself"),
        }
        self.choose(
            "hold",
            self.path.quic.hold,
            || {
                let why = "what QUIC may write ahead of the line: enough for late timers, little for a mail in a hurry to wait behind";
                (HOLD, why)
            },
            |hold| duration_text(*hold),
        )
    }

    pub(super) fn receive_window(&mut self) -> u64 {
        let product = self.path.rate_down.carries(self.path.round_trip_max());
        self.choose(
            "receive_window",
            self.path.quic.receive_window,
            || {
                let why = "the draft: large enough for the bandwidth-delay product. Twice of it, at least 16 MiB: never the bottleneck, and what a \
                           peer can make us hold is bounded, by 1 GiB unless you allow more";
                (product.saturating_mul(2).clamp(LEAST_WINDOW, MOST), why)
            },
            octets,
        )
    }

    pub(super) fn stream_receive_window(&mut self) -> u64 {
        let product = self.path.rate_down.carries(self.path.round_trip_max());
        self.choose(
            "stream_receive_window",
            self.path.quic.stream_receive_window,
            || {
                let why = "1.25 times what is under way in a round trip, at least 4 MiB: a single large mail fills the path, and all of a mail may leave \
                           in the first flight of a resumed connection, for which the peer remembers this (quinn's 1.25 MB held 20 MiB up for 36 light times)";
                let spare = product.saturating_add(product / 4);
                (spare.clamp(LEAST_STREAM_WINDOW, MOST), why)
            },
            octets,
        )
    }

    pub(super) fn send_window(&mut self) -> u64 {
        let product = self.path.rate_up.carries(self.path.round_trip_max());
        let storage = self.path.storage;
        self.choose(
            "send_window",
            self.path.quic.send_window,
            || match storage {
                Some(storage) => {
                    let kept = product.saturating_add(product.min(storage)).saturating_add(PIECES);
                    (
                        kept.min(MOST),
                        "the draft: bandwidth-delay product and the storage of the nodes govern what is under way. Both, and two pieces of a mail; at \
                         most 1 GiB of memory, for all of it is kept until acknowledged",
                    )
                }
                None => (
                    product.saturating_mul(2).clamp(LEAST_WINDOW, MOST),
                    "what is under way in a round trip, and as much while something is repaired, at least 16 MiB and at most 1 GiB of memory: all of it is \
                     kept until acknowledged",
                ),
            },
            octets,
        )
    }

    pub(super) fn max_streams(&mut self) -> u32 {
        self.choose(
            "max_streams",
            self.path.quic.max_streams,
            || {
                (
                    STREAMS,
                    "with 100 streams, 300 mails sent at once end 12 light times late; receive_window bounds what all of them hold",
                )
            },
            |streams| streams.to_string(),
        )
    }
}

/// A rate as configuration files write it.
fn rate(Rate(bits): Rate) -> String {
    let scales = [(1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")];
    let (scale, unit) = scales
        .into_iter()
        .find(|(scale, _)| bits >= *scale)
        .unwrap_or((1.0, "bit/s"));
    format!("{}{unit}", bits / scale)
}
