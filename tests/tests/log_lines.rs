//! What the programs' logs say of a mail: words that stay, as in the histories, and nothing of the programs' insides.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::time::Duration;

use lightpost_tests::{
    Site, corpus,
    dovecot::Dovecot,
    pki::Authority,
    programs::Program,
    wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const SOON: Duration = Duration::from_secs(60);

/// The first line with all of `words`.
#[track_caller]
fn wait_line(program: &mut Program, words: &[&str]) -> String {
    let found = |program: &mut Program| {
        let output = program.process().output();
        let mut lines = output.lines();
        let line = lines.find(|line| words.iter().all(|word| line.contains(word)));
        line.map(str::to_owned)
    };
    wait::until_some(&format!("a line with {words:?}"), SOON, || found(program))
}

/// No value looks like a type of the programs' source, `Retry { … }` or `Some(…)`.
#[track_caller]
fn assert_words(program: &mut Program) {
    let output = program.process().output();
    for line in output.lines() {
        let values = line.split_whitespace().filter_map(|word| word.split_once('='));
        for (key, value) in values {
            assert!(
                !value.starts_with(|first: char| first.is_ascii_uppercase()) || key == "id",
                "{key}={value} in: {line}"
            );
        }
    }
}

#[test]
fn outcomes_and_protocols_have_words() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
    let settings = GatewaySettings::new("gw1.moon.example", &["moon.example"], dovecot.lmtp);
    let mut gateway = Gateway::start(&site, &authority, &settings);
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    settings
        .routes
        .push(("moon.example".into(), vec![gateway.uri_by_address()]));
    settings.routes.push((
        "mars.example".into(),
        vec![format!("https://{}/inboundmail", site.socket())],
    ));
    settings.more = format!(
        "\n[smtp]\nlisten = \"{}\"\n\n[lmtp]\nlisten = \"{}\"\n",
        site.socket(),
        site.socket()
    );
    let mut client = world::client(&site, &authority, &settings);
    client.start(&site);
    let id = client.submit(ALICE, &[BOB], &corpus::message("there", b"x\r\n"));
    client.wait_status(&id, "delivered", SOON);
    let lost = client.submit(
        ALICE,
        &["eve@mars.example"],
        &corpus::message("nowhere", b"x\r\n"),
    );

    for protocol in ["protocol=smtp", "protocol=lmtp"] {
        wait_line(&mut client, &["listening for mail", protocol]);
    }
    wait_line(&mut client, &[&id, "outcome=\"delivered\""]);
    wait_line(
        &mut client,
        &[
            &lost,
            "outcome=\"deferred\"",
            "reason=\"unreachable\"",
            "until=20",
        ],
    );
    let line = wait_line(&mut gateway.program, &[&id, "outcome=\"delivered\""]);
    println!("{line}");
    assert_words(&mut client);
    assert_words(&mut gateway.program);
}
