//! What an operator's commands say of mail that they cannot change.

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
    process::Signal,
    programs::{self, Program},
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const SOON: Duration = Duration::from_secs(60);

fn queue(client: &Program, operation: &str, id: &str) -> String {
    let url = format!("http://{}", client.api);
    let finished = programs::lightpost(&["queue", operation, id, "--url", &url], b"");
    assert!(finished.status.success(), "{}", finished.stderr);
    finished.stdout
}

#[test]
fn a_retry_of_what_awaits_its_reply_says_until_when_and_changes_nothing() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
    let settings = GatewaySettings::new("gw1.moon.example", &["moon.example"], dovecot.lmtp);
    let mut gateway = Gateway::start(&site, &authority, &settings);
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    settings.path = "reply_within = \"5m\"\n".into();
    settings
        .routes
        .push(("moon.example".into(), vec![gateway.uri_by_address()]));
    let mut client = world::client(&site, &authority, &settings);
    client.start(&site);
    let first = client.submit(ALICE, &[BOB], &corpus::message("first", b"x\r\n"));
    client.wait_status(&first, "delivered", SOON);
    let said = queue(&client, "retry", &first);
    assert_eq!(
        said,
        format!("{first}: {BOB} is delivered and not made due now: it is done\n")
    );

    // On the connection that stands, the next one leaves; its reply does not come.
    gateway.program.process().signal(Signal::Stop);
    let second = client.submit(ALICE, &[BOB], &corpus::message("second", b"x\r\n"));
    client.wait_status(&second, "awaiting", SOON);
    let before = client.message(&second);
    let said = queue(&client, "retry", &second);
    println!("{said}");
    // To the second.
    let due = &before["recipients"][0]["due"].as_str().unwrap()[..19];
    assert_eq!(
        said,
        format!(
            "{second}: {BOB} is awaiting and not made due now: it has left, or may have, and a reply from {} is awaited until {due}Z; \
             without one the same exchange is repeated then, by itself\n",
            gateway.uri_by_address()
        )
    );
    let said = queue(&client, "cancel", &second);
    assert!(said.contains("it cannot be called back"), "{said}");
    assert_eq!(client.message(&second)["history"], before["history"]);

    gateway.program.process().signal(Signal::Continue);
    client.wait_status(&second, "delivered", SOON);
}
