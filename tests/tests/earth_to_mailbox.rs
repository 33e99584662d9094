//! From Earth's Postfix by pipe, or from curl by REST, over HTTP/3 to a gateway that NSD's URI records name, by LMTP or SMTP into a
//! mailbox, and read back by IMAP: not an octet may differ but for trace fields.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{fmt::Write as _, process::Command, time::Duration};

use lightpost_tests::{
    Site, corpus,
    dovecot::Dovecot,
    http,
    nsd::Nsd,
    peer,
    pki::Authority,
    postfix::{self, Postfix},
    process,
    programs::{self, Program},
    smtp, wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const BOB: &str = "bob@moon.example";
const EVE: &str = "eve@mars.example";
const UTF8: &str = "jürgen@utf8.moon.example";

/// Everything between Earth's MTA and the mailboxes of two bodies.
struct Worlds {
    client: Program,
    moon: Gateway,
    mars: Gateway,
    dovecot: Dovecot,
    _surface: Postfix,
    _nsd: Nsd,
    site: Site,
}

fn worlds() -> Worlds {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[BOB, EVE, UTF8]);
    let surface = postfix::Settings {
        name: "surface".into(),
        host: "mx.moon.example".into(),
        ..postfix::Settings::default()
    };
    let surface = Postfix::start(&site, &surface.maildir(UTF8, &dovecot));
    let mut settings = GatewaySettings::new(
        "gw1.moon.example",
        &["moon.example", "*.moon.example"],
        dovecot.lmtp,
    );
    write!(
        settings.more,
        "\n[[onward]]\ndomain = \"utf8.moon.example\"\naddress = \"{}\"\nprotocol = \"smtp\"\n",
        surface.smtp
    )
    .unwrap();
    let moon = Gateway::start(&site, &authority, &settings);
    let mars = GatewaySettings::new("gw.mars.example", &["mars.example"], dovecot.lmtp);
    let mars = Gateway::start(&site, &authority, &mars);
    let nobody = site.socket();
    let nsd = Nsd::start(
        &site,
        "example",
        &format!(
            "_bsmtp._https.moon IN URI 20 1 \"https://gw2.moon.example:{}/inboundmail\"
_bsmtp._https.moon IN URI 10 1 \"{moon_uri}\"
_bsmtp._https.utf8.moon IN URI 10 1 \"{moon_uri}\"
_bsmtp._https.mars IN URI 10 1 \"{mars_uri}\"
_bsmtp._https.mars IN URI 20 1 \"https://gw2.moon.example:{}/inboundmail\"
gw1.moon IN A {ip}
gw2.moon IN A {ip}
gw.mars IN A {ip}",
            nobody.port(),
            nobody.port(),
            moon_uri = moon.uri(),
            mars_uri = mars.uri(),
            ip = site.ip(),
        ),
    );
    let settings =
        ClientSettings::discovering(nsd.address, &["moon.example", "*.moon.example", "mars.example"]);
    let mut client = world::client(&site, &authority, &settings);
    client.start(&site);
    Worlds {
        client,
        moon,
        mars,
        dovecot,
        _surface: surface,
        _nsd: nsd,
        site,
    }
}

