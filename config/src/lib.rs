//! Reading configuration so that an operator sees **every** problem at once, each with file, line, key and remedy.
//!
//! A program calls [`read`] with a closure that walks the [`Section`]s with typed getters. Getters never
//! fail: what is wrong is noted and a usable value returned, so that reading goes on to the next problem. Keys that
//! nobody asked for are problems too, because a misspelt key is a setting that silently does not apply.

mod problem;
mod section;
mod syntax;
mod value;

pub use problem::{Problem, Problems};
pub use section::{Section, read, read_text};
pub use value::{Rate, Share, Size, Value, duration_text};
