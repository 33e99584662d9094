//! `[bundle]`: exchanges that come in bundles.

use std::{collections::HashSet, time::Duration};

use lightpost_bundles::Settings;
use lightpost_config::{Section, Size};

use super::{DAY, Peer, positive};

/// `[bundle]`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Bundle {
    /// The node and our endpoint.
    pub settings: Settings,
    /// Exchanges that are dealt with at once.
    pub concurrency: usize,
    /// Octets of payloads in memory at once.
    pub memory: u64,
    /// How long a reply is kept on its way.
    pub reply_lifetime: Duration,
}

/// Reads `[bundle]`; `None` without it.
pub(super) fn read(root: &Section<'_>, peers: &[Peer]) -> Option<Bundle> {
    let section = root.section("bundle");
    let named: HashSet<&String> = peers.iter().flat_map(|peer| &peer.endpoints).collect();
    if !section.present() {
        if !named.is_empty() {
            root.wrong(
                "bundle",
                "is missing, and a [[peer]] has `endpoints`".into(),
                "add [bundle] with `endpoint` and `store`, or remove `endpoints`".into(),
            );
        }
        return None;
    }
    if named.is_empty() {
        section.wrong(
            "endpoint",
            "is of no use: no [[peer]] has `endpoints`, so that every bundle is dropped".into(),
            "add `endpoints`, such as [\"ipn:1.26\"], to the [[peer]] whose bundles these are".into(),
        );
    }
    let settings = Settings::read(&section, "ipn:2.25");
    let memory = section.get_or("memory", Size(256 << 20)).0;
    let bundle = Bundle {
        concurrency: positive(&section, "concurrency", section.get_or("concurrency", 64)),
        memory: positive(&section, "memory", memory),
        reply_lifetime: positive(
            &section,
            "reply_lifetime",
            section.get_or("reply_lifetime", DAY * 5),
        ),
        settings: settings?,
    };
    Some(bundle)
}