#[test]
fn postfix_hands_over_by_pipe_and_imap_shows_the_same_octets() {
    let worlds = worlds();
    let binary = programs::public_binary(&worlds.site);
    let mut settings = postfix::Settings {
        name: "earth".into(),
        host: "mx.earth.example".into(),
        services: world::postfix_pipe(&binary, &worlds.client),
        ..postfix::Settings::default()
    };
    for domain in ["moon.example", "utf8.moon.example", "mars.example"] {
        settings = settings.service(domain, "lightpost");
    }
    let earth = Postfix::start(&worlds.site, &settings);

    let alice = "<alice@earth.example> BODY=8BITMIME";
    let bob = format!("<{BOB}>");
    let mails = [
        (
            "eight-bit",
            alice,
            corpus::message("eight-bit", &corpus::eight_bit()),
        ),
        (
            "long-lines",
            alice,
            corpus::message("long-lines", &corpus::long_lines()),
        ),
        (
            "lone-dots",
            alice,
            corpus::message("lone-dots", &corpus::lone_dots()),
        ),
        ("empty", alice, corpus::message("empty", b"")),
        (
            "null-sender",
            "<>",
            corpus::message("null-sender", b"A report.\r\n"),
        ),
        ("attachment", alice, corpus::attachment("attachment", 10 << 20)),
    ];
    for (_, from, message) in &mails {
        smtp::hand_over(earth.smtp, from, &[&bob], message);
    }
    let both = corpus::message("both", b"To two bodies.\r\n");
    smtp::hand_over(earth.smtp, alice, &[&bob, &format!("<{EVE}>")], &both);
    let utf8 = corpus::message("utf8", "An Jürgen\r\n".as_bytes());
    let from = "<älice@earth.example> BODY=8BITMIME SMTPUTF8";
    smtp::hand_over(earth.smtp, from, &[&format!("<{UTF8}>")], &utf8);

    let arrived = worlds.dovecot.wait_mails(BOB, mails.len() + 1);
    for (subject, _, message) in &mails {
        corpus::assert_only_trace_added(corpus::find(&arrived, subject), message);
    }
    let null = corpus::find(&arrived, "null-sender");
    assert!(
        null.starts_with(b"Return-Path: <>"),
        "{}",
        String::from_utf8_lossy(&null[..200])
    );
    corpus::assert_only_trace_added(corpus::find(&arrived, "both"), &both);
    corpus::assert_only_trace_added(corpus::find(&worlds.dovecot.wait_mails(EVE, 1), "both"), &both);
    corpus::assert_only_trace_added(corpus::find(&worlds.dovecot.wait_mails(UTF8, 1), "utf8"), &utf8);

    wait::until(
        "Postfix has handed over everything",
        Duration::from_secs(30),
        || earth.queued() == 0,
    );
    assert!(!earth.log().contains("status=bounced"), "{}", earth.log());
    assert_eq!(worlds.moon.program.messages().len(), mails.len() + 2);
    assert_eq!(worlds.mars.program.messages().len(), 1);
}

#[test]
fn curl_hands_over_by_rest_and_imap_shows_the_same_octets() {
    let worlds = worlds();
    let curl = |from: &str, to: &[&str], message: &[u8]| {
        let mut url = format!(
            "http://{}/v1/messages?from={}",
            worlds.client.api,
            http::escaped(from)
        );
        for to in to {
            write!(url, "&to={}", http::escaped(to)).unwrap();
        }
        let mut command = Command::new(peer::program("/usr/bin/curl", "curl"));
        command.args([
            "-sS",
            "--fail-with-body",
            "-H",
            "Content-Type: message/rfc822",
            "--data-binary",
            "@-",
            &url,
        ]);
        let finished = process::run(&mut command, message);
        assert!(
            finished.status.success(),
            "{}{}",
            finished.stdout,
            finished.stderr
        );
    };
    let mails = [
        ("eight-bit", corpus::message("eight-bit", &corpus::eight_bit())),
        ("long-lines", corpus::message("long-lines", &corpus::long_lines())),
        ("lone-dots", corpus::message("lone-dots", &corpus::lone_dots())),
        ("empty", corpus::message("empty", b"")),
        ("attachment", corpus::attachment("attachment", 10 << 20)),
    ];
    for (_, message) in &mails {
        curl("<alice@earth.example> BODY=8BITMIME", &[BOB], message);
    }
    let null = corpus::message("null-sender", b"A report.\r\n");
    curl("<>", &[BOB, EVE], &null);
    let utf8 = corpus::message("utf8", "An Jürgen\r\n".as_bytes());
    curl("<älice@earth.example> SMTPUTF8 BODY=8BITMIME", &[UTF8], &utf8);

    let arrived = worlds.dovecot.wait_mails(BOB, mails.len() + 1);
    for (subject, message) in &mails {
        corpus::assert_only_trace_added(corpus::find(&arrived, subject), message);
    }
    corpus::assert_only_trace_added(corpus::find(&arrived, "null-sender"), &null);
    corpus::assert_only_trace_added(
        corpus::find(&worlds.dovecot.wait_mails(EVE, 1), "null-sender"),
        &null,
    );
    corpus::assert_only_trace_added(corpus::find(&worlds.dovecot.wait_mails(UTF8, 1), "utf8"), &utf8);
}
