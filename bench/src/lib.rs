//! Lightpost measured in virtual time: the shipped agent and gateway, with their configuration files and databases, on a
//! network in memory and a clock that jumps.
//!
//! [`pair`] starts both and takes times from their own histories; [`distance`], [`loss`] and [`disruption`] are what
//! `bench distance`, `bench loss` and `bench disruption` print, and what the tests hold.

pub mod disruption;
pub mod distance;
pub mod loss;
pub mod pair;
pub mod picture;
pub mod plain;
pub mod real;
pub mod table;
pub mod warped;

use std::future::Future;

/// A failure: one line that says what is wrong and what to do.
pub type Result<T> = std::result::Result<T, String>;

/// Runs `story` on a runtime of one thread whose clock jumps to the next timer whenever nothing else is to be done.
///
/// # Errors
/// Those of the story, and when the system refuses a runtime.
pub fn in_virtual_time<T>(story: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .map_err(|error| format!("the system refuses a runtime: {error}"))?;
    runtime.block_on(story)
}
