//! URI records (RFC 7553): what their data means, and in which order targets are tried.

use rand::{Rng, RngExt};
use serde::{Serialize, Serializer};
use url::Url;

use crate::config::gateway;

/// The type's number; hickory does not know it by name.
pub(crate) const TYPE: u16 = 256;
/// The longest target that is read: longer ones are no gateways but mistakes.
const LONGEST: usize = 2048;
/// Records of one answer that are looked at.
pub(crate) const MOST: usize = 64;

/// A gateway, and its place among the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Where to POST.
    #[serde(serialize_with = "as_text")]
    pub url: Url,
    /// Lower ones are tried first.
    pub priority: u16,
    /// The share among those of equal priority.
    pub weight: u16,
}

fn as_text<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(url.as_str())
}

/// Why a URI record is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Shorter than its fixed fields.
    #[error("the record has {0} octets, too few for a priority, a weight and a target")]
    Short(usize),
    /// Longer than any gateway's URI.
    #[error("the target has {0} octets, more than 2048")]
    Long(usize),
    /// Not UTF-8.
    #[error("the target is not UTF-8")]
    NotUtf8,
    /// Not a URI of a gateway.
    #[error("the target \"{target}\" is not used: {what}")]
    Target {
        /// What stands in the record.
        target: String,
        /// What is wrong with it.
        what: String,
    },
}

/// Reads a record's data. With `targets`, the host must be one of these domains or lie below one.
pub(crate) fn parse(data: &[u8], targets: &[String]) -> Result<Hop, UriError> {
    let [p1, p2, w1, w2, target @ ..] = data else {
        return Err(UriError::Short(data.len()));
    };
    if target.is_empty() {
        return Err(UriError::Short(data.len()));
    }
    if target.len() > LONGEST {
        return Err(UriError::Long(target.len()));
    }
    let text = std::str::from_utf8(target).map_err(|_| UriError::NotUtf8)?;
    let refuse = |what: String| UriError::Target {
        target: text.escape_debug().take(200).collect(),
        what,
    };
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(refuse("it holds a space or a control character".into()));
    }
    let url = gateway(text).map_err(refuse)?;
    if !targets.is_empty() && !pinned(&url, targets) {
        return Err(refuse(format!(
            "its host is not below {}, the `targets` of the route",
            targets.join(" or ")
        )));
    }
    Ok(Hop {
        url,
        priority: u16::from_be_bytes([*p1, *p2]),
        weight: u16::from_be_bytes([*w1, *w2]),
    })
}

fn pinned(url: &Url, targets: &[String]) -> bool {
    let host = url
        .host_str()
        .unwrap_or_default()
        .trim_end_matches('.')
        .to_ascii_lowercase();
    targets.iter().any(|domain| {
        host.strip_suffix(domain.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// Puts hops into the order in which they are tried: by priority, equal ones drawn by weight (as RFC 2782 does; a weight of zero is
/// drawn last, almost never first).
pub(crate) fn order(mut hops: Vec<Hop>, random: &mut impl Rng) -> Vec<Hop> {
    hops.sort_by_key(|hop| hop.priority);
    let mut ordered = Vec::with_capacity(hops.len());
    while let Some(priority) = hops.first().map(|hop| hop.priority) {
        let equal = hops.iter().take_while(|hop| hop.priority == priority).count();
        let mut group: Vec<Hop> = hops.drain(..equal).collect();
        while group.len() > 1 {
            let total: u64 = group.iter().map(share).sum();
            let mut drawn = random.random_range(0..total);
            let index = group
                .iter()
                .position(|hop| match drawn.checked_sub(share(hop)) {
                    Some(rest) => {
                        drawn = rest;
                        false
                    }
                    None => true,
                })
                .unwrap_or_default();
            ordered.push(group.remove(index));
        }
        ordered.append(&mut group);
    }
    ordered
}

/// A weight as a share: zero is a thousandth of one.
fn share(hop: &Hop) -> u64 {
    (u64::from(hop.weight) * 1000).max(1)
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    fn record(priority: u16, weight: u16, target: &[u8]) -> Vec<u8> {
        [&priority.to_be_bytes()[..], &weight.to_be_bytes()[..], target].concat()
    }

    #[test]
    fn records() {
        let pins = ["moon.example".to_owned()];
        let long = format!("https://gw.moon.example/{}", "x".repeat(2048));
        for (target, right, right_pinned) in [
            (&b"https://gw1.moon.example/inboundmail"[..], true, true),
            (b"https://moon.example", true, true),
            (b"https://GW1.Moon.Example:8443/in?x=y", true, true),
            (b"https://192.0.2.7/in", true, false),
            (b"https://[2001:db8::7]:4443/in", true, false),
            (b"https://gw.evil.example/in", true, false),
            (b"https://notmoon.example/in", true, false),
            (b"http://gw1.moon.example/in", false, false),
            (b"https://user@gw1.moon.example/in", false, false),
            (b"https://gw1.moon.example/in#x", false, false),
            (b"https://gw1.moon.example/a b", false, false),
            (b"https://gw1.moon.example/\n", false, false),
            (b"https://\xff.example/", false, false),
            (b"mailto:a@moon.example", false, false),
            (b".", false, false),
            (b"", false, false),
            (long.as_bytes(), false, false),
        ] {
            let data = record(10, 1, target);
            let shown = String::from_utf8_lossy(target);
            assert_eq!(parse(&data, &[]).is_ok(), right, "{shown}");
            assert_eq!(parse(&data, &pins).is_ok(), right_pinned, "{shown}");
        }
        assert_eq!(parse(&[0, 10, 0], &[]), Err(UriError::Short(3)));
        let hop = parse(&record(10, 7, b"https://a.example/x"), &[]).unwrap();
        assert_eq!(
            (hop.priority, hop.weight, hop.url.as_str()),
            (10, 7, "https://a.example/x")
        );
    }

    #[test]
    fn lower_priorities_come_first_and_equal_ones_by_weight() {
        let hop = |name: &str, priority, weight| Hop {
            url: Url::parse(&format!("https://{name}/")).unwrap(),
            priority,
            weight,
        };
        let hops = vec![hop("c", 20, 1), hop("a", 10, 3), hop("b", 10, 1), hop("z", 10, 0)];
        let mut random = SmallRng::seed_from_u64(7);
        let mut first = std::collections::HashMap::new();
        for _ in 0..4000 {
            let ordered = order(hops.clone(), &mut random);
            assert_eq!(ordered.last().unwrap().url.host_str(), Some("c"));
            assert_eq!(ordered.len(), 4);
            *first
                .entry(ordered[0].url.host_str().unwrap().to_owned())
                .or_insert(0) += 1;
        }
        let share = f64::from(first["a"]) / 4000.0;
        assert!((0.7..0.8).contains(&share), "{first:?}");
        let again = |seed| order(hops.clone(), &mut SmallRng::seed_from_u64(seed));
        assert_eq!(again(3), again(3));
    }
}
