//! The embedded bundle node beside dtn7's `dtnd`, a BPv7 node that is not ours, over MTCP and TCPCLv4.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lightpost_bundle_node::{Framing, Listener, Neighbour, Node, NodeAgent, NodeConfig, Pattern, Route};
use lightpost_clock::Clock;
use lightpost_tests::{
    Site,
    dtn7::{Dtnd, Layer},
    wait,
};
use lightpost_transport::bundle::agent::{
    Agent, Class, Content, Incoming, Outgoing, Report, ReportEvent, Reports,
};

/// dtnd's number.
const OTHER: u32 = 23;
const PATIENCE: Duration = Duration::from_secs(120);

/// Our node `number`, next to dtnd, through which it reaches everybody.
async fn node(
    site: &Site,
    layer: Layer,
    number: u32,
    address: SocketAddr,
    other: SocketAddr,
) -> (Node, Arc<NodeAgent>) {
    let mut config = NodeConfig::new(number, site.make_folder(&format!("node-{number}")));
    let framing = match layer {
        Layer::Mtcp => Framing::Mtcp,
        Layer::Tcp => Framing::Tcpcl,
    };
    config.services = vec![25];
    config.limits.redial_most = Duration::from_millis(500);
    config.listeners = vec![Listener {
        framing,
        address,
        tls: None,
    }];
    config.neighbours = vec![Neighbour {
        name: "dtnd".to_owned(),
        framing,
        address: other.to_string(),
        tls: None,
    }];
    config.routes = vec![Route {
        pattern: "ipn:*.*".parse::<Pattern>().unwrap(),
        via: "dtnd".to_owned(),
    }];
    let node = Node::open(config, Clock::system()).await.unwrap();
    let agent = node.agent(25).unwrap();
    (node, agent)
}

fn outgoing(destination: &str, payload: Vec<u8>) -> Outgoing {
    Outgoing {
        destination: destination.parse().unwrap(),
        lifetime: Duration::from_secs(3600),
        class: Class::Normal,
        report_to: None,
        reports: Reports::default(),
        payload: payload.into(),
    }
}

async fn next(agent: &NodeAgent) -> Content {
    let delivery = tokio::time::timeout(PATIENCE, agent.receive())
        .await
        .expect("nothing came");
    let content = delivery.content.clone();
    delivery.done();
    content
}

async fn bundle(agent: &NodeAgent) -> Incoming {
    match next(agent).await {
        Content::Bundle(bundle) => bundle,
        Content::Report(report) => panic!("a report came: {report:?}"),
    }
}

async fn report(agent: &NodeAgent) -> Report {
    match next(agent).await {
        Content::Report(report) => report,
        Content::Bundle(bundle) => panic!("a bundle came: {bundle:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_tools_and_we_understand_each_other_over_mtcp() {
    // Not over TCPCLv4: bundles of several segments did not all get through to it there, and why is not known yet.
    its_tools_and_we_understand_each_other(Layer::Mtcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_relays_over_mtcp() {
    it_relays_and_is_killed_with_bundles_in_it(Layer::Mtcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_relays_over_tcpclv4() {
    it_relays_and_is_killed_with_bundles_in_it(Layer::Tcp).await;
}

async fn its_tools_and_we_understand_each_other(layer: Layer) {
    let site = Site::new();
    let (ours, theirs) = (site.socket(), site.socket());
    let dtnd = Dtnd::start(&site, layer, OTHER, theirs, &[(1, ours)]);
    let (_node, agent) = node(&site, layer, 1, ours, theirs).await;
    for size in [1, 300, 100_000] {
        let payload: Vec<u8> = (0..size).map(|it| (it % 251) as u8).collect();
        dtnd.send(&site, "ipn:23.25", "ipn:1.25", &payload);
        let came = bundle(&agent).await;
        assert_eq!(came.id.source.to_string(), "ipn:23.25");
        assert!(came.payload == payload, "{size} octets came changed");

        agent.send(outgoing("ipn:23.25", payload.clone())).await.unwrap();
        // dtnsend asked for a status report on its bundle, which comes to the same service.
        wait::until("dtnrecv has it", PATIENCE, || {
            dtnd.receive(&site).is_some_and(|received| received == payload)
        });
    }
}

async fn it_relays_and_is_killed_with_bundles_in_it(layer: Layer) {
    let site = Site::new();
    let (earth, relay, moon) = (site.socket(), site.socket(), site.socket());
    let mut dtnd = Dtnd::start(&site, layer, OTHER, relay, &[(1, earth), (2, moon)]);
    let (_earth_node, earth) = node(&site, layer, 1, earth, relay).await;
    let asked = |payload: &str| Outgoing {
        report_to: Some("ipn:1.25".parse().unwrap()),
        reports: Reports {
            delivered: true,
            ..Reports::default()
        },
        ..outgoing("ipn:2.25", payload.into())
    };
    // The moon is not there yet: dtnd keeps it, and dies.
    let first = earth.send(asked("first")).await.unwrap();
    wait::until("dtnd has it", PATIENCE, || dtnd.bundles().contains("ipn:1.25"));
    dtnd.kill();
    dtnd.start_again(&site);
    let (_moon_node, moon) = node(&site, layer, 2, moon, relay).await;
    let came = bundle(&moon).await;
    assert_eq!((came.id.clone(), came.payload), (first.clone(), "first".into()));
    let said = report(&earth).await;
    assert_eq!(
        (said.about, said.event, said.from.to_string()),
        (first, ReportEvent::Delivered, "ipn:2.0".to_owned())
    );

    let reply = moon
        .send(outgoing(&came.id.source.to_string(), b"reply".to_vec()))
        .await
        .unwrap();
    let came = bundle(&earth).await;
    assert_eq!((came.id, came.payload), (reply, "reply".into()));
}
