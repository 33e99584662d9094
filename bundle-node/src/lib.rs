//! A bundle node inside this program: BPv7 (RFC 9171) with its store on disk, between the services of this program and its neighbours.
//!
//! A bundle's way: a service sends it ([`lightpost_transport::bundle::agent::Agent`]) or a neighbour brings it (`link`), `custody` decides
//! where it goes, `store` has it before anybody is told so, `feed` gives it to the neighbour's link or to the service, and it leaves the
//! store when those have it. Nothing else is remembered: a node that is started again goes on from its store.

mod agent;
mod bundle;
mod config;
mod count;
mod custody;
mod eid;
mod feed;
mod ingress;
mod link;
mod node;
mod reassembly;
mod refused;
mod security;
mod store;
mod sweep;

pub use self::{
    agent::NodeAgent,
    config::{Framing, Limits, Listener, ListenerTls, Neighbour, NeighbourTls, NodeConfig, Route},
    count::Count,
    eid::{Pattern, PatternError},
    link::peer::NeighbourState,
    node::{NeighbourStatus, Node, NodeStatus, OpenError},
    security::{Accept, KeyFile, KeyKind, Protect, Security},
};
