//! Dead gateways, dead and denying name servers, and a mailbox server that is away.

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
    nsd::Nsd,
    pki::Authority,
    postfix::{self, Postfix},
    programs::Program,
    wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const SOON: Duration = Duration::from_secs(60);

fn hello(subject: &str) -> Vec<u8> {
    corpus::message(subject, b"Hello\r\n")
}

/// Two records: priority 10 to `first`, 20 to `second`.
fn zone(site: &Site, first: &Gateway, second: &Gateway) -> Nsd {
    let ip = site.ip();
    Nsd::start(
        site,
        "moon.example",
        &format!(
            "$TTL 1\n_bsmtp._https IN URI 20 1 \"{}\"\n_bsmtp._https IN URI 10 1 \"{}\"\ngw1 IN A {ip}\ngw2 IN A {ip}\n\
             _bsmtp._https.nodata IN TXT \"no URI here\"",
            second.uri(),
            first.uri()
        ),
    )
}

fn gateways(site: &Site, authority: &Authority, dovecot: &Dovecot) -> [Gateway; 2] {
    ["gw1.moon.example", "gw2.moon.example"].map(|name| {
        Gateway::new(
            site,
            authority,
            &GatewaySettings::new(name, &["moon.example"], dovecot.lmtp),
        )
    })
}

fn started(site: &Site, authority: &Authority, settings: &ClientSettings) -> Program {
    let mut client = world::client(site, authority, settings);
    client.start(site);
    client
}

#[test]
fn the_second_gateway_serves_while_the_first_is_dead_and_the_first_when_it_is_back() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
    let [mut first, mut second] = gateways(&site, &authority, &dovecot);
    second.program.start(&site);
    let nsd = zone(&site, &first, &second);
    let client = started(
        &site,
        &authority,
        &ClientSettings::discovering(nsd.address, &["moon.example"]),
    );
    let watch = wait::Watch::start();
    let id = client.submit(ALICE, &[BOB], &hello("failover"));
    dovecot.wait_mails(BOB, 1);
    println!(
        "in the mailbox after {:?}, by the second gateway",
        watch.elapsed()
    );
    client.wait_status(&id, "delivered", SOON);
    assert!(
        client.message(&id).to_string().contains(&second.uri()),
        "{:#}",
        client.message(&id)
    );

    // Cold start: the first gateway alone is alive now.
    first.program.start(&site);
    second.program.kill();
    let id = client.submit(ALICE, &[BOB], &hello("back"));
    dovecot.wait_mails(BOB, 2);
    client.wait_status(&id, "delivered", SOON);
    assert_eq!(first.program.messages().len(), 1);
}

#[test]
fn the_last_known_answer_serves_while_the_name_server_is_dead_even_after_a_restart() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
    let [mut first, second] = gateways(&site, &authority, &dovecot);
    first.program.start(&site);
    let mut nsd = zone(&site, &first, &second);
    let mut client = started(
        &site,
        &authority,
        &ClientSettings::discovering(nsd.address, &["moon.example"]),
    );
    client.submit(ALICE, &[BOB], &hello("fresh"));
    dovecot.wait_mails(BOB, 1);

    nsd.kill();
    // The records' time to live is over.
    wait::pause(Duration::from_millis(1500));
    client.submit(ALICE, &[BOB], &hello("stale"));
    dovecot.wait_mails(BOB, 2);

    client.kill();
    client.start(&site);
    client.submit(ALICE, &[BOB], &hello("stale-from-disk"));
    corpus::find(&dovecot.wait_mails(BOB, 3), "stale-from-disk");
}

#[test]
fn a_domain_without_a_uri_record_comes_back_to_the_sender_through_earths_postfix() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[ALICE]);
    let [first, second] = gateways(&site, &authority, &dovecot);
    let nsd = zone(&site, &first, &second);
    let earth = postfix::Settings {
        name: "earth".into(),
        host: "mx.earth.example".into(),
        ..postfix::Settings::default()
    };
    let earth = Postfix::start(&site, &earth.lmtp("earth.example", &dovecot));
    let mut settings = ClientSettings::discovering(nsd.address, &["*.moon.example"]);
    settings.local = Some(earth.smtp);
    let client = started(&site, &authority, &settings);
    for (count, domain) in ["nxdomain.moon.example", "nodata.moon.example"]
        .iter()
        .enumerate()
    {
        let recipient = format!("bob@{domain}");
        let id = client.submit(ALICE, &[&recipient], &hello(domain));
        let reports = dovecot.wait_mails(ALICE, count + 1);
        let about = format!("<{domain}@earth.example>");
        let report = reports
            .iter()
            .find(|report| corpus::contains(report, about.as_bytes()));
        let report = String::from_utf8_lossy(report.expect("a report about the mail")).into_owned();
        for part in [
            "Status: 5.1.2",
            "Action: failed",
            &recipient,
            "multipart/report",
            "Return-Path: <>",
        ] {
            assert!(report.contains(part), "{part:?} is not in:\n{report}");
        }
        client.wait_status(&id, "failed", SOON);
    }

    // A null reverse-path gets no report: the one after it does.
    let id = client.submit("<>", &["bob@nxdomain.moon.example"], &hello("from-nobody"));
    client.wait_status(&id, "failed", SOON);
    client.submit(ALICE, &["bob@nxdomain.moon.example"], &hello("after"));
    let reports = dovecot.wait_mails(ALICE, 3);
    assert!(
        !reports
            .iter()
            .any(|report| corpus::contains(report, b"from-nobody"))
    );
}

#[test]
fn mail_waits_at_the_gateway_while_the_mailbox_server_is_down() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let mut dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
    let [mut first, second] = gateways(&site, &authority, &dovecot);
    first.program.start(&site);
    let nsd = zone(&site, &first, &second);
    let client = started(
        &site,
        &authority,
        &ClientSettings::discovering(nsd.address, &["moon.example"]),
    );
    dovecot.kill();
    let id = client.submit(ALICE, &[BOB], &hello("patient"));
    client.wait_status(&id, "delivered", SOON);
    assert_eq!(client.unfinished(), Some(0), "nothing waits on Earth");
    wait::until("a failed attempt in the gateway's history", SOON, || {
        let waiting = first.program.messages();
        waiting.len() == 1 && waiting[0]["recipients"][0]["attempts"].as_u64() >= Some(1)
    });
    assert_eq!(first.program.unfinished(), Some(1));

    // Over a restart of the gateway, too.
    first.program.kill();
    first.program.start(&site);
    dovecot.start_again(&site);
    let waiting = first.program.messages()[0]["id"].as_str().unwrap().to_owned();
    dovecot.wait_mails(BOB, 1);
    first.program.wait_status(&waiting, "delivered", SOON);
}
