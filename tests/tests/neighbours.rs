//! Mail from Earth to a mailbox on the Moon through a bundle node that is not ours and on another host, with the samples of `deploy/bundles` as they
//! stand: one of ours on Earth, theirs in the middle, one of ours on the Moon.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use lightpost_tests::{
    Process, Site, corpus,
    dovecot::Dovecot,
    dtn7::{Dtnd, Layer},
    ion,
    network::{Host, Network},
    peer,
    pki::Authority,
    programs::Program,
    ud3tn::{self, Ud3tn},
    wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const PATIENCE: Duration = Duration::from_secs(120);

/// `[bundle]` of a program whose only neighbour is `other`, on the addresses of the network.
fn section(endpoint: &str, own: u8, other: u8, routes: &str) -> String {
    format!(
        "\n[bundle]\nendpoint = \"{endpoint}\"\nstore = \"/var/lib/lightpost/bundles\"\n[[bundle.listen]]\naddress = \"192.0.2.{own}:4556\"\n\
         [bundle.neighbour.relay]\naddress = \"192.0.2.{other}:4556\"\nroutes = [\"{routes}\"]\n"
    )
}

/// Earth's client and the Moon's gateway, not started.
struct World {
    client: Program,
    gateway: Gateway,
    dovecot: Dovecot,
    site: Site,
    _network: Network,
}

impl World {
    /// With the samples of a folder below `deploy/bundles`.
    fn new(sample: &str) -> Self {
        let section = |body: &str| {
            let file = peer::root().join(format!("deploy/bundles/{sample}/{body}.toml"));
            format!("\n{}", fs::read_to_string(file).unwrap())
        };
        Self::with(&section("earth"), &section("moon"))
    }

    /// With these `[bundle]` sections.
    fn with(earth: &str, moon: &str) -> Self {
        let site = Site::new();
        let network = Network::join(&site);
        let authority = Authority::new(&site, "ca");
        let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
        let mut settings = GatewaySettings::new("gw1.moon.example", &["moon.example"], dovecot.lmtp);
        settings.peer = "endpoints = [\"ipn:1.26\"]\n".into();
        settings.more = moon.to_owned();
        let mut gateway = Gateway::new(&site, &authority, &settings);
        let mut settings = ClientSettings::discovering(site.socket(), &[]);
        // A node without acknowledgements may lose a reply: the exchange is repeated then.
        settings.path = "transports = [\"bundle\"]\nreply_within = \"60s\"\n".into();
        settings
            .routes
            .push(("moon.example".into(), vec!["ipn:2.25".into()]));
        settings.more = earth.to_owned();
        let mut client = world::client(&site, &authority, &settings);
        for (program, name) in [(&mut client, "earth"), (&mut gateway.program, "moon")] {
            program.on(Arc::new(Host::new(&site, name, &["/var/lib/lightpost"])));
        }
        Self {
            client,
            gateway,
            dovecot,
            site,
            _network: network,
        }
    }

    fn start(&mut self) {
        self.client.start(&self.site);
        self.gateway.program.start(&self.site);
    }

    /// Hands over a mail and waits until its reply is here and it is in the mailbox, once; how often it left.
    fn send(&self, mail: &[u8]) -> usize {
        let before = self.dovecot.mails(BOB).len();
        let id = self.client.submit(ALICE, &[BOB], mail);
        self.arrives(&id, before)
    }

    fn arrives(&self, id: &str, before: usize) -> usize {
        self.client.wait_status(id, "delivered", PATIENCE);
        let history = self.client.message(id).to_string();
        assert!(history.contains("202: on disk at the gateway"), "{history}");
        let mails = self.dovecot.wait_mails(BOB, before + 1);
        assert_eq!(mails.len(), before + 1, "once");
        history.matches("a bundle node holds it as ipn:1.26/").count()
    }
}

fn hello(subject: &str) -> Vec<u8> {
    corpus::message(subject, b"Hello\r\n")
}

#[test]
fn dtnd_is_the_first_hop_over_tcpclv4() {
    let mut world = World::new("dtn7");
    let mut dtnd = Dtnd::sample(&world.site);
    world.start();
    assert_eq!(world.send(&hello("small")), 1, "it left once");
    // Far more than the 64,000 octets that dtnd takes at a time.
    let large = corpus::attachment("large", 1_000_000);
    assert_eq!(world.send(&large), 1);
    let found = world.dovecot.mails(BOB);
    assert!(
        found.iter().any(|mail| mail.ends_with(&large)),
        "it arrives as it left"
    );

    // The Moon is away: dtnd has it on disk, and is killed.
    world.gateway.program.stop();
    let id = world.client.submit(ALICE, &[BOB], &hello("in custody"));
    wait::until("dtnd has it", PATIENCE, || dtnd.keeps("ipn:1.26") == 1);
    dtnd.kill();
    dtnd.start_again(&world.site);
    world.gateway.program.start(&world.site);
    world.arrives(&id, 2);
}

#[test]
fn a_remote_ion_node_is_the_first_hop_over_stcp() {
    if !ion::installed() {
        return;
    }
    let mut world = World::new("ion");
    let relay = ion::Node::relay(&world.site);
    world.start();
    world.send(&hello("small"));
    let large = corpus::attachment("large", 5_000_000);
    world.send(&large);
    let found = world.dovecot.mails(BOB);
    assert!(
        found.iter().any(|mail| mail.ends_with(&large)),
        "it arrives as it left"
    );

    // What waits for a blocked plan in ION outlives ION's stop and start.
    relay.block(2, true);
    let id = world.client.submit(ALICE, &[BOB], &hello("in custody"));
    wait::until("our node let it go", PATIENCE, || {
        world
            .client
            .message(&id)
            .to_string()
            .contains("a bundle node holds it")
    });
    relay.stop();
    relay.start();
    relay.block(2, false);
    world.arrives(&id, 2);
}

