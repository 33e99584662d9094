//! Status reports (RFC 9171 section 6.1.1): which are owed, and what those that come say.

use hardy_bpv7::{
    bundle::{Bundle, Id},
    dtn_time::DtnTime,
    eid::Eid,
    status_report::{AdministrativeRecord, BundleStatusReport, ReasonCode, StatusAssertion},
};
use hardy_cbor::decode::FromCbor;
use jiff::Timestamp;
use lightpost_transport::bundle::agent::{Report, ReportEvent};

use super::{head, stamp};
use crate::eid;

/// What a report on a bundle needs to know of it.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    id: Id,
    pub(crate) report_to: Eid,
    pub(crate) lifetime: std::time::Duration,
    timed: bool,
    received: bool,
    forwarded: bool,
    delivered: bool,
    deleted: bool,
}

impl Subject {
    /// `None` when no report is owed whatever happens to it.
    pub(crate) fn of(bundle: &Bundle) -> Option<Self> {
        let flags = &bundle.flags;
        let wanted = flags.receipt_report_requested
            || flags.forward_report_requested
            || flags.delivery_report_requested
            || flags.delete_report_requested;
        let nobody = bundle.report_to.is_null() || bundle.id.source.is_null();
        (wanted && !nobody && !flags.is_admin_record).then(|| Self {
            id: bundle.id.clone(),
            report_to: bundle.report_to.clone(),
            lifetime: bundle.lifetime,
            timed: flags.report_status_time,
            received: flags.receipt_report_requested,
            forwarded: flags.forward_report_requested,
            delivered: flags.delivery_report_requested,
            deleted: flags.delete_report_requested,
        })
    }

    /// Whose bundle it is.
    pub(crate) const fn source(&self) -> &Eid {
        &self.id.source
    }

    /// The administrative record that says so, where it was asked for.
    pub(crate) fn record(&self, event: ReportEvent, reason: ReasonCode, now: Timestamp) -> Option<Vec<u8>> {
        let mut report = BundleStatusReport {
            bundle_id: self.id.clone(),
            reason,
            ..BundleStatusReport::default()
        };
        let (wanted, slot) = match event {
            ReportEvent::Received => (self.received, &mut report.received),
            ReportEvent::Forwarded => (self.forwarded, &mut report.forwarded),
            ReportEvent::Delivered => (self.delivered, &mut report.delivered),
            ReportEvent::Deleted => (self.deleted, &mut report.deleted),
        };
        *slot = Some(StatusAssertion(self.timed.then(|| stamp::dtn(now).into())));
        wanted.then(|| hardy_cbor::encode::emit(&AdministrativeRecord::BundleStatusReport(report)).0)
    }
}

/// Reads an administrative record that `from` sent.
pub(crate) fn read(from: &Eid, payload: &[u8]) -> Result<Report, String> {
    let (record, _, length) = AdministrativeRecord::from_cbor(payload).map_err(|error| error.to_string())?;
    if length != payload.len() {
        return Err("something follows the administrative record".to_owned());
    }
    let AdministrativeRecord::BundleStatusReport(report) = record;
    // The latest that can have happened to it comes first.
    let (event, at) = [
        (ReportEvent::Deleted, report.deleted),
        (ReportEvent::Delivered, report.delivered),
        (ReportEvent::Forwarded, report.forwarded),
        (ReportEvent::Received, report.received),
    ]
    .into_iter()
    .find_map(|(event, assertion)| Some((event, assertion?.0)))
    .ok_or("the status report says nothing")?;
    let at = at.and_then(|time| {
        let time = DtnTime::saturating_from(time);
        Timestamp::from_millisecond(stamp::unix(time.millisecs())).ok()
    });
    Ok(Report {
        about: head::bundle_id(&report.bundle_id),
        from: eid::plain(from),
        event,
        reason: report.reason.into(),
        at,
    })
}
