//! What the surface's MTA refuses for good comes back to the sender as a DSN through that MTA; a null reverse-path never does.

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
    postfix::{self, Postfix},
    programs::Program,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const POSTMASTER: &str = "postmaster@moon.example";

/// A surface Postfix that knows Bob and carries mail to Earth (whose mailboxes are, for the test, next door).
fn surface(site: &Site, dovecot: &Dovecot) -> Postfix {
    let settings = postfix::Settings {
        name: "surface".into(),
        host: "mx.moon.example".into(),
        ..postfix::Settings::default()
    };
    Postfix::start(
        site,
        &settings
            .maildir(BOB, dovecot)
            .maildir(POSTMASTER, dovecot)
            .lmtp("earth.example", dovecot),
    )
}

fn client_of(site: &Site, authority: &Authority, gateway: &Gateway) -> Program {
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    settings
        .routes
        .push(("moon.example".into(), vec![gateway.uri_by_address()]));
    let mut client = world::client(site, authority, &settings);
    client.start(site);
    client
}

#[track_caller]
fn assert_failure_report(report: &[u8], recipient: &str, about: &str) {
    let text = String::from_utf8_lossy(report);
    let lower = text.to_lowercase();
    for part in [
        "return-path: <>",
        "content-type: multipart/report",
        "report-type=delivery-status",
        "auto-submitted: auto-replied",
        "action: failed",
        "status: 5.1.1",
        &format!("final-recipient: rfc822;{recipient}"),
        about,
    ] {
        let squeezed = lower
            .replace("rfc822; ", "rfc822;")
            .replace("report-type=\"delivery-status\"", "report-type=delivery-status");
        assert!(squeezed.contains(part), "{part:?} is not in the report:\n{text}");
    }
}

fn refused_recipient(protocol: &str) {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[ALICE, BOB, POSTMASTER]);
    let surface = surface(&site, &dovecot);
    let local = if protocol == "smtp" {
        surface.smtp
    } else {
        dovecot.lmtp
    };
    let mut settings = GatewaySettings::new("gw1.moon.example", &["moon.example"], local);
    settings.protocol = protocol.into();
    settings.notify = (protocol == "lmtp").then_some(surface.smtp);
    let gateway = Gateway::start(&site, &authority, &settings);
    let client = client_of(&site, &authority, &gateway);

    let message = corpus::message("to-one-of-two", b"Hello\r\n");
    let id = client.submit(&format!("<{ALICE}>"), &[BOB, "nobody@moon.example"], &message);
    corpus::assert_only_trace_added(
        corpus::find(&dovecot.wait_mails(BOB, 1), "to-one-of-two"),
        &message,
    );
    let reports = dovecot.wait_mails(ALICE, 1);
    assert_failure_report(
        &reports[0],
        "nobody@moon.example",
        "<to-one-of-two@earth.example>",
    );
    client.wait_status(&id, "delivered", Duration::from_secs(10));

    // The null reverse-path: nothing to Alice or anybody else but the postmaster. Mail after it shows that it was dealt with.
    let null = corpus::message("from-nobody", b"A report\r\n");
    client.submit("<>", &["nobody@moon.example"], &null);
    let gone = |gateway: &Gateway| {
        gateway.program.messages().iter().any(|message| {
            message["sender"] == ""
                && message["recipients"][0]["address"]
                    .to_string()
                    .contains("nobody@")
                && message["recipients"][0]["status"] == "failed"
        })
    };
    lightpost_tests::wait::until(
        "the null sender's mail is refused",
        Duration::from_secs(30),
        || gone(&gateway),
    );
    client.submit(
        &format!("<{ALICE}>"),
        &["nobody@moon.example"],
        &corpus::message("after", b"Hello\r\n"),
    );
    let reports = dovecot.wait_mails(ALICE, 2);
    assert!(
        !reports
            .iter()
            .any(|report| corpus::contains(report, b"from-nobody"))
    );
}

#[test]
fn a_recipient_that_the_surface_postfix_refuses_by_smtp_comes_back_as_a_report() {
    refused_recipient("smtp");
}

#[test]
fn a_recipient_that_dovecot_refuses_by_lmtp_comes_back_through_the_mta_of_notify() {
    refused_recipient("lmtp");
}
