//! Status reports (RFC 9171 section 6.1.1), as ION hands them over: the payload of an administrative bundle.

use hardy_bpv7::{
    eid::Eid,
    status_report::{AdministrativeRecord, StatusAssertion},
};
use hardy_cbor::decode;
use jiff::Timestamp;
use lightpost_transport::bundle::agent::{BundleId, Report, ReportEvent};

/// What one administrative record says, an event each.
///
/// # Errors
/// It is not a status report; why.
pub(super) fn parse(payload: &[u8], from: &Eid) -> Result<Vec<Report>, String> {
    let record = decode::parse::<AdministrativeRecord>(payload).map_err(|error| error.to_string())?;
    let AdministrativeRecord::BundleStatusReport(report) = record;
    let stamp = &report.bundle_id.timestamp;
    let about = BundleId {
        source: report.bundle_id.source.clone(),
        time: stamp.creation_time().map_or(0, |time| time.millisecs()),
        sequence: stamp.sequence_number(),
    };
    let events = [
        (ReportEvent::Received, &report.received),
        (ReportEvent::Forwarded, &report.forwarded),
        (ReportEvent::Delivered, &report.delivered),
        (ReportEvent::Deleted, &report.deleted),
    ];
    let asserted = events.into_iter().filter_map(|(event, asserted)| {
        asserted.as_ref().map(|StatusAssertion(at)| Report {
            about: about.clone(),
            from: from.clone(),
            event,
            reason: report.reason.into(),
            at: at.and_then(|at| Timestamp::from_nanosecond(at.unix_timestamp_nanos()).ok()),
        })
    });
    Ok(asserted.collect())
}
