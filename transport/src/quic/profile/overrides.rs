//! What an operator may fix: `[path.NAME.quic]`.

use std::{ops::RangeInclusive, time::Duration};

use lightpost_config::{Section, Size, duration_text};
use quinn::VarInt;

/// The smallest datagram that QUIC may count on (RFC 9000 section 14).
pub(super) const LEAST_MTU: u16 = 1200;

/// How the sending rate is governed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// The path's rate, whatever is lost and however long it is silent.
    Fixed,
    /// BBR, for paths in line of sight.
    Bbr,
    /// CUBIC.
    Cubic,
    /// New Reno.
    NewReno,
}

impl Congestion {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "fixed" => Self::Fixed,
            "bbr" => Self::Bbr,
            "cubic" => Self::Cubic,
            "newreno" => Self::NewReno,
            _ => return Err("is not a congestion controller".into()),
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Bbr => "bbr",
            Self::Cubic => "cubic",
            Self::NewReno => "newreno",
        }
    }
}

/// Settings that an operator fixed in `[path.NAME.quic]`; what is `None` is derived.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// The round-trip time that is assumed before one was measured.
    pub initial_rtt: Option<Duration>,
    /// When a silent connection is given up; the inner `None` means never.
    pub idle_timeout: Option<Option<Duration>>,
    /// The size of UDP payloads, in octets.
    pub mtu: Option<u16>,
    /// Octets that the peer may send on a connection before they are read.
    pub receive_window: Option<u64>,
    /// Octets that the peer may send on a stream before they are read.
    pub stream_receive_window: Option<u64>,
    /// Octets that are kept until they are acknowledged.
    pub send_window: Option<u64>,
    /// Packets that the peer may receive before it acknowledges.
    pub ack_threshold: Option<u32>,
    /// How long the peer may wait before it acknowledges.
    pub max_ack_delay: Option<Duration>,
    /// Packets that may overtake one before it counts as lost.
    pub packet_threshold: Option<u32>,
    /// How much later than others a packet may arrive before it counts as lost, as a multiple of the round trip.
    pub time_threshold: Option<f64>,
    /// The congestion controller.
    pub congestion: Option<Congestion>,
    /// Requests that the peer may have open at once.
    pub max_streams: Option<u32>,
    /// How much QUIC may write ahead of the path, as time on the path.
    pub hold: Option<Duration>,
    /// How often a datagram that is repeated leaves, the first time included.
    pub copies: Option<u32>,
    /// The time between two copies.
    pub gap: Option<Duration>,
    /// Octets after silence that count as a small mail.
    pub small: Option<u64>,
    /// Whether a mail without a reply is sent again on a fresh connection.
    pub hedge: Option<bool>,
    /// Octets of the largest mail that is.
    pub hedge_up_to: Option<u64>,
    /// When a connection is replaced: its smoothed round trip, as a multiple of the longest one.
    pub renew_at: Option<f64>,
    /// Octets of the connection ids that a client chooses.
    pub connection_id: Option<u32>,
    /// Whether the fixed bit of QUIC is greased (RFC 9287).
    pub grease: Option<bool>,
    /// Whether a mail may leave in the first flight of a connection.
    pub early_data: Option<bool>,
    /// Whether every datagram is filled up.
    pub padding: Option<bool>,
}

impl Overrides {
    /// Reads `[path.NAME.quic]`, and whether all of it is in range (noted else).
    pub(crate) fn read(section: &Section<'_>) -> (Self, bool) {
        let overrides = Self {
            initial_rtt: section.get("initial_rtt"),
            idle_timeout: idle_timeout(section),
            mtu: section.get("mtu"),
            receive_window: section.get("receive_window").map(|Size(octets)| octets),
            stream_receive_window: section.get("stream_receive_window").map(|Size(octets)| octets),
            send_window: section.get("send_window").map(|Size(octets)| octets),
            ack_threshold: section.get("ack_threshold"),
            max_ack_delay: section.get("max_ack_delay"),
            packet_threshold: section.get("packet_threshold"),
            time_threshold: section.get("time_threshold"),
            congestion: section.parse(
                "congestion",
                "write \"fixed\", \"bbr\", \"cubic\" or \"newreno\"",
                Congestion::parse,
            ),
            max_streams: section.get("max_streams"),
            hold: section.get("hold"),
            copies: section.get("copies"),
            gap: section.get("gap"),
            small: section.get("small").map(|Size(octets)| octets),
            hedge: section.get("hedge"),
            hedge_up_to: section.get("hedge_up_to").map(|Size(octets)| octets),
            renew_at: section.get("renew_at"),
            connection_id: section.get("connection_id"),
            grease: section.get("grease"),
            early_data: section.get("early_data"),
            padding: section.get("padding"),
        };
        let sound = overrides.are_in_range(section);
        (overrides, sound)
    }

