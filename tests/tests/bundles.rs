//! From Earth to a mailbox behind a gateway, in bundles over TCPCLv4.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use lightpost_tests::{
    Site,
    bundles::{ALICE, BOB, POSTMASTER, World, hello, replace},
    corpus,
    nsd::Nsd,
    programs, wait,
    world::RELAY,
};

const SOON: Duration = Duration::from_secs(60);
const BUNDLES: &str = "transports = [\"bundle\"]\nreply_within = \"50s\"\n";

#[test]
fn a_mail_and_its_reply_cross_whoever_is_away_or_killed_meanwhile() {
    let mut world = World::new(BUNDLES, "", "ipn:2.25");
    world.client.start(&world.site);
    // The Moon is away: the bundle is in custody on Earth, and outlives a kill of everything there.
    let id = world.client.submit(ALICE, &[BOB], &hello("in custody"));
    world.client.wait_status(&id, "awaiting", SOON);
    wait::until("the history names the bundle", SOON, || {
        world
            .client
            .message(&id)
            .to_string()
            .contains("a bundle node holds it as ipn:1.26/")
    });
    world.client.kill();
    world.client.start(&world.site);
    assert_eq!(world.client.statuses(&id), ["awaiting"], "it is not said again");

    world.gateway.program.start(&world.site);
    world.dovecot.wait_mails(BOB, 1);
    world.client.wait_status(&id, "delivered", SOON);
    let history = world.client.message(&id).to_string();
    assert!(history.contains("202: on disk at the gateway"), "{history}");
    assert!(!history.contains("resent"), "{history}");

    // Earth is away when the reply comes.
    let id = world
        .client
        .submit(ALICE, &[BOB], &hello("reply in another life"));
    world.client.kill();
    world.gateway.program.kill();
    world.gateway.program.start(&world.site);
    world.client.start(&world.site);
    world.client.wait_status(&id, "delivered", SOON);
    world.dovecot.wait_mails(BOB, 2);

    // A large one, both directions of the connection at work.
    let large = corpus::attachment("large", 5_000_000);
    let id = world.client.submit(ALICE, &[BOB], &large);
    world.client.wait_status(&id, "delivered", SOON);
    world.dovecot.wait_mails(BOB, 3);
    let found = world.dovecot.mails(BOB);
    assert!(
        found.iter().any(|mail| mail.ends_with(&large)),
        "the large mail arrives as it left"
    );
    let received = found
        .iter()
        .map(|mail| String::from_utf8_lossy(mail).into_owned());
    assert!(received.into_iter().all(|mail| mail.contains("with BPv7")));
}

#[test]
fn a_bare_object_is_delivered_when_its_node_says_so() {
    let mut world = World::new(BUNDLES, "payload = \"batch-smtp\"\n", "ipn:2.25");
    world.client.start(&world.site);
    world.gateway.program.start(&world.site);
    let id = world.client.submit(ALICE, &[BOB], &hello("bare"));
    world.client.wait_status(&id, "delivered", SOON);
    world.dovecot.wait_mails(BOB, 1);
    let history = world.client.message(&id).to_string();
    assert!(history.contains("ipn:2.0: bundle ipn:1.26/"), "{history}");
    // Nobody can be answered that this one is not accepted: the postmaster hears of it.
    let id = world
        .client
        .submit(ALICE, &["carol@mars.example"], &hello("not here"));
    world.client.wait_status(&id, "delivered", SOON);
    let told = world.dovecot.wait_mails(POSTMASTER, 1);
    let told = String::from_utf8_lossy(&told[0]).into_owned();
    assert!(told.contains("Mail in a bundle was refused"), "{told}");
    assert!(
        told.contains("ipn:1.26") && told.contains("carol@mars.example"),
        "{told}"
    );
}

#[test]
fn bundles_take_over_where_quic_is_silent() {
    let dead = Site::new().socket();
    let gateway = format!("https://{dead}/inboundmail#ipn:2.25");
    let path = "transports = [\"quic\", \"bundle\"]\nreply_within = \"50s\"\n";
    let mut world = World::new(path, "after = 4.0\n", &gateway);
    world.client.start(&world.site);
    world.gateway.program.start(&world.site);
    let id = world.client.submit(ALICE, &[BOB], &hello("fallback"));
    world.dovecot.wait_mails(BOB, 1);
    world.client.wait_status(&id, "delivered", SOON);
    let log = world.client.process().output();
    assert!(log.contains("a bundle takes over"), "{log}");
}

#[test]
fn strangers_are_neither_served_nor_answered() {
    let mut world = World::new(BUNDLES, "", "ipn:2.25");
    // The gateway knows its peer by another endpoint.
    replace(&world.gateway.program.configuration, "ipn:1.26", "ipn:1.27");
    world.gateway.program.start(&world.site);
    world.client.start(&world.site);
    let id = world.client.submit(ALICE, &[BOB], &hello("stranger"));
    wait::until("the gateway drops it", SOON, || {
        let log = world.gateway.program.process().output();
        log.contains("nobody's `endpoints` is dropped")
    });
    assert_eq!(world.client.statuses(&id), ["awaiting"]);
    assert!(!world.client.message(&id).to_string().contains(RELAY));
    assert_eq!(world.dovecot.mails(BOB).len(), 0);
}

