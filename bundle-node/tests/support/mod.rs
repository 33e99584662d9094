//! Nodes on loopback.
#![allow(dead_code)] // not every test file uses all of it

pub(crate) mod raw;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hardy_bpv7::eid::Eid;
use lightpost_bundle_node::{
    Framing, Limits, Listener, Neighbour, Node, NodeAgent, NodeConfig, Pattern, Route,
};
use lightpost_clock::Clock;
use lightpost_transport::bundle::agent::{
    Agent, Class, Content, Delivery, Incoming, Outgoing, Report, Reports,
};

/// The service that the tests use.
pub(crate) const SERVICE: u32 = 25;
/// Patience: far more than anything takes, even where the machine is starved.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A node that calls neighbours at once and again soon.
pub(crate) fn config(number: u32, directory: &Path) -> NodeConfig {
    let mut config = NodeConfig::new(number, directory.join(number.to_string()));
    config.services = vec![SERVICE];
    config.limits = Limits {
        redial_first: Duration::from_millis(20),
        redial_most: Duration::from_millis(200),
        ..Limits::default()
    };
    config
}

pub(crate) fn listener() -> Listener {
    Listener {
        framing: Framing::Tcpcl,
        address: "127.0.0.1:0".parse().unwrap(),
        tls: None,
    }
}

/// A neighbour at `address`, and the route to the nodes `numbers` through it.
pub(crate) fn neighbour(config: &mut NodeConfig, name: &str, address: SocketAddr, numbers: &[u32]) {
    config.neighbours.push(Neighbour {
        name: name.to_owned(),
        framing: Framing::Tcpcl,
        address: address.to_string(),
        tls: None,
    });
    config.routes.extend(numbers.iter().map(|number| Route {
        pattern: Pattern::node(*number),
        via: name.to_owned(),
    }));
}

pub(crate) async fn open(config: &NodeConfig) -> (Node, Arc<NodeAgent>) {
    let node = Node::open(config.clone(), Clock::system()).await.unwrap();
    let agent = node.agent(SERVICE).unwrap();
    (node, agent)
}

/// An address at which nobody listens yet, for a node that is started later. The whole of 127.0.0.0/8 is this host: each process
/// has an address of its own there, which no connection of another takes for its own end.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, 1 + (high & 0x7f), middle, low);
    SocketAddr::from((host, NEXT.fetch_add(1, Ordering::Relaxed)))
}

pub(crate) fn eid(text: &str) -> Eid {
    text.parse().unwrap()
}

pub(crate) fn outgoing(destination: &str, payload: impl Into<Bytes>) -> Outgoing {
    Outgoing {
        destination: eid(destination),
        lifetime: Duration::from_secs(3600),
        class: Class::Normal,
        report_to: None,
        reports: Reports::default(),
        payload: payload.into(),
    }
}

pub(crate) async fn receive(agent: &NodeAgent) -> Delivery {
    tokio::time::timeout(PATIENCE, agent.receive())
        .await
        .expect("nothing came")
}

/// The next delivery, which has to be a bundle; dealt with.
pub(crate) async fn bundle(agent: &NodeAgent) -> Incoming {
    let delivery = receive(agent).await;
    match delivery.content.clone() {
        Content::Bundle(bundle) => {
            delivery.done();
            bundle
        }
        Content::Report(report) => panic!("a report came: {report:?}"),
    }
}

/// The next delivery, which has to be a report; dealt with.
pub(crate) async fn report(agent: &NodeAgent) -> Report {
    let delivery = receive(agent).await;
    match delivery.content.clone() {
        Content::Report(report) => {
            delivery.done();
            report
        }
        Content::Bundle(bundle) => panic!("a bundle came: {bundle:?}"),
    }
}

/// Waits until `holds`.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("it did not come about: {what}"));
}
