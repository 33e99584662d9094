//! The fixtures by themselves: a fault here is none of the programs under test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use lightpost_tests::{
    Site, corpus,
    dovecot::Dovecot,
    nsd::Nsd,
    postfix::{Postfix, Settings},
    smtp,
};

#[test]
fn nsd_serves_a_zone_with_uri_records() {
    let site = Site::new();
    Nsd::start(
        &site,
        "moon.example",
        "_bsmtp._https IN URI 10 1 \"https://gw1.moon.example:4433/inboundmail\"\ngw1 IN A 127.0.0.1",
    );
}

#[test]
fn postfix_hands_mail_to_dovecot_and_imap_shows_it() {
    let site = Site::new();
    let dovecot = Dovecot::start(&site, "dovecot", &["bob@moon.example", "jürgen@moon.example"]);
    let surface = Settings {
        name: "surface".into(),
        host: "mx.moon.example".into(),
        ..Settings::default()
    };
    let surface = Postfix::start(&site, &surface.lmtp("moon.example", &dovecot));
    let message = corpus::message("plain", &corpus::lone_dots());
    smtp::hand_over(
        surface.smtp,
        "<alice@earth.example>",
        &["<bob@moon.example>"],
        &message,
    );
    corpus::assert_only_trace_added(&dovecot.wait_mails("bob@moon.example", 1)[0], &message);

    let utf8 = Settings {
        name: "utf8".into(),
        host: "mx.moon.example".into(),
        ..Settings::default()
    };
    let utf8 = Postfix::start(&site, &utf8.maildir("jürgen@moon.example", &dovecot));
    smtp::hand_over(
        utf8.smtp,
        "<alice@earth.example> SMTPUTF8 BODY=8BITMIME",
        &["<jürgen@moon.example>"],
        &message,
    );
    corpus::assert_only_trace_added(&dovecot.wait_mails("jürgen@moon.example", 1)[0], &message);
}
