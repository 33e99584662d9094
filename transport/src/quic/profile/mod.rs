//! From a path's figures to QUIC settings.
//!
//! [`derive()`] turns a [`Path`] into a [`Profile`]: every setting with its value and the reason behind it, so that an operator
//! can read why a connection behaves as it does, and override what they know better.

use std::{sync::Arc, time::Duration};

use lightpost_config::Rate;
use quinn::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
    congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig},
};

use super::{
    congestion::FixedRateConfig,
    datagram::{LineOptions, Redundancy, Wire},
    reset::RandomIds,
};
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
    round_trip: Duration,
    rate: Rate,
    initial_rtt: Duration,
    idle_timeout: Option<Duration>,
    packet_threshold: u32,
    time_threshold: f64,
    /// `None`: discovered.
    mtu: Option<u16>,
    padding: bool,
    connection_id: u8,
    grease: bool,
    early_data: bool,
    /// Threshold and delay; `None` leaves acknowledgement to the peer's own defaults.
    acks: Option<(u32, Duration)>,
    congestion: Congestion,
    hold: Duration,
    receive_window: u64,
    stream_receive_window: u64,
    send_window: u64,
    max_streams: u32,
    redundancy: Redundancy,
    hedge: HedgeFigures,
}

/// When a mail is sent again on a fresh connection, and when a connection is replaced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgeFigures {
    /// Whether mails are sent again.
    pub on: bool,
    /// Octets of the largest mail that is.
    pub up_to: u64,
    /// The smoothed round trip from which on a connection is replaced, in longest round trips.
    pub renew_at: f64,
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
        mine.max_streams = mine.max_streams.max(theirs.max_streams);
        mine.time_threshold = mine.time_threshold.max(theirs.time_threshold);
        mine.mtu = mine
            .mtu
            .zip(theirs.mtu)
            .map(|(a, b)| a.min(b))
            .or(mine.mtu)
            .or(theirs.mtu);
        if theirs.congestion == Congestion::Fixed {
            mine.congestion = Congestion::Fixed;
        }
        // Who calls does not say by which path: the fastest one must not be held back, and the lossiest one needs its repeats.
        mine.rate.0 = mine.rate.0.max(theirs.rate.0);
        mine.hold = mine.hold.min(theirs.hold);
        mine.redundancy = mine.redundancy.and(theirs.redundancy);
    }
    profile
}

/// What the endpoint of a client with `paths` is like.
pub(crate) fn client_endpoint(paths: &[Path]) -> EndpointConfig {
    let profiles: Vec<Profile> = paths.iter().map(derive).collect();
    let ids = profiles.iter().map(|profile| profile.figures.connection_id).max();
    let ids = usize::from(ids.unwrap_or(8));
    let mut config = EndpointConfig::default();
    config
        .cid_generator(move || RandomIds::of_length(ids))
        .grease_quic_bit(profiles.iter().any(|profile| profile.figures.grease));
    config
}

/// Whether a listener that is reached by `paths` lets its clients clear the fixed bit of QUIC (RFC 9287).
pub(crate) fn greased(paths: &[Path]) -> bool {
    paths.iter().any(|path| derive(path).figures.grease)
}

/// The lines of a client's endpoint, one for each path.
pub(crate) fn client_wire(paths: &[Path]) -> Wire {
    Wire::outgoing(paths.iter().map(|path| (path.name.clone(), derive(path).line())))
}

/// The line of a listener's endpoint.
pub(crate) fn server_wire(paths: &[Path]) -> Wire {
    Wire::incoming(derive_for_all(paths).line())
}

impl Profile {
    /// Whether a mail may leave in the first flight of a connection, with a session from before.
    pub(crate) fn early_data(&self) -> bool {
        self.figures.early_data
    }

    /// Every setting with its value and reason.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// What is repeated.
    pub fn redundancy(&self) -> &Redundancy {
        &self.figures.redundancy
    }

    /// The congestion controller.
    pub fn congestion(&self) -> Congestion {
        self.figures.congestion
    }

    /// How much later than those after it a packet may arrive before it counts as lost.
    pub fn reordering(&self) -> Duration {
        let round_trip = self.figures.round_trip.as_secs_f64();
        Duration::try_from_secs_f64(round_trip * (self.figures.time_threshold - 1.0)).unwrap_or(Duration::MAX)
    }

    /// What happens to the path's datagrams behind QUIC.
    pub fn line(&self) -> LineOptions {
        let figures = &self.figures;
        LineOptions {
            rate: (figures.congestion == Congestion::Fixed).then_some(figures.rate.0),
            hold: figures.hold,
            redundancy: figures.redundancy,
        }
    }

    /// When mails are sent again and connections replaced.
    pub fn hedge(&self) -> HedgeFigures {
        self.figures.hedge
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

    /// Requests at once on one connection.
    pub(crate) fn streams(&self) -> u32 {
        self.figures.max_streams
    }

    /// For connections that are opened to us. They begin with room for `opening` requests at most.
    pub fn server_config(&self, opening: u32) -> Arc<TransportConfig> {
        let mut config = self.both();
        config.max_concurrent_bidi_streams(self.figures.max_streams.min(opening).into());
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
            .time_threshold(figures.time_threshold as f32)
            .pad_to_mtu(figures.padding)
            .max_concurrent_uni_streams(16u32.into())
            .datagram_receive_buffer_size(None)
            .congestion_controller_factory(self.controller());
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

    fn controller(&self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self.figures.congestion {
            Congestion::Fixed => Arc::new(FixedRateConfig),
            Congestion::Bbr => Arc::new(BbrConfig::default()),
            Congestion::Cubic => Arc::new(CubicConfig::default()),
            Congestion::NewReno => Arc::new(NewRenoConfig::default()),
        }
    }
}

fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}
