//! Endpoint ids, as this node uses them: the `ipn` scheme (RFC 9758) with plain numbers.

use std::{fmt, str::FromStr};

use hardy_bpv7::eid::{Eid, IpnNodeId};

/// The longest text of an endpoint id that this node keeps; whatever is longer names nobody that it could reach.
pub(crate) const LONGEST: usize = 1024;

/// `ipn:node.service`.
pub(crate) const fn ipn(node: u32, service: u32) -> Eid {
    Eid::Ipn {
        fqnn: IpnNodeId {
            allocator_id: 0,
            node_number: node,
        },
        service_number: service,
    }
}

/// Node and service number, of an `ipn` endpoint of the default allocator.
pub(crate) const fn numbers(eid: &Eid) -> Option<(u32, u32)> {
    match eid {
        Eid::Ipn { fqnn, service_number } | Eid::LegacyIpn { fqnn, service_number }
            if fqnn.allocator_id == 0 =>
        {
            Some((fqnn.node_number, *service_number))
        }
        _ => None,
    }
}

/// The same endpoint in one form: how it was encoded on the wire makes no difference to who it is.
pub(crate) fn plain(eid: &Eid) -> Eid {
    match eid {
        Eid::LegacyIpn { fqnn, service_number } => Eid::Ipn {
            fqnn: *fqnn,
            service_number: *service_number,
        },
        other => other.clone(),
    }
}

/// Which destinations a route is for: `ipn:2.25`, `ipn:2.*`, `ipn:*.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    node: Option<u32>,
    service: Option<u32>,
}

impl Pattern {
    /// Every service of a node.
    pub const fn node(number: u32) -> Self {
        Self {
            node: Some(number),
            service: None,
        }
    }

    /// Whether `eid` is one of them.
    pub fn matches(&self, eid: &Eid) -> bool {
        numbers(eid).is_some_and(|(node, service)| {
            self.node.is_none_or(|it| it == node) && self.service.is_none_or(|it| it == service)
        })
    }
}

/// The text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a pattern of endpoints; write ipn:2.25, ipn:2.* or ipn:*.*")]
pub struct PatternError(String);

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let number = |part: &str| match part {
            "*" => Some(None),
            digits if digits.bytes().all(|it| it.is_ascii_digit()) => digits.parse().ok().map(Some),
            _ => None,
        };
        let parts = text.strip_prefix("ipn:").and_then(|it| it.split_once('.'));
        match parts.map(|(node, service)| (number(node), number(service))) {
            Some((Some(node), Some(service))) => Ok(Self { node, service }),
            _ => Err(PatternError(text.to_owned())),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ipn:")?;
        match self.node {
            Some(number) => write!(f, "{number}.")?,
            None => f.write_str("*.")?,
        }
        match self.service {
            Some(number) => write!(f, "{number}"),
            None => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for text in ["ipn:2.25", "ipn:2.*", "ipn:*.25", "ipn:*.*"] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "ipn:",
            "ipn:2",
            "ipn:2.",
            "ipn:.5",
            "ipn:+2.5",
            "ipn:2.25.3",
            "dtn:none",
            "ipn:4294967296.1",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
        let all_of_two: Pattern = "ipn:2.*".parse().unwrap();
        assert!(all_of_two.matches(&ipn(2, 7)) && !all_of_two.matches(&ipn(3, 7)));
        assert!(!all_of_two.matches(&Eid::Null));
    }

    #[test]
    fn both_encodings_are_one_endpoint() {
        let legacy = Eid::LegacyIpn {
            fqnn: IpnNodeId {
                allocator_id: 0,
                node_number: 2,
            },
            service_number: 25,
        };
        assert_eq!(plain(&legacy), ipn(2, 25));
        assert_eq!(numbers(&legacy), Some((2, 25)));
    }
}
