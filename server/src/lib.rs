//! The gateway of a celestial body's network: takes Batch SMTP objects from authorised peers over HTTP, keeps them in a
//! durable inbox and hands the mail to the local MTA.
//!
//! An acknowledgement (202) means that the mail is on disk here. What becomes of it afterwards is the inbox's history, and
//! comes back to the sender as a delivery status notification where it has to.

mod advice;
pub mod config;
mod housekeeping;
mod inbound;
mod onward;
mod start;

pub use advice::{Warning, advise};
pub use config::Config;
pub use start::{Server, StartError};

use jiff::Timestamp;
use ulid::Ulid;

/// A new id for a message that was accepted at `now`.
fn new_id(now: Timestamp) -> Ulid {
    let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or(0);
    Ulid::from_parts(milliseconds, rand::random())
}
