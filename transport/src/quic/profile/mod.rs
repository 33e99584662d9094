//! From a path's figures to QUIC settings.
//!
//! [`derive()`] turns a [`Path`] into a [`Profile`]: every setting with its value and the reason behind it, so that an operator
//! can read why a connection behaves as it does, and override what they know better.

use std::{sync::Arc, time::Duration};

use quinn::{
    AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
    congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig},
};

use super::congestion::FixedWindowConfig;
use crate::Path;

mod derivation;
mod overrides;

pub use overrides::{Congestion, Overrides};

/// One line of the profile, for `lightpost profile`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key in `[path.NAME.quic]`.
    pub name: &'static str,
    /// Its value as text.
    pub value: String,
    /// Why this value.
    pub why: String,
}

/// The QUIC settings of a path.
#[derive(Clone, Debug)]
pub struct Profile {
    figures: Figures,
    settings: Vec<Setting>,
}

#[derive(Clone, Debug)]
struct Figures {
    initial_rtt: Duration,
    idle_timeout: Option<Duration>,
    /// `None`: discovered.
    mtu: Option<u16>,
    receive_window: u64,
    stream_receive_window: u64,
    send_window: u64,
    /// Threshold and delay; `None` leaves acknowledgement to the peer's own defaults.
    acks: Option<(u32, Duration)>,
    packet_threshold: u32,
    congestion: Congestion,
    congestion_window: u64,
    max_streams: u32,
}

/// Derives the profile of `path`.
pub fn derive(path: &Path) -> Profile {
    derivation::run(path)
}

/// The profile for a listener that serves all of `paths`: each setting as the most demanding of them needs it.
pub(crate) fn derive_for_all(paths: &[Path]) -> Profile {
    let longest = paths.iter().max_by_key(|path| path.round_trip_max());
    let mut profile = derive(longest.unwrap_or(&Path::earth()));
    for other in paths.iter().map(derive) {
        let (mine, theirs) = (&mut profile.figures, &other.figures);
        mine.idle_timeout = mine.idle_timeout.zip(theirs.idle_timeout).map(|(a, b)| a.max(b));
        mine.receive_window = mine.receive_window.max(theirs.receive_window);
        mine.stream_receive_window = mine.stream_receive_window.max(theirs.stream_receive_window);
        mine.send_window = mine.send_window.max(theirs.send_window);
        mine.congestion_window = mine.congestion_window.max(theirs.congestion_window);
        mine.max_streams = mine.max_streams.max(theirs.max_streams);
        if theirs.congestion == Congestion::Fixed {
            mine.congestion = Congestion::Fixed;
        }
    }
    profile
}

impl Profile {
    /// Every setting with its value and reason.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// Takes round trips for `span` until one was measured.
    pub(crate) fn assume_round_trip(&mut self, span: Duration) {
        self.figures.initial_rtt = self.figures.initial_rtt.min(span);
    }

    /// For a connection that we open.
    pub fn client_config(&self) -> Arc<TransportConfig> {
        let mut config = self.both();
        // A gateway opens no requests of its own; its control streams are three.
        config.max_concurrent_bidi_streams(0u32.into());
        // Where idling ends a connection at all. A gateway that died behind its acknowledgement would else be noticed only when the
        // reply is overdue: nothing is left to be sent that a restarted gateway could answer with a reset.
        config.keep_alive_interval(self.figures.idle_timeout.map(|idle| idle / 12));
        Arc::new(config)
    }

    /// For connections that are opened to us.
    pub fn server_config(&self) -> Arc<TransportConfig> {
        let mut config = self.both();
        config.max_concurrent_bidi_streams(self.figures.max_streams.into());
        Arc::new(config)
    }

    fn both(&self) -> TransportConfig {
        let figures = &self.figures;
        let mut config = TransportConfig::default();
        let idle = figures
            .idle_timeout
            .map(|span| IdleTimeout::try_from(span).unwrap_or(VarInt::MAX.into()));
        config
            .initial_rtt(figures.initial_rtt)
            .max_idle_timeout(idle)
            .receive_window(varint(figures.receive_window))
            .stream_receive_window(varint(figures.stream_receive_window))
            .send_window(figures.send_window)
            .packet_threshold(figures.packet_threshold)
            .max_concurrent_uni_streams(16u32.into())
            .datagram_receive_buffer_size(None)
            .congestion_controller_factory(self.congestion());
        match figures.mtu {
            Some(mtu) => config.initial_mtu(mtu).min_mtu(mtu).mtu_discovery_config(None),
            None => config.mtu_discovery_config(Some(MtuDiscoveryConfig::default())),
        };
        if let Some((threshold, delay)) = figures.acks {
            let mut acks = AckFrequencyConfig::default();
            acks.ack_eliciting_threshold(threshold.into())
                .max_ack_delay(Some(delay))
                .reordering_threshold(figures.packet_threshold.into());
            config.ack_frequency_config(Some(acks));
        }
        config
    }

    fn congestion(&self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self.figures.congestion {
            Congestion::Fixed => Arc::new(FixedWindowConfig {
                window: self.figures.congestion_window,
            }),
            Congestion::Bbr => Arc::new(BbrConfig::default()),
            Congestion::Cubic => Arc::new(CubicConfig::default()),
            Congestion::NewReno => Arc::new(NewRenoConfig::default()),
        }
    }
}

fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}
