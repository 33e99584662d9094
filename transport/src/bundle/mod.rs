//! The exchange in Bundle Protocol version 7 bundles (RFC 9171): one request bundle, one reply bundle.
//!
//! [`agent`] is what a bundle node does for us, whosever it is. [`payload`] is what a bundle of ours holds, [`client`] sends requests and
//! hears of them later, [`listener`] feeds those that come to the gateway's router. [`options`] are a path's settings.

pub mod agent;
pub mod client;
pub mod listener;
pub mod options;
pub mod payload;

#[cfg(test)]
mod tests;

use hardy_bpv7::eid::Eid;
use url::Url;

/// The service number of gateways, unless configured otherwise (draft-blanchet-dtn-email-over-bp wishes for it).
pub const GATEWAY_SERVICE: u32 = 25;

/// The endpoint of a gateway that can be reached by bundles: the whole URI `ipn:2.25`, or the fragment of
/// `https://gw1.moon.example/inboundmail#ipn:2.25`, which is one gateway with two ways to it.
pub fn endpoint(gateway: &Url) -> Option<Eid> {
    let text = match gateway.scheme() {
        "ipn" => gateway.as_str(),
        _ => gateway.fragment()?,
    };
    let eid: Eid = text.parse().ok()?;
    matches!(eid, Eid::Ipn { service_number, .. } | Eid::LegacyIpn { service_number, .. } if service_number > 0)
        .then_some(eid)
}
