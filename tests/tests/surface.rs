//! Exim and OpenSMTPD as the MTA behind a gateway: mail through them into a mailbox, octet for octet, and what they refuse into the mailbox of the
//! sender.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{net::SocketAddr, time::Duration};

use lightpost_tests::{
    Site, corpus,
    dovecot::Dovecot,
    exim::Exim,
    opensmtpd::OpenSmtpd,
    pki::Authority,
    programs::Program,
    wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const NOBODY: &str = "nobody@moon.example";
const SOON: Duration = Duration::from_secs(120);

/// Both programs in front of an MTA that hands mail for both bodies to the mailboxes: Earth is, for the test, next door.
struct World {
    client: Program,
    gateway: Gateway,
}

impl World {
    fn new(site: &Site, mta: SocketAddr) -> Self {
        let authority = Authority::new(site, "ca");
        let mut settings = GatewaySettings::new("gw1.moon.example", &["moon.example"], mta);
        settings.protocol = "smtp".into();
        let gateway = Gateway::start(site, &authority, &settings);
        let mut settings = ClientSettings::discovering(site.socket(), &[]);
        settings
            .routes
            .push(("moon.example".into(), vec![gateway.uri_by_address()]));
        let mut client = world::client(site, &authority, &settings);
        client.start(site);
        Self { client, gateway }
    }

    /// Mails of several kinds arrive, and the gateway's history ends with what the MTA said.
    fn crosses(&self, dovecot: &Dovecot, log: &dyn Fn() -> String) {
        let eight_bit = corpus::message("eight-bit", &corpus::eight_bit());
        let dots = corpus::message("dots", &corpus::lone_dots());
        let large = corpus::attachment("large", 2 << 20);
        let from = format!("<{ALICE}> BODY=8BITMIME");
        let mails = [("eight-bit", eight_bit), ("dots", dots), ("large", large)];
        for (_, message) in &mails {
            self.client.submit(&from, &[BOB], message);
        }
        let arrived = wait::holds_within(SOON, || dovecot.on_disk(BOB).len() >= mails.len());
        assert!(
            arrived,
            "{BOB} has {} mails; the MTA:\n{}",
            dovecot.on_disk(BOB).len(),
            log()
        );
        let stored = dovecot.wait_mails(BOB, mails.len());
        for (subject, message) in &mails {
            corpus::assert_only_trace_added(corpus::find(&stored, subject), message);
        }
        wait::until("the MTA has taken everything", SOON, || {
            let messages = self.gateway.program.messages();
            let done = |one: &serde_json::Value| one["recipients"][0]["status"] == "delivered";
            messages.len() == mails.len() && messages.iter().all(done)
        });
        for message in self.gateway.program.messages() {
            let said = message["recipients"][0]["detail"].as_str().unwrap();
            assert!(said.contains("250"), "{message:#}");
        }
    }

    /// A mail for somebody who has no mailbox comes back, once, and says so.
    fn returns(&self, dovecot: &Dovecot, log: &dyn Fn() -> String) -> String {
        let message = corpus::message("unknown", b"Hello\r\n");
        self.client.submit(&format!("<{ALICE}>"), &[NOBODY], &message);
        let arrived = wait::holds_within(SOON, || !dovecot.on_disk(ALICE).is_empty());
        assert!(arrived, "nothing came back; the MTA:\n{}", log());
        let report = dovecot.wait_mails(ALICE, 1).remove(0);
        let report = String::from_utf8_lossy(&report).into_owned();
        for part in ["Return-Path: <>", NOBODY, "<unknown@earth.example>"] {
            assert!(report.contains(part), "{part:?} is not in:\n{report}");
        }
        report
    }
}

#[test]
fn exim_behind_the_gateway() {
    let site = Site::new();
    let dovecot = Dovecot::start(&site, "dovecot", &[ALICE, BOB]);
    let (ip, port) = (dovecot.lmtp.ip(), dovecot.lmtp.port());
    let exim = Exim::start(
        &site,
        &format!(
            "mailboxes:
  driver = manualroute
  domains = moon.example : earth.example
  transport = mailboxes
  route_list = * {ip}
  self = send
  no_more

# --- transports ---

mailboxes:
  driver = smtp
  protocol = lmtp
  port = {port}
"
        ),
    );
    let log = || exim.log();
    let world = World::new(&site, exim.smtp);
    world.crosses(&dovecot, &log);
    world.returns(&dovecot, &log);
    wait::until("Exim's queue is empty", SOON, || exim.queued() == 0);
}

#[test]
fn opensmtpd_behind_the_gateway() {
    let site = Site::new();
    let dovecot = Dovecot::start(&site, "dovecot", &[ALICE, BOB]);
    let smtpd = OpenSmtpd::start(
        &site,
        &format!(
            "action \"mailboxes\" relay host lmtp://{}
match from any for domain {{ \"moon.example\", \"earth.example\" }} action \"mailboxes\"",
            dovecot.lmtp
        ),
    );
    let log = || smtpd.log();
    let world = World::new(&site, smtpd.smtp);
    world.crosses(&dovecot, &log);
    world.returns(&dovecot, &log);
}