#[test]
fn a_relay_of_pyd3tn_is_the_first_hop_over_mtcp() {
    // Where uD3TN itself is not installed: its makers' Python library frames and reads bundles here.
    let mut world = World::new("ud3tn");
    let script = peer::root().join("tests/peers/d3tn_relay.py");
    let mut arguments = vec![script.display().to_string()];
    arguments.extend(["192.0.2.3", "4556", "1=192.0.2.1:4556", "2=192.0.2.2:4556"].map(String::from));
    let mut relay = Process::start(&world.site, "pyd3tn", &peer::python("python"), &arguments);
    relay.wait_ready(|| wait::listens(SocketAddr::from(([192, 0, 2, 3], 4556))));
    world.start();
    world.send(&hello("small"));
    let large = corpus::attachment("large", 5_000_000);
    world.send(&large);
    let found = world.dovecot.mails(BOB);
    assert!(
        found.iter().any(|mail| mail.ends_with(&large)),
        "it arrives as it left"
    );
    let passed = relay.output();
    assert!(
        passed.contains("ipn:1.26 ipn:2.25 ") && passed.contains("ipn:2.25 ipn:1.26 "),
        "{passed}"
    );
}

#[test]
fn ud3tn_is_the_first_hop_over_mtcp() {
    if !ud3tn::installed() {
        return;
    }
    let mut world = World::new("ud3tn");
    let mut relay = Ud3tn::sample(&world.site);
    world.start();
    assert_eq!(world.send(&hello("small")), 1, "it left once");
    let large = corpus::attachment("large", 5_000_000);
    assert_eq!(world.send(&large), 1);
    let found = world.dovecot.mails(BOB);
    assert!(
        found.iter().any(|mail| mail.ends_with(&large)),
        "it arrives as it left"
    );

    // The Moon is away: uD3TN keeps it and connects again.
    let left = |world: &World, id: &str| {
        wait::until("our node let it go", PATIENCE, || {
            world
                .client
                .message(id)
                .to_string()
                .contains("a bundle node holds it")
        });
    };
    world.gateway.program.stop();
    relay.misses("192.0.2.2");
    let id = world.client.submit(ALICE, &[BOB], &hello("kept"));
    left(&world, &id);
    world.gateway.program.start(&world.site);
    assert_eq!(world.arrives(&id, 2), 1);

    // It is killed with the next, which the client repeats.
    world.gateway.program.stop();
    let id = world.client.submit(ALICE, &[BOB], &hello("lost"));
    left(&world, &id);
    relay.kill_and_start(&world.site);
    world.gateway.program.start(&world.site);
    assert_eq!(world.arrives(&id, 3), 2, "it left again");
}

#[test]
fn five_hops_and_nothing_is_lost_when_the_relays_between_go_and_come() {
    // Earth (1), four dtnds (3 to 6), the Moon (2).
    let mut world = World::with(
        &section("ipn:1.26", 1, 3, "ipn:2.*"),
        &section("ipn:2.25", 2, 6, "ipn:1.*"),
    );
    let address = |host: u8| SocketAddr::from(([192, 0, 2, host], 4556));
    let mut relays: Vec<Dtnd> = [(1, 3, 4), (3, 4, 5), (4, 5, 6), (5, 6, 2)]
        .map(|(before, own, next): (u8, u8, u8)| {
            let neighbours = [before, next].map(|it| (u32::from(it), address(it)));
            let routes = [("ipn:1.*", before.into()), ("ipn:2.*", next.into())];
            Dtnd::start_routed(
                &world.site,
                Layer::Tcp,
                own.into(),
                address(own),
                &neighbours,
                &routes,
            )
        })
        .into();
    world.start();
    assert_eq!(world.send(&hello("first")), 1);

    // The third is gone: what is to pass it stays in the second, which is killed with it.
    relays[2].stop();
    let submit = |world: &World, name: &str| -> Vec<String> {
        (0..5)
            .map(|mail| {
                world
                    .client
                    .submit(ALICE, &[BOB], &hello(&format!("{name} {mail}")))
            })
            .collect()
    };
    let mut all = submit(&world, "before the third");
    wait::until("the second has them", PATIENCE, || {
        relays[1].keeps("ipn:1.26") == 5
    });
    relays[1].kill();
    relays[1].start_again(&world.site);
    relays[2].start_again(&world.site);
    world.dovecot.wait_mails(BOB, 6);
    // Their replies are through as well: those that are counted below are of the next mails.
    for id in &all {
        world.client.wait_status(id, "delivered", PATIENCE);
    }

    // The Moon is away, so the fourth has them; then the first is, so the second has the replies, and is killed with them.
    world.gateway.program.stop();
    all.extend(submit(&world, "before the Moon"));
    wait::until("the fourth has them", PATIENCE, || {
        relays[3].keeps("ipn:1.26") == 5
    });
    relays[0].stop();
    world.gateway.program.start(&world.site);
    world.dovecot.wait_mails(BOB, 11);
    wait::until("the second has the replies", PATIENCE, || {
        relays[1].keeps("ipn:2.25") == 5
    });
    relays[1].kill();
    relays[1].start_again(&world.site);
    relays[0].start_again(&world.site);
    for id in &all {
        world.client.wait_status(id, "delivered", PATIENCE);
    }
    assert_eq!(world.dovecot.mails(BOB).len(), 11, "each once");
}
