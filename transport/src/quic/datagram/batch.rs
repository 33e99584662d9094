//! What leaves together, in one call of the system.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use quinn::udp::Transmit;

use super::{
    State, canonical,
    line::{Datagram, Instant},
};

/// Datagrams of one size for one destination; the last one may be shorter.
pub(super) struct Batch {
    pub(super) first: Datagram,
    contents: Bytes,
    segment: Option<usize>,
}

impl Batch {
    pub(super) fn transmit(&self) -> Transmit<'_> {
        Transmit {
            destination: self.first.destination,
            ecn: self.first.ecn,
            contents: &self.contents,
            segment_size: self.segment,
            src_ip: self.first.source,
        }
    }
}

/// When the next datagram of any line may leave.
pub(super) fn next(state: &State) -> Option<Instant> {
    state.lines.iter().filter_map(|line| line.next()).min()
}

/// What leaves now, as much of it at once as the socket below takes.
pub(super) fn next_batch(state: &mut State, now: Instant, most: usize) -> Option<Batch> {
    for index in 0..state.lines.len() {
        let Some(first) = take(state, index, now) else {
            continue;
        };
        let size = first.contents.len();
        let mut contents = BytesMut::new();
        let mut count = 1;
        while count < most
            && let Some(line) = state.lines.get(index)
            && line.continues(now, &first)
            && let Some(more) = take(state, index, now)
        {
            if count == 1 {
                contents.extend_from_slice(&first.contents);
            }
            count += 1;
            contents.extend_from_slice(&more.contents);
            if more.contents.len() < size {
                break;
            }
        }
        return Some(Batch {
            segment: (count > 1).then_some(size),
            contents: if count > 1 {
                contents.freeze()
            } else {
                first.contents.clone()
            },
            first,
        });
    }
    None
}

/// The next datagram of a line, past the repeats that the peer's address must not be sent.
fn take(state: &mut State, index: usize, now: Instant) -> Option<Datagram> {
    let State {
        lines, amplification, ..
    } = state;
    // First copies were counted when QUIC wrote them: what still waits here must not make room for a repeat.
    let allows = |datagram: &Datagram| match amplification {
        Some(sums) => {
            let (to, octets) = (canonical(datagram.destination), datagram.contents.len() as u64);
            let allowed = sums.allows(to, octets);
            if allowed {
                sums.sent(to, octets);
            }
            allowed
        }
        None => true,
    };
    lines.get_mut(index)?.take(now, allows)
}

/// Whether QUIC's own `octets` may be sent to an address.
pub(super) fn admits(state: &mut State, destination: SocketAddr, octets: usize) -> bool {
    let sums = state.amplification.as_mut();
    sums.is_none_or(|sums| sums.admits(canonical(destination), octets as u64))
}

/// Counts a first copy.
pub(super) fn account(state: &mut State, datagram: &Datagram) {
    if let Some(sums) = &mut state.amplification {
        sums.sent(canonical(datagram.destination), datagram.contents.len() as u64);
    }
}
