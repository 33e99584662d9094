//! The transport over deep space in virtual time: when a mail is at the gateway, in one-way light times.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

mod amplify;
mod bulk;
mod hold;
mod loss;
mod priority;
mod resume;
mod silence;
mod world;
