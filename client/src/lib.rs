//! The agent beside the MTA on Earth: takes mail, keeps it in the durable outbox, finds its gateway, sends it.

mod accept;
mod client;
pub mod config;
pub mod discover;
mod dispatch;
mod housekeeping;
mod ids;
mod ingest;
mod screen;

pub use client::{Client, StartError};
pub use config::Config;
