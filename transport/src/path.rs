//! A path to a celestial body: its physical figures, from configuration.

use std::time::Duration;

use lightpost_config::{Rate, Section};

/// What is known about a path. Everything that waits is derived from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// Its name in the configuration, `[path.NAME]`.
    pub name: String,
    /// The shortest one-way light time.
    pub one_way_min: Duration,
    /// The longest one-way light time.
    pub one_way_max: Duration,
    /// The longest outage.
    pub outage_max: Duration,
    /// The rate towards the far side.
    pub rate_up: Rate,
    /// The rate from the far side.
    pub rate_down: Rate,
    /// The profile's settings that the operator fixed.
    pub quic: crate::quic::profile::Overrides,
}

impl Path {
    /// Reads `[path.NAME]`: `one_way_min`, `one_way_max`, `outage_max`, `rate_up`, `rate_down`, `[path.NAME.quic]`.
    pub fn read(_name: &str, _section: &Section<'_>) -> Option<Self> {
        unimplemented!()
    }

    /// A terrestrial path: a tenth of a second, no outages, 1 Gbit/s.
    pub fn earth() -> Self {
        Self {
            name: "earth".into(),
            one_way_min: Duration::from_millis(1),
            one_way_max: Duration::from_millis(100),
            outage_max: Duration::ZERO,
            rate_up: Rate(1e9),
            rate_down: Rate(1e9),
            quic: crate::quic::profile::Overrides::default(),
        }
    }

    /// How long a reply to an exchange of `octets` may take: there and back, the longest outage, sending time, and a margin.
    pub fn reply_within(&self, octets: u64) -> Duration {
        (self.one_way_max * 2 + self.outage_max + self.rate_up.time_for(octets)).mul_f64(1.25)
            + Duration::from_secs(30)
    }
}
