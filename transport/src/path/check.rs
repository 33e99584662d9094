//! Which figures of a path cannot be true together.

use std::time::Duration;

use lightpost_config::{Section, duration_text};

use super::{LONGEST, Passes, Path};
use crate::quic::{
    datagram::Policy,
    profile::{self, Congestion},
};

/// The longest one-way light time that is believed: four times the distance of the farthest probe.
const FARTHEST: Duration = Duration::from_secs(4 * 86_400);
/// Octets of the headers of UDP and IPv4.
const HEADERS: u16 = 28;
/// The smallest IP packet that carries what QUIC counts on, over IPv6 (RFC 9000 section 14).
const LEAST_PACKET: u16 = 1200 + 48;
/// Datagrams that may leave between a copy and the next one; after more the peer takes the second one for a duplicate.
const COPIES_WITHIN: u64 = 100;
/// Gaps that one acknowledgement tells are 64; half of them leave room for chance.
const GAPS: f64 = 32.0;

/// Notes every contradiction; whether there is none.
pub(super) fn check(path: &Path, section: &Section<'_>, passes: &Section<'_>, quic: &Section<'_>) -> bool {
    let mut check = Check { section, sound: true };
    times(path, &mut check);
    links(path, &mut check);
    let sound = check.sound;
    let mut check = Check {
        section: passes,
        sound,
    };
    contacts(path, &mut check);
    let sound = check.sound;
    let mut check = Check { section: quic, sound };
    payload(path, &mut check);
    idle(path, &mut check);
    handshake(path, &mut check);
    acknowledgements(path, &mut check);
    repeats(path, &mut check);
    check.sound
}

struct Check<'s, 'd> {
    section: &'s Section<'d>,
    sound: bool,
}

impl Check<'_, '_> {
    fn refuse_if(&mut self, wrong: bool, key: &str, what: impl FnOnce() -> String, remedy: &str) {
        if wrong {
            self.section.wrong(key, what(), remedy.to_owned());
            self.sound = false;
        }
    }
}

fn times(path: &Path, check: &mut Check<'_, '_>) {
    let (min, max) = (path.one_way_min, path.one_way_max);
    check.refuse_if(
        min > max,
        "one_way_min",
        || {
            format!(
                "{} is longer than one_way_max, {}",
                duration_text(min),
                duration_text(max)
            )
        },
        "exchange the two, or correct one",
    );
    check.refuse_if(
        max.is_zero(),
        "one_way_max",
        || "is zero".into(),
        "write the longest one-way light time, such as \"1.4s\"",
    );
    check.refuse_if(
        max > FARTHEST,
        "one_way_max",
        || format!("{} is beyond the Solar System", duration_text(max)),
        "write the one-way light time, at most \"4d\"",
    );
    check.refuse_if(
        path.outage_max > LONGEST,
        "outage_max",
        || {
            let outage = duration_text(path.outage_max);
            format!("{outage} is not an outage that can be waited for")
        },
        "write at most \"1000d\"",
    );
    let closed = path.passes.map_or(Duration::ZERO, |passes| passes.closed());
    check.refuse_if(
        path.outage_max < closed,
        "outage_max",
        || {
            let (outage, closed) = (duration_text(path.outage_max), duration_text(closed));
            format!("{outage} is shorter than the time between two passes, {closed}")
        },
        "leave it out, or write the longest time without a pass",
    );
}

fn contacts(path: &Path, check: &mut Check<'_, '_>) {
    let Some(Passes { every, length }) = path.passes else {
        return;
    };
    check.refuse_if(
        length.is_zero(),
        "length",
        || "is zero".into(),
        "write how long the link is open, such as \"10m\"",
    );
    check.refuse_if(
        length >= every,
        "length",
        || {
            let (length, every) = (duration_text(length), duration_text(every));
            format!("{length} is as long as `every`, {every}, or longer: the link is never closed")
        },
        "write how long the link is open, or leave `passes` out",
    );
}

