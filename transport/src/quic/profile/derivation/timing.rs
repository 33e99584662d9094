//! How long QUIC waits before it takes something for lost.

use std::time::Duration;

use lightpost_config::duration_text;

use super::Derivation;
use crate::quic::profile::HedgeFigures;

/// A connection on Earth that says nothing for this long is given up; opening it anew costs a tenth of a second.
const EARTH_IDLE: Duration = Duration::from_secs(60);
/// Datagrams that a handshake's answer may have to wait for on the line, its repeats included.
const FLIGHT: u64 = 8 * 1_248;
/// What hosts may take to answer.
const HOSTS: Duration = Duration::from_millis(300);
/// Reordering that is usual: timers, repeats, several ways through the ground network.
const REORDERING: Duration = Duration::from_millis(500);
/// What quinn does by itself (RFC 9002 section 6.1.2).
const USUAL_THRESHOLD: f64 = 9.0 / 8.0;
/// The largest mail that is worth sending twice.
const HEDGE_UP_TO: u64 = 1 << 20;
/// A smoothed round trip that is this much too long makes loss cost more than a new connection.
const RENEW_AT: f64 = 1.5;

impl Derivation<'_> {
    pub(super) fn initial_rtt(&mut self) -> Duration {
        let path = self.path;
        let round_trip = path.round_trip_max().max(Duration::from_millis(1));
        let terrestrial = path.is_terrestrial();
        self.choose(
            "initial_rtt",
            path.quic.initial_rtt,
            || match terrestrial {
                true => (round_trip, "the longest light time there and back"),
                false => {
                    let sending = path
                        .rate_up
                        .time_for(FLIGHT)
                        .saturating_add(path.rate_down.time_for(FLIGHT));
                    let answered = round_trip.mul_f64(1.05).saturating_add(sending) + HOSTS;
                    let why = "a third of the time in which a first answer must come, for a first packet is sent again after three \
                               times this. The draft wants the maximum round trip with outages; measured, a lost first packet is then \
                               sent again only after hours (9 light times with the round trip itself, 5 with a third of it)";
                    (answered / 3, why)
                }
            },
            |rtt| duration_text(*rtt),
        )
    }

    pub(super) fn idle_timeout(&mut self) -> Option<Duration> {
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
                    "the draft wants the maximum round trip at least; off, a connection outlives outages and silence of any length \
                     without keep-alives, and each request has a deadline of its own",
                ),
            },
            |idle| idle.map_or_else(|| "off".into(), duration_text),
        )
    }

    pub(super) fn packet_threshold(&mut self) -> u32 {
        self.choose(
            "packet_threshold",
            self.path.quic.packet_threshold,
            || (3, "RFC 9002 section 6.1.1; 1, 3 and 10 were measured alike"),
            |packets| packets.to_string(),
        )
    }

    pub(super) fn time_threshold(&mut self) -> f64 {
        let round_trip = self.path.round_trip_max();
        let terrestrial = self.path.is_terrestrial();
        self.choose(
            "time_threshold",
            self.path.quic.time_threshold,
            || {
                let tolerance = REORDERING.max(round_trip / 100).min(round_trip / 8);
                match terrestrial {
                    true => (USUAL_THRESHOLD, "RFC 9002 section 6.1.2"),
                    false => (
                        1.0 + tolerance.as_secs_f64() / round_trip.as_secs_f64().max(1e-9),
                        "in round trips; a hundredth of one more or half a second, whichever is longer, for what is overtaken (at most the \
                         eighth of RFC 9002 section 6.1.2, which would add a quarter of a light time to each repair)",
                    ),
                }
            },
            |threshold| format!("{threshold:.4}"),
        )
    }

    pub(super) fn hedge(&mut self) -> HedgeFigures {
        let (fixed, terrestrial) = (&self.path.quic, self.path.is_terrestrial());
        let on = self.choose(
            "hedge",
            fixed.hedge,
            || match terrestrial {
                true => (false, "QUIC repairs a loss soon enough"),
                false => (
                    true,
                    "a mail without a reply after 1.05 round trips and its time on the line is sent again on a fresh connection, with the \
                     same exchange id: a lost tail is repaired at 3.1 light times instead of 5, or of 308 after a hold of 6 h",
                ),
            },
            super::on_off,
        );
        let up_to = self.choose(
            "hedge_up_to",
            fixed.hedge_up_to,
            || {
                (
                    HEDGE_UP_TO,
                    "of a larger mail QUIC repairs what is missing for less than all of it again",
                )
            },
            super::octets,
        );
        let renew_at = self.choose(
            "renew_at",
            fixed.renew_at,
            || {
                let why = "a connection whose smoothed round trip is this many times the longest one is replaced: a hold of 6 h ruins it for \
                           the next twenty mails (8.5 light times for a lost tail)";
                (RENEW_AT, why)
            },
            |times| format!("{times} round trips"),
        );
        HedgeFigures { on, up_to, renew_at }
    }
}
