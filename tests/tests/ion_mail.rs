//! Mail from Earth to a mailbox on the Moon through two real ION nodes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{process::Stdio, time::Duration};

use lightpost_tests::{
    Site, bsmtp, corpus,
    dovecot::Dovecot,
    ion::{self, Node},
    peer,
    pki::Authority,
    programs::Program,
    wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const PATIENCE: Duration = Duration::from_secs(120);

/// A program on the host of an ION node; ended in order, so that nothing of ION is killed.
struct OnNode(std::process::Child);

impl OnNode {
    fn start(site: &Site, node: &Node, program: &Program, role: &str) -> Self {
        let log = std::fs::File::create(site.path(&format!("{}-{role}.log", node.name))).unwrap();
        let child = node
            .command(peer::lightpost())
            .args([role, "--config"])
            .arg(&program.configuration)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        wait::until(role, PATIENCE, || wait::listens(program.api));
        Self(child)
    }

    fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for OnNode {
    fn drop(&mut self) {
        let id = self.0.id().to_string();
        let _ = std::process::Command::new("/bin/kill")
            .args(["-TERM", &id])
            .status();
        let _ = self.0.wait();
    }
}

fn section(site: &Site, endpoint: &str, name: &str) -> String {
    let store = site.make_folder(&format!("{name}-bundles"));
    format!(
        "\n[bundle]\nagent = \"ion\"\nendpoint = \"{endpoint}\"\nstore = \"{}\"\n",
        store.display()
    )
}

#[test]
fn mail_and_replies_cross_through_ion_and_wait_in_it() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let [earth, moon] = Node::pair(&site);
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
    let mut settings = GatewaySettings::new("gw1.moon.example", &["moon.example"], dovecot.lmtp);
    settings.peer = "endpoints = [\"ipn:1.26\", \"ipn:1.25\"]\n".into();
    settings.more = section(&site, "ipn:2.25", "moon");
    let gateway = Gateway::new(&site, &authority, &settings);
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    settings.path = "transports = [\"bundle\"]\nreply_within = \"100s\"\n".into();
    settings
        .routes
        .push(("moon.example".into(), vec!["ipn:2.25".into()]));
    settings.more = section(&site, "ipn:1.26", "earth");
    let client = world::client(&site, &authority, &settings);

    let on_moon = OnNode::start(&site, &moon, &gateway.program, "server");
    let on_earth = OnNode::start(&site, &earth, &client, "client");
    let small = corpus::message("by ION", b"Hello\r\n");
    let large = corpus::attachment("large", 5_000_000);
    for mail in [&small, &large] {
        let id = client.submit(ALICE, &[BOB], mail);
        client.wait_status(&id, "delivered", PATIENCE);
        let history = client.message(&id).to_string();
        assert!(
            history.contains("a bundle node holds it as ipn:1.26/"),
            "{history}"
        );
        assert!(history.contains("202: on disk at the gateway"), "{history}");
    }
    dovecot.wait_mails(BOB, 2);

    // The contact is closed, the agent is killed, ION on the Moon goes and comes: the mail is in ION's custody.
    earth.block(2, true);
    let id = client.submit(ALICE, &[BOB], &corpus::message("in custody", b"Hello\r\n"));
    wait::until("the node has it", PATIENCE, || {
        client.message(&id).to_string().contains("a bundle node holds it")
    });
    on_earth.kill();
    moon.stop();
    moon.start();
    let on_earth = OnNode::start(&site, &earth, &client, "client");
    assert_eq!(client.statuses(&id), ["awaiting"]);
    earth.block(2, false);
    client.wait_status(&id, "delivered", PATIENCE);
    dovecot.wait_mails(BOB, 3);

    // Somebody who knows nothing of us sends an object alone.
    let object = bsmtp::object(
        &format!("<{ALICE}>"),
        &[&format!("<{BOB}>")],
        &corpus::message("bpsendfile", b"Hello\r\n"),
    );
    let file = site.write("object", object);
    earth.run(
        "bpsendfile",
        &["ipn:1.25", "ipn:2.25", &file.display().to_string()],
    );
    let mails = dovecot.wait_mails(BOB, 4);
    corpus::find(&mails, "bpsendfile");
    drop((on_earth, on_moon));
    assert_eq!(dovecot.mails(BOB).len(), 4, "each once");
}
