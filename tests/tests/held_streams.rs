//! Peers that may send, and whose objects never end: they lose their places, the log says so, and others are served meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{process::Command, time::Duration};

use lightpost_tests::{
    Site, corpus,
    dovecot::Dovecot,
    peer,
    pki::Authority,
    process, wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};
use serde_json::Value;

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const NAME: &str = "gw1.moon.example";
/// The kinds of such streams, how many there are of each, and what they are answered.
const HELD: [(&str, usize, u64); 3] = [("silent", 24, 408), ("drip", 24, 408), ("endless", 6, 413)];
/// What the gateway may hold while it is idle, and all that these streams may make of it.
const MEMORY: u64 = 150_000_000;

#[test]
fn objects_that_never_end_lose_their_places_and_others_are_served() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
    let mut settings = GatewaySettings::new(NAME, &["moon.example"], dovecot.lmtp);
    settings.accept = "max_message = \"1MB\"\nidle = \"5s\"\n".into();
    settings.more = "\n[[peer]]\nname = \"holder.earth.example\"\n".into();
    let mut gateway = Gateway::start(&site, &authority, &settings);
    let holder = authority.issue(&site, "holder.earth.example");
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    settings
        .routes
        .push(("moon.example".into(), vec![gateway.uri_by_address()]));
    let mut client = world::client(&site, &authority, &settings);
    client.start(&site);

    let hold = &|kind: &str, count: usize| -> Vec<Option<u64>> {
        let mut command = Command::new(peer::python("python"));
        command
            .arg(peer::root().join("tests/peers/h3_hold.py"))
            .args([
                gateway.https.ip().to_string(),
                gateway.https.port().to_string(),
                NAME.into(),
            ])
            .args([&authority.file, &holder.certificate, &holder.key])
            .args(["/inboundmail", kind, &count.to_string()]);
        let finished = process::run(&mut command, b"");
        let answer: Value =
            serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{}", finished.stderr));
        assert_eq!(answer["lost"], Value::Null, "{kind}");
        let statuses = answer["statuses"].as_array().unwrap();
        statuses.iter().map(Value::as_u64).collect()
    };
    let message = corpus::message("served", &corpus::lone_dots());
    std::thread::scope(|scope| {
        let held = HELD.map(|(kind, count, _)| scope.spawn(move || hold(kind, count)));
        let id = client.submit(ALICE, &[BOB], &message);
        client.wait_status(&id, "delivered", Duration::from_secs(60));
        for ((kind, count, status), held) in HELD.into_iter().zip(held) {
            assert_eq!(held.join().unwrap(), vec![Some(status); count], "{kind}");
        }
    });
    corpus::assert_only_trace_added(corpus::find(&dovecot.wait_mails(BOB, 1), "served"), &message);
    let log = gateway.program.process().output();
    for said in [
        "nothing arrived for 5s",
        "less than 32 KiB arrived per 5s",
        "exceeds the limit",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
    let peak = gateway.program.process().peak_memory();
    println!("peak memory of the gateway {} MB", peak / 1_000_000);
    assert!(peak < MEMORY, "{peak} octets");
    wait::until(
        "the gateway to have nothing left",
        Duration::from_secs(20),
        || gateway.program.unfinished() == Some(0),
    );
}
