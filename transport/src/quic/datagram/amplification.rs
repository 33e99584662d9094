//! What an address is sent in answer to what came from it: nobody may use us to flood somebody else.

use std::{collections::HashMap, net::SocketAddr};

/// Addresses of a generation; two generations are remembered.
const KNOWN: usize = 8192;
/// What an address that has not been validated may be sent for each octet that came from it (RFC 9000 section 8.1).
const FACTOR: u64 = 3;

/// Whether somebody has shown that they read what is sent to their address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// Nobody said so, nor that it is in doubt.
    #[default]
    Unknown,
    /// A handshake is under way.
    Stranger,
    /// Yes.
    Validated,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    received: u64,
    sent: u64,
    standing: Standing,
}

/// What came from addresses and what was sent to them. Who is not remembered gets no repeats until something comes from them.
///
/// quinn keeps the limit for what it sends and does not know of repeats. Together they keep it towards strangers, of whom the listener
/// tells; repeats keep it towards all, for replies and acknowledgements are far below it.
#[derive(Debug, Default)]
pub(super) struct Amplification {
    young: HashMap<SocketAddr, Sum>,
    old: HashMap<SocketAddr, Sum>,
}

impl Amplification {
    pub(super) fn received(&mut self, from: SocketAddr, octets: u64) {
        self.sum(from).received += octets;
    }

    pub(super) fn sent(&mut self, to: SocketAddr, octets: u64) {
        self.sum(to).sent += octets;
    }

    /// Whether `octets` more may be sent.
    pub(super) fn allows(&mut self, to: SocketAddr, octets: u64) -> bool {
        let sum = self.sum(to);
        sum.sent + octets <= sum.received.saturating_mul(FACTOR)
    }

    /// Whether QUIC's own `octets` may be sent. What may not is as good as lost, and is sent again once more has come.
    pub(super) fn admits(&mut self, to: SocketAddr, octets: u64) -> bool {
        self.sum(to).standing != Standing::Stranger || self.allows(to, octets)
    }

    /// A handshake begins from an address that is not validated. One that was remains so: anybody can forge it.
    pub(super) fn doubt(&mut self, address: SocketAddr) {
        let sum = self.sum(address);
        if sum.standing == Standing::Unknown {
            sum.standing = Standing::Stranger;
        }
    }

    /// The address is its owner's.
    pub(super) fn validated(&mut self, address: SocketAddr) {
        self.sum(address).standing = Standing::Validated;
    }

    fn sum(&mut self, address: SocketAddr) -> &mut Sum {
        if self.young.len() >= KNOWN && !self.young.contains_key(&address) {
            self.old = std::mem::take(&mut self.young);
        }
        let before = self.old.remove(&address);
        self.young
            .entry(address)
            .or_insert_with(|| before.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> SocketAddr {
        SocketAddr::from((std::net::Ipv4Addr::from_bits(number), 1))
    }

    #[test]
    fn three_for_one() {
        let mut sums = Amplification::default();
        let (known, stranger) = (address(1), address(2));
        sums.received(known, 1200);
        sums.sent(known, 2400);
        assert!(sums.allows(known, 1200) && !sums.allows(known, 1201));
        assert!(!sums.allows(stranger, 1));
    }

    #[test]
    fn only_strangers_are_refused_what_quic_sends() {
        let mut sums = Amplification::default();
        let client = address(1);
        sums.received(client, 1200);
        assert!(sums.admits(client, 5000));
        sums.doubt(client);
        assert!(sums.admits(client, 3600) && !sums.admits(client, 3601));
        sums.validated(client);
        sums.doubt(client);
        assert!(
            sums.admits(client, 5000),
            "a forged datagram does not take it back"
        );
    }

    #[test]
    fn those_in_use_are_remembered_and_no_more_than_two_generations() {
        let mut sums = Amplification::default();
        sums.received(address(0), 1);
        for number in 1..10 * KNOWN as u32 {
            sums.received(address(number), 1);
            assert!(sums.allows(address(0), 3), "{number}");
        }
        assert!(!sums.allows(address(1), 1));
        assert!(sums.young.len() + sums.old.len() <= 2 * KNOWN);
    }
}