fn links(path: &Path, check: &mut Check<'_, '_>) {
    let percent = path.loss * 100.0;
    check.refuse_if(
        path.loss > 0.5,
        "loss",
        || format!("{percent}% is more than QUIC can repair"),
        "write the share of packets that is lost, at most \"50%\"; a link that loses more needs coding of its own",
    );
    if let Some(mtu) = path.mtu {
        check.refuse_if(
            mtu < LEAST_PACKET,
            "mtu",
            || format!("{mtu} is too small: QUIC needs 1200 octets beside the headers of UDP and IP"),
            "write the largest IP packet in octets, 1248 or more, such as 1280",
        );
    }
    let least = 2 * u64::from(path.mtu.unwrap_or(LEAST_PACKET));
    if let Some(storage) = path.storage {
        check.refuse_if(
            storage < least,
            "storage",
            || format!("{storage} octets do not hold two packets"),
            "write what the nodes of the path keep for you, such as \"64KiB\", or leave it out",
        );
    }
}

fn payload(path: &Path, check: &mut Check<'_, '_>) {
    let (Some(mtu), Some(payload)) = (path.mtu, path.quic.mtu) else {
        return;
    };
    check.refuse_if(
        u32::from(payload) + u32::from(HEADERS) > u32::from(mtu),
        "mtu",
        || format!("{payload} octets and {HEADERS} of headers are more than the path's mtu, {mtu}"),
        "write less, or leave it out",
    );
}

/// An idle timeout shorter than a round trip or an outage would cut each connection before its first answer.
fn idle(path: &Path, check: &mut Check<'_, '_>) {
    let Some(Some(idle)) = path.quic.idle_timeout else {
        return;
    };
    let least = path.round_trip_max().saturating_add(path.outage_max);
    check.refuse_if(
        idle <= least,
        "idle_timeout",
        || {
            let (idle, least) = (duration_text(idle), duration_text(least));
            format!(
                "{idle} is over before an answer can come: a round trip with the longest outage takes {least}"
            )
        },
        "write \"off\", or a longer duration",
    );
}

/// The first datagrams are repeated after three times `initial_rtt` (RFC 9002 section 6.2.2).
fn handshake(path: &Path, check: &mut Check<'_, '_>) {
    let Some(rtt) = path.quic.initial_rtt else {
        return;
    };
    let round_trip = path.round_trip_max();
    check.refuse_if(
        rtt.saturating_mul(3) < round_trip,
        "initial_rtt",
        || {
            format!(
                "{} is so short that each handshake is repeated before its answer can come: a round trip takes {}",
                duration_text(rtt),
                duration_text(round_trip)
            )
        },
        "write a third of the round trip or more, or leave it out",
    );
}

fn acknowledgements(path: &Path, check: &mut Check<'_, '_>) {
    let Some(packets) = path.quic.ack_threshold else {
        return;
    };
    check.refuse_if(
        f64::from(packets) * path.loss > GAPS,
        "ack_threshold",
        || format!("{packets} packets have more gaps at this loss than an acknowledgement can tell, 64"),
        "write less, or leave it out",
    );
}

fn repeats(path: &Path, check: &mut Check<'_, '_>) {
    let profile = profile::derive(path);
    let redundancy = profile.redundancy();
    let fixed = path.quic.copies.is_some() || path.quic.gap.is_some() || path.quic.small.is_some();
    let key = match path.quic {
        ref quic if quic.copies.is_some() => "copies",
        ref quic if quic.gap.is_some() => "gap",
        _ => "small",
    };
    check.refuse_if(
        fixed && redundancy.policy == Policy::None,
        key,
        || "nothing is repeated on this path".into(),
        "leave it out, or set `redundancy` of the path",
    );
    let Some(gap) = path.quic.gap else { return };
    let after = gap.saturating_mul(u32::from(redundancy.copies.saturating_sub(1)));
    let patience = profile.reordering();
    check.refuse_if(
        after > patience,
        "gap",
        || {
            format!(
                "{} is so long that what a repeat would save is sent again by QUIC before, after {}",
                duration_text(gap),
                duration_text(patience)
            )
        },
        "write less, or leave it out",
    );
    let paced = profile.congestion() == Congestion::Fixed;
    let within = path.rate_up.time_for(COPIES_WITHIN * u64::from(LEAST_PACKET));
    check.refuse_if(
        paced && after > within,
        "gap",
        || {
            format!(
                "{} is so long at this rate that the peer takes a repeat for a duplicate: 100 datagrams take {}",
                duration_text(gap),
                duration_text(within)
            )
        },
        "write less, or leave it out",
    );
}
