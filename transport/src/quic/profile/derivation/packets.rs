//! The form of packets, and how they are acknowledged.

use std::time::Duration;

use lightpost_config::duration_text;

use super::{Carries, Derivation, on_off};
use crate::quic::profile::overrides::LEAST_MTU;

/// Octets of the headers of UDP and IPv6.
const HEADERS: u16 = 48;
/// The longest delay that is asked of the peer before it acknowledges.
const LONGEST_ACK_DELAY: Duration = Duration::from_secs(1);
/// Gaps that one acknowledgement tells are 64 (quinn); half of them leave room for chance.
const GAPS: f64 = 32.0;

impl Derivation<'_> {
    pub(super) fn mtu(&mut self) -> Option<u16> {
        let terrestrial = self.path.is_terrestrial();
        let (fixed, known) = (self.path.quic.mtu.map(Some), self.path.mtu);
        self.choose(
            "mtu",
            fixed,
            || match (known, terrestrial) {
                (Some(mtu), _) => (
                    Some(mtu.saturating_sub(HEADERS).max(LEAST_MTU)),
                    "the path's mtu without the headers of UDP and IPv6; the draft: no discovery, the path's mtu configured",
                ),
                (None, true) => (None, "found by probing, which is cheap on a terrestrial path"),
                (None, false) => (
                    Some(LEAST_MTU),
                    "what every path carries (RFC 9000 section 14); the draft: no discovery. Measured, it costs 11 kB and round trips",
                ),
            },
            |mtu| mtu.map_or_else(|| "discovered".into(), |octets| format!("{octets} octets")),
        )
    }

    pub(super) fn padding(&mut self) -> bool {
        self.choose(
            "padding",
            self.path.quic.padding,
            || {
                (
                    false,
                    "only the first packets are filled up, as RFC 9000 section 14.1 demands",
                )
            },
            on_off,
        )
    }

    pub(super) fn connection_id(&mut self) -> u8 {
        let fixed = self.path.quic.connection_id.map(|octets| octets as u8);
        self.choose(
            "connection_id",
            fixed,
            || {
                let why = "the draft finds ids that are issued in advance a waste. None at all would save 380 octets of a cold start, but then a client can \
                           have one connection per gateway only, and sending again on a fresh one (hedge) needs two; half of the usual 8 stays";
                (4, why)
            },
            |octets| format!("{octets} octets"),
        )
    }

    pub(super) fn grease(&mut self) -> bool {
        self.choose(
            "grease",
            self.path.quic.grease,
            || {
                (
                    false,
                    "both ends are configured for each other; HTTP/3's greasing alone costs 180 octets",
                )
            },
            on_off,
        )
    }

    pub(super) fn early_data(&mut self) -> bool {
        let terrestrial = self.path.is_terrestrial();
        self.choose(
            "early_data",
            self.path.quic.early_data,
            || match terrestrial {
                true => (
                    false,
                    "the round trip that it saves is short here; what has left cannot go to another gateway at once when this one is dead",
                ),
                false => (
                    true,
                    "the draft asks for 0-RTT: a mail arrives after one light time instead of three, wherever a session from before is known",
                ),
            },
            on_off,
        )
    }

    /// How often the peer acknowledges what we send.
    pub(super) fn acks(&mut self, mtu: Option<u16>) -> Option<(u32, Duration)> {
        let (path, fixed) = (self.path, &self.path.quic);
        if path.is_terrestrial() && fixed.ack_threshold.is_none() && fixed.max_ack_delay.is_none() {
            self.note(
                "ack_threshold",
                "the peer's default".into(),
                "a terrestrial path has room for acknowledgements",
            );
            return None;
        }
        let round_trip = path.round_trip_max();
        let packets = path.rate_up.carries(round_trip) / u64::from(mtu.unwrap_or(LEAST_MTU));
        let told = match path.loss > 0.0 {
            true => (GAPS / path.loss).min(100.0) as u64,
            false => 100,
        };
        let threshold = self.choose(
            "ack_threshold",
            fixed.ack_threshold,
            || {
                let why = "the draft lowers the frequency of acknowledgements. An eighth of the packets under way, 2 to 100: a thirtieth of the \
                           usual traffic back, with far fewer gaps at this loss than the 64 that an acknowledgement can tell";
                ((packets / 8).clamp(2, told.max(2)) as u32, why)
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
}
