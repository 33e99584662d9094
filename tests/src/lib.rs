//! Fixtures for the tests that run the release binary against real peers: Postfix, Exim, OpenSMTPD, Dovecot, NSD, Rspamd, an independent
//! HTTP/3 client and curl, each a process of its own on addresses and in folders of its own.
//!
//! A test makes a [`Site`] first: a temporary folder and loopback addresses that no other test has, so that tests run
//! side by side. Everything started through [`Process`] ends with the test, whichever way the test ends. A peer that
//! is not installed is a failure that names the package ([`peer`]), never a silent skip.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "fixtures fail the test that uses them; there is nobody to hand an error to"
)]

pub mod bsmtp;
pub mod bundles;
pub mod corpus;
pub mod dovecot;
pub mod dtn7;
pub mod exim;
pub mod full_disk;
pub mod http;
pub mod imap;
pub mod ion;
pub mod kills;
pub mod ledger;
pub mod lmtp_tap;
pub mod network;
pub mod nsd;
pub mod opensmtpd;
pub mod peer;
pub mod pki;
pub mod postfix;
pub mod private_root;
pub mod process;
pub mod programs;
pub mod rspamd;
pub mod signatures;
pub mod site;
pub mod sites;
pub mod smtp;
pub mod tcpcl;
pub mod ud3tn;
pub mod udp_relay;
pub mod ugly;
pub mod wait;
pub mod wire_tap;
pub mod world;

pub use process::Process;
pub use site::Site;
