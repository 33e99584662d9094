//! IPN records (type 264): the bundle node number of a host.

use lightpost_transport::bundle::{GATEWAY_SERVICE, endpoint};
use url::Url;

use super::Hop;

/// The type's number; hickory does not know it by name.
pub(crate) const TYPE: u16 = 264;

/// Reads a record's data: a node number in 64 bits. Numbers beyond 32 bits name nodes of other allocators, which nobody here can reach.
pub(crate) fn parse(data: &[u8]) -> Option<u32> {
    let octets: [u8; 8] = data.try_into().ok()?;
    u32::try_from(u64::from_be_bytes(octets))
        .ok()
        .filter(|number| *number > 0)
}

/// The hop with its node's endpoint; as it was without one.
pub(crate) fn with_endpoint(mut hop: Hop, numbers: &[u32]) -> Hop {
    if let Some(number) = numbers.first() {
        let mut url = hop.url.clone();
        url.set_fragment(Some(&format!("ipn:{number}.{GATEWAY_SERVICE}")));
        if endpoint(&url).is_some() {
            hop.url = url;
        }
    }
    hop
}

/// Whether two URIs are of one gateway: what is known of its bundle endpoint makes no difference.
pub(crate) fn same_gateway(one: &Url, other: &Url) -> bool {
    let bare = |url: &Url| {
        let mut url = url.clone();
        url.set_fragment(None);
        url
    };
    one == other || (one.has_host() && bare(one) == bare(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        for (data, number) in [
            (&[0, 0, 0, 0, 0, 0, 0, 2][..], Some(2)),
            (&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], Some(u32::MAX)),
            (&[0, 0, 0, 1, 0, 0, 0, 2], None),
            (&[0; 8], None),
            (&[0, 0, 0, 2], None),
            (&[], None),
        ] {
            assert_eq!(parse(data), number, "{data:?}");
        }
    }

    #[test]
    fn an_endpoint_is_part_of_the_uri_and_not_of_who_it_is() {
        let hop = |url: &str| Hop {
            url: url.parse().unwrap(),
            priority: 1,
            weight: 1,
        };
        let bare = hop("https://gw1.moon.example/in");
        let with = with_endpoint(bare.clone(), &[2, 3]);
        assert_eq!(with.url.as_str(), "https://gw1.moon.example/in#ipn:2.25");
        assert_eq!(with_endpoint(bare.clone(), &[]), bare);
        assert!(same_gateway(&bare.url, &with.url));
        assert!(!same_gateway(&hop("ipn:2.25").url, &hop("ipn:3.25").url));
        assert!(!same_gateway(&bare.url, &hop("https://gw2.moon.example/in").url));
    }
}
