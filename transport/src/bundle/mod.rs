//! The exchange in Bundle Protocol version 7 bundles (RFC 9171): one request bundle, one reply bundle.
//!
//! [`agent`] is what a bundle node does for us, whosever it is.

pub mod agent;
