//! What an operator's commands say of mail that they cannot change, and what monitoring sees.

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
    http::Request,
    pki::Authority,
    process::Signal,
    programs::{self, Program},
    wait,
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

/// A client that waits for replies for long, its gateway and the mailbox, all running.
fn patient(site: &Site) -> (Program, Gateway, Dovecot) {
    let authority = Authority::new(site, "ca");
    let dovecot = Dovecot::start(site, "dovecot", &[BOB]);
    let settings = GatewaySettings::new("gw1.moon.example", &["moon.example"], dovecot.lmtp);
    let gateway = Gateway::start(site, &authority, &settings);
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    settings.path = "reply_within = \"5m\"\n".into();
    settings
        .routes
        .push(("moon.example".into(), vec![gateway.uri_by_address()]));
    let mut client = world::client(site, &authority, &settings);
    client.start(site);
    (client, gateway, dovecot)
}

#[test]
fn a_retry_of_what_awaits_its_reply_says_until_when_and_changes_nothing() {
    let site = Site::new();
    let (client, mut gateway, _dovecot) = patient(&site);
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

/// The value of a sample of `/metrics`.
fn sample(program: &Program, name: &str) -> Option<f64> {
    let answer = program.ask(&Request::get("/metrics")).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = answer.text();
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = values.next().map(|value| value.parse().unwrap());
    assert_eq!(values.next(), None, "{name} is there twice:\n{text}");
    value
}

#[test]
fn prometheus_sees_mail_wait_and_arrive() {
    let site = Site::new();
    let (client, mut gateway, dovecot) = patient(&site);
    let oldest = "lightpost_queue_oldest_message_timestamp_seconds";
    let accepted = "lightpost_queue_events_total{event=\"accepted\"}";
    let delivered = "lightpost_queue_events_total{event=\"delivered\"}";
    assert_eq!(sample(&client, accepted), Some(0.0));
    assert_eq!(sample(&client, oldest), None);

    let id = client.submit(ALICE, &[BOB], &corpus::message("first", b"x\r\n"));
    client.wait_status(&id, "delivered", SOON);
    dovecot.wait_mails(BOB, 1);
    for program in [&client, &gateway.program] {
        wait::until("the delivery is counted", SOON, || {
            sample(program, delivered) == Some(1.0)
        });
        assert_eq!(sample(program, accepted), Some(1.0));
        assert_eq!(sample(program, oldest), None);
        assert_eq!(
            sample(program, "lightpost_queue_recipients{status=\"delivered\"}"),
            Some(1.0)
        );
        assert_eq!(sample(program, "lightpost_queue_messages"), Some(0.0));
    }
    let server = format!("{{server=\"{}\"}}", dovecot.lmtp);
    assert_eq!(
        sample(&gateway.program, &format!("lightpost_server_up{server}")),
        Some(1.0)
    );
    let labels = format!("{{gateway=\"{}\"}}", gateway.uri_by_address());
    let reply = format!("lightpost_gateway_last_reply_timestamp_seconds{labels}");
    let first = sample(&client, &reply).unwrap();
    assert!(first > 1.7e9, "{first}");

    // One that has left and has no reply.
    gateway.program.process().signal(Signal::Stop);
    let id = client.submit(ALICE, &[BOB], &corpus::message("second", b"x\r\n"));
    client.wait_status(&id, "awaiting", SOON);
    assert_eq!(
        sample(&client, &format!("lightpost_gateway_up{labels}")),
        Some(1.0)
    );
    let flight = format!("lightpost_gateway_exchanges_in_flight{labels}");
    assert_eq!(sample(&client, &flight), Some(1.0));
    assert!(sample(&client, &format!("lightpost_gateway_octets_in_flight{labels}")) > Some(0.0));
    assert!(sample(&client, oldest) >= Some(first.floor() - 1.0));
    gateway.program.process().signal(Signal::Continue);
    client.wait_status(&id, "delivered", SOON);
    wait::until("nothing is in flight", SOON, || {
        sample(&client, &flight) == Some(0.0)
    });
    assert!(sample(&client, &reply) > Some(first));
}
