//! One exchange by HTTP/3 and in a bundle: the reply of the way that it took first is lost or late, it takes the other one under the same
//! id, and the mail is there once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::time::Duration;

use lightpost_tests::{
    Site,
    bundles::{ALICE, BOB, Lines, World, hello},
    corpus,
    udp_relay::UdpRelay,
    wait,
    wire_tap::WireTap,
};

const SOON: Duration = Duration::from_secs(60);

/// The events of a message, one line each.
fn history(world: &World, id: &str) -> Vec<String> {
    let message = world.client.message(id);
    let events = message["history"].as_array().unwrap();
    events.iter().map(ToString::to_string).collect()
}

/// The exchanges that a history names.
fn exchanges(history: &[String]) -> Vec<&str> {
    let of = |line: &'_ String| line.contains("\"sent\"") || line.contains("\"resent\"");
    history
        .iter()
        .filter(|line| of(line))
        .map(|line| {
            let at = line.find("exchange ").unwrap() + "exchange ".len();
            &line[at..at + 26]
        })
        .collect()
}

/// Nothing is left to do on either side, and the mailbox has so many mails.
fn settled_with(world: &World, mails: usize) {
    wait::until("both queues are empty", SOON, || {
        world.client.unfinished() == Some(0) && world.gateway.program.unfinished() == Some(0)
    });
    assert_eq!(world.dovecot.mails(BOB).len(), mails);
}

fn assert_came(world: &World, mail: &[u8], way: &str) {
    let mails = world.dovecot.mails(BOB);
    let came = mails.iter().find(|stored| stored.ends_with(mail)).unwrap();
    let text = String::from_utf8_lossy(came);
    assert!(corpus::contains(came, way.as_bytes()), "not {way}: {text}");
}

#[test]
fn a_mail_whose_reply_over_quic_is_lost_is_there_once_and_settled_by_bundle() {
    // Time enough to arrive over QUIC, however busy the machine.
    let (path, bundle) = (
        "transports = [\"quic\", \"bundle\"]\nreply_within = \"60s\"\n",
        "after = 500.0\n",
    );
    let mut world = World::new(path, bundle, "GATEWAY");
    let relay = UdpRelay::start(world.site.socket(), world.gateway.https);
    world.configure_client(
        "GATEWAY",
        &format!("https://{}/inboundmail#ipn:2.25", relay.address),
    );
    world.gateway.program.start(&world.site);
    world.client.start(&world.site);
    // Afterwards there is a connection over which the next one leaves without asking.
    let id = world.client.submit(ALICE, &[BOB], &hello("heard"));
    world.client.wait_status(&id, "delivered", SOON);
    world.dovecot.wait_mails(BOB, 1);

    relay.mute(true);
    let mail = hello("unheard");
    let id = world.client.submit(ALICE, &[BOB], &mail);
    world.dovecot.wait_mails(BOB, 2);
    assert_came(&world, &mail, "with HTTP/3");
    assert!(relay.lost() > 0, "nothing was lost");
    world.client.wait_status(&id, "delivered", SOON);
    settled_with(&world, 2);

    let history = history(&world, &id);
    let text = history.join("\n");
    assert_eq!(exchanges(&history).len(), 1, "one exchange: {text}");
    for part in [
        "has not answered within",
        "a bundle node holds it as ipn:1.26/",
        "202: on disk at the gateway, by bundle from ipn:2.25",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let log = world.gateway.program.process().output();
    assert_eq!(
        log.matches("a repeat; answered from the store").count(),
        1,
        "{log}"
    );
    // The next one takes the bundle at once, without waiting for QUIC again.
    let mail = hello("by bundle");
    let id = world.client.submit(ALICE, &[BOB], &mail);
    world.client.wait_status(&id, "delivered", SOON);
    world.dovecot.wait_mails(BOB, 3);
    assert_came(&world, &mail, "with BPv7");
    settled_with(&world, 3);
}

#[test]
fn a_mail_whose_reply_by_bundle_is_late_is_there_once_and_settled_over_quic() {
    let site = Site::new();
    // Nothing listens there yet: replies stay on the Moon.
    let held = site.socket();
    let lines = Lines {
        path: "transports = [\"bundle\", \"quic\"]\nreply_within = \"60s\"\n",
        bundle: "reply_within = \"10s\"\nno_reply = \"other\"\n",
        gateway: "GATEWAY",
        calls_earth_at: Some(held),
    };
    let mut world = World::on(site, &lines);
    let both = format!("{}#ipn:2.25", world.gateway.uri_by_address());
    world.configure_client("GATEWAY", &both);
    world.gateway.program.start(&world.site);
    world.client.start(&world.site);
    let mail = hello("late");
    let id = world.client.submit(ALICE, &[BOB], &mail);
    world.dovecot.wait_mails(BOB, 1);
    assert_came(&world, &mail, "with BPv7");
    world.client.wait_status(&id, "delivered", SOON);
    settled_with(&world, 1);

    let history = history(&world, &id);
    let text = history.join("\n");
    let named = exchanges(&history);
    assert_eq!(named.len(), 2, "{text}");
    assert_eq!(named[0], named[1], "the same exchange: {text}");
    for part in [
        "a bundle node holds it as ipn:1.26/",
        "202: on disk at the gateway",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("by bundle from"), "{text}");
    let log = world.gateway.program.process().output();
    assert_eq!(
        log.matches("a repeat; answered from the store").count(),
        1,
        "{log}"
    );

    // At last the reply comes: it is let go, and changes nothing.
    let _way = WireTap::start(held, world.earth);
    wait::until("the late reply is let go", SOON, || {
        let log = world.client.process().output();
        log.contains("news of an exchange that nobody waits for")
    });
    settled_with(&world, 1);
    assert_eq!(world.client.statuses(&id), ["delivered"]);
    assert_eq!(self::history(&world, &id), history);
}