/// The keys and rules of one side.
fn signed(world: &World, key: &str, other: &str) -> String {
    let file = world.site.write(&format!("{key}.key"), key_of(key));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!(
        "[bundle.key.{key}]\nfile = \"{}\"\nkind = \"integrity\"\n[[bundle.protect]]\ndestinations = \"{other}\"\nsign = \"{key}\"\n\
         [[bundle.accept]]\nsources = \"{other}\"\nkeys = [\"{key}\"]\n",
        file.display()
    )
}

fn key_of(name: &str) -> String {
    let octet = name
        .bytes()
        .fold(0_u8, |sum, octet| sum.wrapping_mul(31).wrapping_add(octet));
    format!("{octet:02x}").repeat(32)
}

fn append(file: &Path, text: &str) {
    let before = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, format!("{before}\n{text}")).unwrap();
}

#[test]
fn only_what_is_signed_with_a_known_key_counts() {
    let path = "transports = [\"bundle\"]\nreply_within = \"8s\"\n";
    let mut world = World::new(path, "", "ipn:2.25");
    let original = std::fs::read_to_string(&world.client.configuration).unwrap();
    let moon = signed(&world, "first", "ipn:1.*");
    append(&world.gateway.program.configuration, &moon);
    let (wrong, right) = (
        signed(&world, "second", "ipn:2.*"),
        signed(&world, "first", "ipn:2.*"),
    );
    world.gateway.program.start(&world.site);
    // Without a signature, with one of another key, with the right one.
    let mut waiting = Vec::new();
    for (subject, rules, dropped) in [
        ("unsigned", "", "without an integrity block"),
        ("forged", wrong.as_str(), "not of any key"),
    ] {
        std::fs::write(&world.client.configuration, &original).unwrap();
        append(&world.client.configuration, rules);
        // A fault is told at most once a minute.
        world.gateway.program.stop();
        world.gateway.program.start(&world.site);
        world.client.start(&world.site);
        waiting.push(world.client.submit(ALICE, &[BOB], &hello(subject)));
        wait::until(dropped, SOON, || {
            world.gateway.program.process().output().contains(dropped)
        });
        world.client.stop();
    }
    assert_eq!(world.dovecot.mails(BOB).len(), 0);
    std::fs::write(&world.client.configuration, &original).unwrap();
    append(&world.client.configuration, &right);
    world.client.start(&world.site);
    let id = world.client.submit(ALICE, &[BOB], &hello("signed"));
    world.client.wait_status(&id, "delivered", SOON);
    // What was dropped is said again, signed, once no answer came.
    for id in waiting {
        world.client.wait_status(&id, "delivered", SOON * 3);
    }
    world.dovecot.wait_mails(BOB, 3);
}

#[test]
fn discovery_offers_the_node_of_the_gateways_host() {
    let path = "transports = [\"quic\", \"bundle\"]\nreply_within = \"50s\"\n";
    let mut world = World::new(path, "after = 4.0\n", "");
    // Nothing listens at the web's port; the host's node is number 2.
    let dead = world.site.socket();
    let nsd = Nsd::start(
        &world.site,
        "moon.example",
        &format!(
            "$TTL 60\n_bsmtp._https IN URI 10 1 \"https://gw1.moon.example:{}/inboundmail\"\ngw1 IN A {}\n\
             gw1 IN TYPE264 \\# 8 0000000000000002",
            dead.port(),
            dead.ip()
        ),
    );
    let file = &world.client.configuration;
    let text = std::fs::read_to_string(file).unwrap();
    let text = text.replace("gateways = [\"\"]", "");
    let resolver = text
        .lines()
        .find(|line| line.starts_with("servers = "))
        .unwrap()
        .to_owned();
    std::fs::write(
        file,
        text.replace(&resolver, &format!("servers = [\"{}\"]", nsd.address)),
    )
    .unwrap();
    let told = programs::lightpost(
        &[
            "discover",
            "moon.example",
            "--json",
            "--config",
            &file.display().to_string(),
        ],
        b"",
    );
    assert!(
        told.stdout.contains("/inboundmail#ipn:2.25"),
        "{} {}",
        told.stdout,
        told.stderr
    );
    world.client.start(&world.site);
    world.gateway.program.start(&world.site);
    let id = world.client.submit(ALICE, &[BOB], &hello("by its number"));
    world.client.wait_status(&id, "delivered", SOON);
    world.dovecot.wait_mails(BOB, 1);
}

#[test]
fn where_both_ways_work_the_preferred_one_is_taken() {
    let path = "transports = [\"quic\", \"bundle\"]\nreply_within = \"50s\"\n";
    let mut world = World::new(path, "above = \"100kB\"\n", "GATEWAY");
    let both = format!("{}#ipn:2.25", world.gateway.uri_by_address());
    world.configure_client("GATEWAY", &both);
    world.client.start(&world.site);
    world.gateway.program.start(&world.site);
    for (mail, way) in [
        (hello("small"), "with HTTP/3"),
        (corpus::attachment("large", 300_000), "with BPv7"),
    ] {
        let before = world.dovecot.mails(BOB).len();
        let id = world.client.submit(ALICE, &[BOB], &mail);
        world.client.wait_status(&id, "delivered", SOON);
        let mails = world.dovecot.wait_mails(BOB, before + 1);
        let came = mails.iter().find(|stored| stored.ends_with(&mail)).unwrap();
        assert!(
            corpus::contains(came, way.as_bytes()),
            "{way}: {}",
            String::from_utf8_lossy(came)
        );
    }
}
