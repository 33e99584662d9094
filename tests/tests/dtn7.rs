//! The embedded bundle node beside dtn7's `dtnd`, a BPv7 node that is not ours, over MTCP and TCPCLv4.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lightpost_bundle_node::{
    Framing, Listener, Neighbour, NeighbourState, Node, NodeAgent, NodeConfig, Pattern, Route,
};
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
    let config = config(site, layer, number, address, other);
    let node = Node::open(config, Clock::system()).await.unwrap();
    let agent = node.agent(25).unwrap();
    (node, agent)
}

fn config(site: &Site, layer: Layer, number: u32, address: SocketAddr, other: SocketAddr) -> NodeConfig {
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
    config
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

/// What `dtnsend` can hand to dtnd: somewhat more than 2 MB is too much for its web interface.
const COMING: [usize; 5] = [1, 300, 100_000, 1_000_000, 2_000_000];

#[tokio::test(flavor = "multi_thread")]
async fn its_tools_and_we_understand_each_other_over_mtcp() {
    let going = [1, 300, 100_000, 1_000_000, 20_000_000];
    its_tools_and_we_understand_each_other(Layer::Mtcp, &COMING, &going).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_tools_and_we_understand_each_other_over_tcpclv4() {
    // It takes 64,000 octets at most, and puts no fragments together.
    its_tools_and_we_understand_each_other(Layer::Tcp, &COMING, &[1, 300, 60_000]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_it_crosses_in_pieces_over_tcpclv4() {
    large_bundles_cross(Layer::Tcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bundles_cross_over_mtcp() {
    large_bundles_cross(Layer::Mtcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_silence() {
    let site = Site::new();
    let (ours, theirs) = (site.socket(), site.socket());
    let dtnd = Dtnd::start(&site, Layer::Tcp, OTHER, theirs, &[(1, ours)]);
    let mut config = config(&site, Layer::Tcp, 1, ours, theirs);
    // dtnd ends a session when it has heard nothing for all of it, at the first look.
    config.limits.keepalive = Duration::from_secs(6);
    let node = Node::open(config, Clock::system()).await.unwrap();
    let up = async || node.status().await.neighbours[0].state == NeighbourState::Up;
    tokio::time::timeout(PATIENCE, async {
        while !up().await {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("no session began");
    Clock::system().sleep(Duration::from_secs(20)).await;
    let said = dtnd.output();
    assert!(!said.contains("Session terminated"), "{said}");
    assert_eq!(said.matches("Started TCP session").count(), 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_relays_over_mtcp() {
    it_relays_and_is_killed_with_bundles_in_it(Layer::Mtcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_relays_over_tcpclv4() {
    it_relays_and_is_killed_with_bundles_in_it(Layer::Tcp).await;
}

fn counted(size: usize) -> Vec<u8> {
    (0..size).map(|it| (it % 251) as u8).collect()
}

/// `coming`, `going`: sizes of what it sends to us and we to it.
async fn its_tools_and_we_understand_each_other(layer: Layer, coming: &[usize], going: &[usize]) {
    let site = Site::new();
    let (ours, theirs) = (site.socket(), site.socket());
    let dtnd = Dtnd::start(&site, layer, OTHER, theirs, &[(1, ours)]);
    let (_node, agent) = node(&site, layer, 1, ours, theirs).await;
    for size in coming {
        let payload = counted(*size);
        dtnd.send(&site, "ipn:23.25", "ipn:1.25", &payload);
        let came = bundle(&agent).await;
        assert_eq!(came.id.source.to_string(), "ipn:23.25");
        assert!(came.payload == payload, "{size} octets came changed");
    }
    for size in going {
        let payload = counted(*size);
        agent.send(outgoing("ipn:23.25", payload.clone())).await.unwrap();
        // dtnsend asked for a status report on its bundle, which comes to the same service.
        wait::until("dtnrecv has it", PATIENCE, || {
            dtnd.receive(&site).is_some_and(|received| received == payload)
        });
    }
}

async fn large_bundles_cross(layer: Layer) {
    let site = Site::new();
    let (earth, relay, moon) = (site.socket(), site.socket(), site.socket());
    let neighbours = [(1, earth), (2, moon)];
    let routes = [("ipn:1.*", 1), ("ipn:2.*", 2)];
    let _dtnd = Dtnd::start_routed(&site, layer, OTHER, relay, &neighbours, &routes);
    let (_earth_node, earth) = node(&site, layer, 1, earth, relay).await;
    let (_moon_node, moon) = node(&site, layer, 2, moon, relay).await;
    for size in [1_000_000, 20_000_000] {
        for (from, to) in [(&earth, &moon), (&moon, &earth)] {
            let payload = counted(size);
            let destination = to.endpoint().to_string();
            let id = from.send(outgoing(&destination, payload.clone())).await.unwrap();
            let came = bundle(to).await;
            assert_eq!(came.id, id);
            assert!(came.payload == payload, "{size} octets came changed");
        }
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
    wait::until("dtnd has it", PATIENCE, || dtnd.keeps("ipn:1.25") == 1);
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
