//! Bundles of our own.

use std::time::Duration;

use bytes::Bytes;
use hardy_bpv7::{
    builder::{Builder, Error},
    bundle::{Bundle, Flags},
    creation_timestamp::CreationTimestamp,
    eid::Eid,
    hop_info::HopInfo,
};
use lightpost_transport::bundle::agent::Reports;

/// What a bundle is made from.
pub(crate) struct Draft<'a> {
    pub(crate) source: Eid,
    pub(crate) destination: Eid,
    pub(crate) report_to: Eid,
    pub(crate) reports: Reports,
    pub(crate) administrative: bool,
    pub(crate) lifetime: Duration,
    pub(crate) hops: u8,
    pub(crate) payload: &'a [u8],
}

/// Makes it, with CRC32C on every block.
pub(crate) fn make(draft: Draft<'_>, stamp: CreationTimestamp) -> Result<(Bundle, Bytes), Error> {
    let flags = Flags {
        is_admin_record: draft.administrative,
        report_status_time: draft.reports != Reports::default(),
        receipt_report_requested: draft.reports.received,
        forward_report_requested: draft.reports.forwarded,
        delivery_report_requested: draft.reports.delivered,
        delete_report_requested: draft.reports.deleted,
        ..Flags::default()
    };
    let hops = HopInfo {
        limit: u64::from(draft.hops),
        // It is counted when it leaves (RFC 9171 section 4.4.3), and what it leaves with is what is stored.
        count: 1,
    };
    // The flags that the builder gives this block are not allowed in an administrative record (RFC 9171 section 4.2.4).
    let hop_flags = hardy_bpv7::block::Flags {
        must_replicate: true,
        ..hardy_bpv7::block::Flags::default()
    };
    let (bundle, data) = Builder::new(draft.source, draft.destination)
        .with_flags(flags)
        .with_report_to(draft.report_to)
        .with_lifetime(draft.lifetime)
        .add_extension_block(hardy_bpv7::block::Type::HopCount)?
        .with_flags(hop_flags)
        .build(hardy_cbor::encode::emit(&hops).0.into())
        .with_payload(draft.payload.into())
        .build(stamp)?;
    Ok((bundle, Bytes::from(data)))
}

/// The bundle of which `fragment` is the first, with the whole `payload`.
pub(crate) fn whole(fragment: &Bundle, payload: &[u8]) -> Result<(Bundle, Bytes), Error> {
    let flags = Flags {
        is_fragment: false,
        ..fragment.flags.clone()
    };
    let (bundle, data) = Builder::new(fragment.id.source.clone(), fragment.destination.clone())
        .with_flags(flags)
        .with_report_to(fragment.report_to.clone())
        .with_lifetime(fragment.lifetime)
        .with_payload(payload.into())
        .build(fragment.id.timestamp.clone())?;
    Ok((bundle, Bytes::from(data)))
}
