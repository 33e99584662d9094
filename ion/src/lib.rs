//! Bundles through an ION node on this host (NASA JPL's Interplanetary Overlay Network), by its C interface.
//!
//! ION is shared memory: what calls it can hang with it, can crash in it, and locks the whole node when it is killed inside one of its
//! transactions. So two processes share the work. The relay holds an [`IonAgent`], which keeps the contract of
//! [`lightpost_transport::bundle::agent::Agent`] and touches nothing of ION. It starts a helper, `lightpost ion-agent` ([`run_helper`]), which loads ION's
//! libraries at run time and is never killed, only asked to end. Between them is a socket pair ([`protocol`]), and a folder in which received
//! bundles wait ([`spool`]). Whatever befalls the helper becomes [`Status::Down`](lightpost_transport::bundle::agent::Status::Down) with what the operator
//! can do; while one lives no second one is started.
//!
//! ION is needed neither to build this crate nor to run the program without a path through it.

mod agent;
mod helper;
mod library;
mod outgoing;
mod protocol;
mod spool;
mod words;

pub use self::{
    agent::{IonAgent, Settings, StartError},
    helper::{HelperError, run as run_helper},
};
