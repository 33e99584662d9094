//! Bundles (RFC 9171): made, read, changed on their way, reported on.

pub(crate) mod cut;
pub(crate) mod head;
pub(crate) mod make;
pub(crate) mod onward;
pub(crate) mod report;
pub(crate) mod stamp;
