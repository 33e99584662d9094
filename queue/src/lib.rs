//! The durable queue. Outbox (client) and inbox (gateway) are two instances of it.
//!
//! A message has a body in chunks, a row per recipient with its own status, and an append-only history. Stored status
//! is the checkpoint: after a crash everything goes on from it alone. What the trait promises holds for several
//! processes and hosts as well, so that a fleet may share one store later.

#[cfg(test)]
mod contract;
pub mod model;
pub mod schedule;
mod shortage;
pub mod sqlite;
pub mod store;
mod words;

pub use model::*;
pub use shortage::Shortage;
pub use store::{Store, StoreError};
