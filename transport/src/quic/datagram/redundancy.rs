//! Which datagrams are sent more than once.

use std::time::Duration;

/// What of a path's traffic is repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// Nothing.
    #[default]
    None,
    /// What sets a connection up: the datagrams that begin with an Initial or a Handshake packet (RFC 9000 section 17.2).
    Handshake,
    /// That, and what leaves while the line has been quiet: small mails, acknowledgements, and the end of a large one.
    Small,
    /// Every datagram; it halves the rate.
    All,
}

impl Policy {
    /// Its name in a configuration file.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Handshake => "handshake",
            Self::Small => "small",
            Self::All => "all",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        [Self::None, Self::Handshake, Self::Small, Self::All]
            .into_iter()
            .find(|policy| policy.name() == text)
            .ok_or_else(|| "is not a redundancy policy".into())
    }
}

/// How a path's traffic is repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redundancy {
    /// What is repeated.
    pub policy: Policy,
    /// How often a datagram leaves, the first time included.
    pub copies: u8,
    /// The time between two copies, so that one gust does not take both.
    pub gap: Duration,
    /// Octets after silence that count as small.
    pub small: u64,
}

/// Whether a datagram is worth a repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    Nothing,
    /// At once, even when others wait.
    Urgent,
    /// At once while little has left, else when the line is quiet.
    WhileSmall,
}

impl Redundancy {
    /// Whether anything is repeated.
    pub fn repeats(&self) -> bool {
        self.policy != Policy::None && self.copies > 1
    }

    /// What serves both, for a line that cannot tell them apart.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self.repeats(), other.repeats()) {
            (false, _) => other,
            (_, false) => self,
            _ => Self {
                policy: self.policy.max(other.policy),
                copies: self.copies.max(other.copies),
                gap: self.gap.min(other.gap),
                small: self.small.max(other.small),
            },
        }
    }

    pub(super) fn worth(&self, contents: &[u8]) -> Worth {
        match self.policy {
            _ if !self.repeats() => Worth::Nothing,
            Policy::None => Worth::Nothing,
            Policy::All => Worth::Urgent,
            _ if is_handshake(contents) => Worth::Urgent,
            Policy::Handshake => Worth::Nothing,
            Policy::Small => Worth::WhileSmall,
        }
    }
}

/// Whether a datagram begins with an Initial or a Handshake packet of QUIC version 1 (RFC 9000 section 17.2): in both the high bit
/// is set, and the two bits of the type are 0 or 2. 0-RTT packets carry mail and are none.
fn is_handshake(contents: &[u8]) -> bool {
    contents
        .first()
        .is_some_and(|first| matches!(first & 0b1011_0000, 0b1000_0000 | 0b1010_0000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_repeats_its_datagrams() {
        use Worth::{Nothing, Urgent, WhileSmall};
        // Initial, 0-RTT, Handshake, Retry, short header, nothing at all.
        let datagrams: [&[u8]; 6] = [&[0xc3], &[0xd3], &[0xe3], &[0xf0], &[0x43], &[]];
        let cases = [
            (Policy::None, [Nothing; 6]),
            (
                Policy::Handshake,
                [Urgent, Nothing, Urgent, Nothing, Nothing, Nothing],
            ),
            (
                Policy::Small,
                [Urgent, WhileSmall, Urgent, WhileSmall, WhileSmall, WhileSmall],
            ),
            (Policy::All, [Urgent; 6]),
        ];
        for (policy, expected) in cases {
            let redundancy = Redundancy {
                policy,
                copies: 2,
                gap: Duration::from_millis(20),
                small: 1000,
            };
            assert_eq!(
                datagrams.map(|datagram| redundancy.worth(datagram)),
                expected,
                "{policy:?}"
            );
            let once = Redundancy {
                copies: 1,
                ..redundancy
            };
            assert_eq!(
                datagrams.map(|datagram| once.worth(datagram)),
                [Nothing; 6],
                "{policy:?}"
            );
            assert_eq!(Policy::parse(policy.name()), Ok(policy));
        }
        assert!(Policy::parse("everything").is_err());
    }
}