    fn are_in_range(&self, section: &Section<'_>) -> bool {
        let mut range = Range { section, sound: true };
        let windows = 16_384..=VarInt::MAX.into_inner();
        let size = "write at least \"16KiB\"";
        let (mtu, payload) = (LEAST_MTU..=65_527, "write 1200 to 65527 octets of UDP payload");
        range.check("mtu", self.mtu, &mtu, u16::to_string, payload);
        range.check(
            "receive_window",
            self.receive_window,
            &windows,
            u64::to_string,
            size,
        );
        let stream = self.stream_receive_window;
        range.check("stream_receive_window", stream, &windows, u64::to_string, size);
        range.check("send_window", self.send_window, &windows, u64::to_string, size);
        let (ms, day) = (Duration::from_millis(1), Duration::from_secs(86_400));
        let days = "write \"1ms\" to \"30d\"";
        range.time("initial_rtt", self.initial_rtt, &(ms..=day * 30), days);
        let delays = ms..=Duration::from_secs(15_999);
        range.time(
            "max_ack_delay",
            self.max_ack_delay,
            &delays,
            "write \"1ms\" to \"15999s\"",
        );
        let (one, ten) = (ms, Duration::from_secs(10));
        range.time("hold", self.hold, &(one..=ten), "write \"1ms\" to \"10s\"");
        range.time("gap", self.gap, &(one..=ten), "write \"1ms\" to \"10s\"");
        let (packets, more) = (1..=1_000_000, "write 1 or more");
        range.check(
            "packet_threshold",
            self.packet_threshold,
            &packets,
            u32::to_string,
            more,
        );
        let streams = "write 1 to 1000000";
        range.check("max_streams", self.max_streams, &packets, u32::to_string, streams);
        range.check("copies", self.copies, &(2..=5), u32::to_string, "write 2 to 5");
        let ids = "write 1 to 20; without ids there can be one connection per gateway only";
        range.check(
            "connection_id",
            self.connection_id,
            &(1..=20),
            u32::to_string,
            ids,
        );
        let threshold = "write more than 1, such as 1.125";
        range.check(
            "time_threshold",
            self.time_threshold,
            &(1.000_1..=10.0),
            f64::to_string,
            threshold,
        );
        let times = "write 1.1 or more";
        range.check("renew_at", self.renew_at, &(1.1..=1e6), f64::to_string, times);
        range.sound
    }
}

struct Range<'s, 'd> {
    section: &'s Section<'d>,
    sound: bool,
}

impl Range<'_, '_> {
    fn check<T: PartialOrd>(
        &mut self,
        key: &str,
        value: Option<T>,
        range: &RangeInclusive<T>,
        text: impl Fn(&T) -> String,
        remedy: &str,
    ) {
        if let Some(value) = value.filter(|value| !range.contains(value)) {
            let what = format!("{} is out of range", text(&value));
            self.section.wrong(key, what, remedy.to_owned());
            self.sound = false;
        }
    }

    fn time(&mut self, key: &str, value: Option<Duration>, range: &RangeInclusive<Duration>, remedy: &str) {
        self.check(key, value, range, |span| duration_text(*span), remedy);
    }
}

fn idle_timeout(section: &Section<'_>) -> Option<Option<Duration>> {
    match section.get::<String>("idle_timeout")?.as_str() {
        "off" => Some(None),
        _ => section.get("idle_timeout").map(Some),
    }
}
