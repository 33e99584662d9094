//! What an operator may fix: `[path.NAME.quic]`.

use std::time::Duration;

use lightpost_config::{Section, Size, duration_text};
use quinn::VarInt;

/// The smallest datagram that QUIC may count on (RFC 9000 section 14).
pub(super) const LEAST_MTU: u16 = 1200;

/// How the sending rate is governed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// A constant window from the path's figures; loss and silence do not change it.
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
    /// The congestion controller.
    pub congestion: Option<Congestion>,
    /// Requests that the peer may have open at once.
    pub max_streams: Option<u32>,
}

impl Overrides {
    /// Reads `[path.NAME.quic]`; `None` when something in it is wrong (noted).
    pub(crate) fn read(section: &Section<'_>) -> Option<Self> {
        let mut sound = true;
        let mut check = |right: bool, key: &str, value: String, remedy: &str| {
            if !right {
                section.wrong(key, format!("{value} is out of range"), remedy.to_owned());
                sound = false;
            }
        };
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
            congestion: section.parse(
                "congestion",
                "write \"fixed\", \"bbr\", \"cubic\" or \"newreno\"",
                Congestion::parse,
            ),
            max_streams: section.get("max_streams"),
        };
        if let Some(mtu) = overrides.mtu {
            let right = (LEAST_MTU..=65_527).contains(&mtu);
            check(
                right,
                "mtu",
                mtu.to_string(),
                "write 1200 to 65527 octets of UDP payload",
            );
        }
        for (key, window) in [
            ("receive_window", overrides.receive_window),
            ("stream_receive_window", overrides.stream_receive_window),
            ("send_window", overrides.send_window),
        ] {
            let octets = window.unwrap_or(16_384);
            let right = (16_384..=VarInt::MAX.into_inner()).contains(&octets);
            check(right, key, octets.to_string(), "write at least \"16KiB\"");
        }
        if let Some(rtt) = overrides.initial_rtt {
            let right = rtt >= Duration::from_millis(1) && rtt <= Duration::from_secs(30 * 86_400);
            check(
                right,
                "initial_rtt",
                duration_text(rtt),
                "write \"1ms\" to \"30d\"",
            );
        }
        if let Some(delay) = overrides.max_ack_delay {
            let right = delay < Duration::from_secs(16_000);
            check(
                right,
                "max_ack_delay",
                duration_text(delay),
                "write less than \"16000s\"",
            );
        }
        if let Some(packets) = overrides.packet_threshold {
            check(
                packets > 0,
                "packet_threshold",
                packets.to_string(),
                "write 1 or more",
            );
        }
        if let Some(streams) = overrides.max_streams {
            let right = (1..=1_000_000).contains(&streams);
            check(right, "max_streams", streams.to_string(), "write 1 to 1000000");
        }
        sound.then_some(overrides)
    }
}

fn idle_timeout(section: &Section<'_>) -> Option<Option<Duration>> {
    match section.get::<String>("idle_timeout")?.as_str() {
        "off" => Some(None),
        _ => section.get("idle_timeout").map(Some),
    }
}
