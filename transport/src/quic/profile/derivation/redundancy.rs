//! What is sent more than once.

use std::time::Duration;

use lightpost_config::duration_text;

use super::{Derivation, octets};
use crate::quic::{
    datagram::{Policy, Redundancy},
    profile::Congestion,
};

/// From this loss on the holes in a large mail are so many that halving the rate is the lesser evil: more than 1024 of them in a
/// stream end the connection.
const HEAVY: f64 = 0.02;
/// How seldom all copies of a packet may be lost, so that of a hundred mails of ten packets at least ninety-nine need no repair.
const SELDOM: f64 = 1.25e-4;
/// The time between two copies.
const GAP: Duration = Duration::from_millis(20);
/// Datagrams that leave between two copies: with more the peer takes a repeat for a duplicate.
const BETWEEN: u64 = 48;
/// Octets of a full datagram on the line.
const FULL: u64 = 1_248;
/// What counts as a small mail.
const SMALL: u64 = 64 << 10;

impl Derivation<'_> {
    pub(super) fn redundancy(&mut self, congestion: Congestion) -> Redundancy {
        let (loss, fixed) = (self.path.loss, &self.path.quic);
        let terrestrial = self.path.is_terrestrial();
        let policy = self.choose(
            "redundancy",
            self.path.redundancy,
            || match loss {
                _ if terrestrial => (Policy::None, "a loss costs little on a terrestrial path"),
                loss if loss >= HEAVY => (
                    Policy::All,
                    "the loss is 2% or more: every datagram twice halves the rate, and a large mail arrives at all",
                ),
                loss if loss > 0.0 => (
                    Policy::Small,
                    "small mails, acknowledgements and handshakes twice: at 1% loss all of 400 mails took 1.00 light times instead of 5.4 at the 99th percentile",
                ),
                _ => (
                    Policy::Handshake,
                    "a lost packet of a handshake costs 9 to 17 light times, a second copy 1.2 kB a connection",
                ),
            },
            |policy| policy.name().to_owned(),
        );
        if policy == Policy::None {
            return Redundancy::default();
        }
        let copies = self.choose(
            "copies",
            fixed.copies,
            || {
                let copies = match loss > 0.0 {
                    true => (SELDOM.ln() / loss.ln()).ceil().clamp(2.0, 5.0) as u32,
                    false => 2,
                };
                (
                    copies,
                    "so many that at this loss all of them are lost less than once in 8,000 times; two at least",
                )
            },
            |copies| copies.to_string(),
        );
        let between = match congestion {
            Congestion::Fixed => self.path.rate_up.time_for(BETWEEN * FULL) / copies.max(1),
            _ => GAP,
        };
        let patience = self.path.round_trip_max() / 32;
        let gap = self.choose(
            "gap",
            fixed.gap,
            || {
                let why = "outlives a short gust; not so long that the peer takes a repeat for a duplicate (128 packets later) or a packet counts as lost before";
                let gap = GAP.min(between).min(patience);
                (gap.max(Duration::from_micros(100)), why)
            },
            |gap| duration_text(*gap),
        );
        let small = match policy {
            Policy::Small => self.choose(
                "small",
                fixed.small,
                || {
                    let why = "so much is repeated at once, and comes back at an eighth of the rate; beyond, repeats wait until the line is quiet, the \
                               last 64 datagrams at most";
                    (SMALL, why)
                },
                octets,
            ),
            _ => 0,
        };
        Redundancy {
            policy,
            copies: copies as u8,
            gap,
            small,
        }
    }
}
