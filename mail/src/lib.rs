//! What a mail is: addresses, envelopes, line ends, Batch SMTP, trace fields, delivery status notifications.
//!
//! No I/O and no clock. What enters is octets and times, what leaves is octets and typed facts.

pub mod address;
pub mod bsmtp;
pub mod convert;
pub mod date;
pub mod dsn;
pub mod envelope;
pub mod lines;
pub mod status;
pub mod trace;

pub use address::{Address, AddressError, ReversePath};
pub use envelope::{Envelope, Recipient, Sender};
pub use status::EnhancedCode;
