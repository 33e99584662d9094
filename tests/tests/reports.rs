//! What senders hear (RFC 3461): reports of delivery, of relaying and of delay reach the mailbox on Earth, through real MTAs, with the
//! parameters that the sender gave; and each once, whatever is killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{fs, net::SocketAddr, time::Duration};

use lightpost_tests::{
    Site, corpus,
    dovecot::Dovecot,
    peer,
    pki::Authority,
    postfix::{self, Postfix},
    programs::{Fault, Program},
    sites::{self, Changes},
    smtp, wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "alice@earth.example";
const CAROL: &str = "carol@earth.example";
const BOB: &str = "bob@moon.example";
const SENDER: &str = "<alice@earth.example> RET=HDRS ENVID=QQ+2B314159";
const SOON: Duration = Duration::from_secs(120);

/// What takes the mail behind the gateway.
#[derive(Clone, Copy, PartialEq)]
enum Surface {
    /// Dovecot by LMTP, which delivers.
    Mailbox,
    /// Postfix by SMTP, which reports by itself.
    Postfix,
    /// The same without DSN.
    PostfixWithoutDsn,
}

/// Both programs between two Postfixes, with Alice's and Bob's mailboxes.
struct World {
    client: Program,
    /// Where the client takes SMTP.
    smtp: SocketAddr,
    gateway: Gateway,
    earth: Postfix,
    _surface: Postfix,
    dovecot: Dovecot,
    site: Site,
}

impl World {
    /// `path` are lines for the client's path. The gateway is not started.
    fn new(surface: Surface, path: &str) -> Self {
        let site = Site::new();
        let authority = Authority::new(&site, "ca");
        let dovecot = Dovecot::start(&site, "dovecot", &[ALICE, CAROL, BOB]);
        let settings = postfix::Settings {
            name: "surface".into(),
            host: "mx.moon.example".into(),
            main: match surface {
                Surface::PostfixWithoutDsn => "smtpd_discard_ehlo_keywords = dsn\n".into(),
                Surface::Mailbox | Surface::Postfix => String::new(),
            },
            ..postfix::Settings::default()
        };
        // The way back to Earth is, for the test, next door.
        let settings = settings.maildir(BOB, &dovecot).lmtp("earth.example", &dovecot);
        let moon = Postfix::start(&site, &settings);
        let local = match surface {
            Surface::Mailbox => dovecot.lmtp,
            Surface::Postfix | Surface::PostfixWithoutDsn => moon.smtp,
        };
        let mut settings = GatewaySettings::new("gw1.moon.example", &["moon.example"], local);
        if surface == Surface::Mailbox {
            settings.notify = Some(moon.smtp);
        } else {
            settings.protocol = "smtp".into();
        }
        let gateway = Gateway::new(&site, &authority, &settings);
        let agent = site.socket();
        let earth = earth(&site, &dovecot, agent);
        let mut settings = ClientSettings::discovering(site.socket(), &[]);
        settings
            .routes
            .push(("moon.example".into(), vec![gateway.uri_by_address()]));
        settings.more = format!("\n[smtp]\nlisten = \"{agent}\"\n");
        settings.local = Some(earth.smtp);
        settings.path = path.to_owned();
        let mut client = world::client(&site, &authority, &settings);
        client.start(&site);
        Self {
            client,
            smtp: agent,
            gateway,
            earth,
            _surface: moon,
            dovecot,
            site,
        }
    }

    fn open(&mut self) {
        self.gateway.program.start(&self.site);
    }

    /// Alice sends a mail to Bob through Earth's Postfix.
    fn send(&self, subject: &str, notify: &str) -> Vec<u8> {
        let message = corpus::message(subject, b"Hello\r\n");
        let bob = format!("<{BOB}> {notify} ORCPT=rfc822;robert+2Bx@earth.example");
        smtp::hand_over(self.earth.smtp, SENDER, &[bob.trim()], &message);
        message
    }

    /// The one report that Alice has.
    #[track_caller]
    fn report(&self) -> String {
        let arrived = wait::holds_within(SOON, || !self.dovecot.on_disk(ALICE).is_empty());
        assert!(
            arrived,
            "no report; the client has:\n{:#?}\nEarth's Postfix:\n{}",
            self.client.messages(),
            self.earth.log()
        );
        let mails = self.dovecot.wait_mails(ALICE, 1);
        String::from_utf8_lossy(&mails[0]).into_owned()
    }
}

/// Earth's Postfix: mail for the Moon goes to the agent by the snippet of `deploy/mta`, mail for Alice into her mailbox.
fn earth(site: &Site, dovecot: &Dovecot, agent: SocketAddr) -> Postfix {
    let sample = fs::read_to_string(peer::root().join("deploy/mta/postfix/smtp.transport")).unwrap();
    let address = format!("[{}]:{}", agent.ip(), agent.port());
    let fitted = sample.replace("[127.0.0.1]:8026", &address);
    assert_ne!(fitted, sample);
    let settings = postfix::Settings {
        name: "earth".into(),
        host: "mx.earth.example".into(),
        relayed: vec!["moon.example".into()],
        transports: fitted.lines().map(str::to_owned).collect(),
        ..postfix::Settings::default()
    };
    Postfix::start(site, &settings.lmtp("earth.example", dovecot))
}

/// Each of `parts`, whatever the folding and the spaces behind the type.
#[track_caller]
fn assert_says(report: &str, parts: &[&str]) {
    let squeezed = report.to_lowercase().replace("rfc822; ", "rfc822;");
    for part in parts {
        assert!(
            squeezed.contains(&part.to_lowercase()),
            "{part:?} is not in:\n{report}"
        );
    }
}

#[test]
fn success_is_reported_as_delivered_by_the_gateway_before_a_mailbox() {
    let mut world = World::new(Surface::Mailbox, "");
    world.open();
    let message = world.send("delivered", "NOTIFY=SUCCESS,DELAY");
    corpus::assert_only_trace_added(&world.dovecot.wait_mails(BOB, 1)[0], &message);
    assert_says(
        &world.report(),
        &[
            "return-path: <>",
            "reporting-mta: dns; gw1.moon.example",
            "original-envelope-id: qq+314159",
            "original-recipient: rfc822;robert+x@earth.example",
            "final-recipient: rfc822;bob@moon.example",
            "action: delivered",
            "status: 2.",
            "content-type: text/rfc822-headers",
            "message-id: <delivered@earth.example>",
        ],
    );
}

#[test]
fn success_is_reported_by_the_far_mta_where_it_can() {
    let mut world = World::new(Surface::Postfix, "");
    world.open();
    world.send("reported", "NOTIFY=SUCCESS");
    let report = world.report();
    assert_says(
        &report,
        &[
            "reporting-mta: dns; mx.moon.example",
            "original-envelope-id: qq+314159",
            "original-recipient: rfc822;robert+x@earth.example",
            "action: delivered",
        ],
    );
}

#[test]
fn success_is_reported_as_relayed_where_the_far_mta_does_not_report() {
    let mut world = World::new(Surface::PostfixWithoutDsn, "");
    world.open();
    world.send("relayed", "NOTIFY=SUCCESS");
    assert_says(
        &world.report(),
        &[
            "reporting-mta: dns; gw1.moon.example",
            "original-envelope-id: qq+314159",
            "action: relayed",
            "remote-mta: dns; 127.",
        ],
    );
}

#[test]
fn a_delay_is_reported_once_although_the_client_is_killed() {
    let mut world = World::new(Surface::Mailbox, "delay_notice = \"1s\"");
    let message = world.send("late", "NOTIFY=DELAY,FAILURE");
    let report = world.report();
    assert_says(
        &report,
        &[
            "reporting-mta: dns; relay.earth.example",
            "original-envelope-id: qq+314159",
            "original-recipient: rfc822;robert+x@earth.example",
            "action: delayed",
            "will-retry-until: ",
            "message-id: <late@earth.example>",
        ],
    );
    world.client.kill();
    world.client.start(&world.site);
    world.open();
    corpus::assert_only_trace_added(&world.dovecot.wait_mails(BOB, 1)[0], &message);
    // What is told is that it is late; not that it no longer is.
    world.dovecot.wait_mails(ALICE, 1);
    let told = |message: &serde_json::Value| message["origin"] == "dsn";
    assert_eq!(world.client.messages().iter().filter(|one| told(one)).count(), 1);
}

/// Who did not ask hears of one mail for a destination, and the next life of the client knows that.
#[test]
fn who_was_told_of_a_delay_is_not_told_of_another_mail_after_the_client_was_killed() {
    // On a machine that stands still for a while notices are put off by the time of an exchange: a short one.
    let mut world = World::new(Surface::Mailbox, "delay_notice = \"1s\"\nreply_within = \"3s\"");
    let send = |world: &World, from: &str, subject: &str| {
        let message = corpus::message(subject, b"Hello\r\n");
        smtp::hand_over(world.smtp, &format!("<{from}>"), &[&format!("<{BOB}>")], &message);
    };
    send(&world, ALICE, "first");
    assert_says(
        &world.report(),
        &["action: delayed", "message-id: <first@earth.example>"],
    );
    world.client.kill();
    world.client.start(&world.site);
    send(&world, ALICE, "second");
    // The second mail's time is over before this one's.
    send(&world, CAROL, "third");
    let told = world.dovecot.wait_mails(CAROL, 1);
    assert!(corpus::contains(&told[0], b"<third@earth.example>"));
    let reports = world.client.messages();
    let reports = reports.iter().filter(|one| one["origin"] == "dsn");
    assert_eq!(reports.count(), 2, "{:#?}", world.client.messages());
    world.open();
    world.dovecot.wait_mails(BOB, 3);
    world.dovecot.wait_mails(ALICE, 1);
}

/// Killed on entering syncs around the time of the notice, which is stored with the note that it was, or neither is.
#[test]
fn a_delay_is_reported_once_wherever_the_client_is_killed() {
    const SYNCS: [u32; 4] = [1, 4, 7, 10];
    let mut world = World::new(Surface::Mailbox, "delay_notice = \"2s\"");
    for (before, nth) in SYNCS.into_iter().enumerate() {
        world.send(&format!("killed-{nth}"), "NOTIFY=DELAY");
        // Before it is acknowledged Postfix would send it again.
        let accepted = |message: &serde_json::Value| message["origin"] == "smtp";
        wait::until("the mail in the outbox", SOON, || {
            world.client.messages().iter().filter(|one| accepted(one)).count() > before
        });
        let fault = Fault::new("fdatasync", nth);
        let mut tracer = world.client.fault_from_now(&world.site, fault, None);
        tracer.wait_end(SOON);
        world.client.kill();
        world.client.start(&world.site);
        wait::until("the notice", SOON, || world.dovecot.on_disk(ALICE).len() > before);
    }
    world.open();
    world.dovecot.wait_mails(BOB, SYNCS.len());
    let reports = world.dovecot.wait_mails(ALICE, SYNCS.len());
    for nth in SYNCS {
        let subject = format!("killed-{nth}@earth.example");
        let about = |report: &&Vec<u8>| corpus::contains(report, subject.as_bytes());
        assert_eq!(reports.iter().filter(about).count(), 1, "{subject}");
    }
}

#[test]
fn each_relay_is_reported_where_the_sender_wants_the_trace() {
    let mut world = World::new(Surface::Mailbox, "");
    world.open();
    // Postfix does not know DELIVERBY.
    let message = corpus::message("traced", b"Hello\r\n");
    smtp::hand_over(
        world.smtp,
        &format!("<{ALICE}> BY=3600;RT"),
        &[&format!("<{BOB}>")],
        &message,
    );
    world.dovecot.wait_mails(BOB, 1);
    assert_says(
        &world.report(),
        &[
            "reporting-mta: dns; relay.earth.example",
            "deliver-by-date: ",
            "action: relayed",
        ],
    );
}

#[test]
fn mail_that_its_sender_wants_back_in_time_comes_back() {
    let world = World::new(Surface::Mailbox, "");
    let message = corpus::message("too-late", b"Hello\r\n");
    smtp::hand_over(
        world.smtp,
        &format!("<{ALICE}> BY=2;R RET=FULL"),
        &[&format!("<{BOB}>")],
        &message,
    );
    assert_says(
        &world.report(),
        &[
            "action: failed",
            "status: 5.4.7",
            "content-type: message/rfc822",
            "\r\n\r\nHello\r\n",
        ],
    );
}

#[test]
fn who_wants_to_know_hears_when_the_time_is_over_and_the_mail_goes_on() {
    let mut world = World::new(Surface::Mailbox, "");
    let message = corpus::message("in-time", b"Hello\r\n");
    smtp::hand_over(
        world.smtp,
        &format!("<{ALICE}> BY=2;N ENVID=7"),
        &[&format!("<{BOB}> NOTIFY=FAILURE")],
        &message,
    );
    assert_says(
        &world.report(),
        &[
            "reporting-mta: dns; relay.earth.example",
            "original-envelope-id: 7",
            "deliver-by-date: ",
            "action: delayed",
            "status: 4.4.7",
            "will-retry-until: ",
            "message-id: <in-time@earth.example>",
        ],
    );
    assert!(world.dovecot.on_disk(BOB).is_empty());
    world.open();
    corpus::assert_only_trace_added(&world.dovecot.wait_mails(BOB, 1)[0], &message);
    let told = |message: &serde_json::Value| message["origin"] == "dsn";
    assert_eq!(world.client.messages().iter().filter(|one| told(one)).count(), 1);
}

#[test]
fn a_report_about_international_addresses_crosses_into_the_mailbox_of_the_sender() {
    let site = Site::new();
    let changes = Changes {
        international: true,
        ..Changes::default()
    };
    let (earth, moon) = sites::start(&site, changes);
    let message = corpus::message("international", "Gr\u{fc}\u{df}e\r\n".as_bytes());
    smtp::hand_over(
        earth.mta.smtp,
        &format!(
            "<{}> SMTPUTF8 BODY=8BITMIME RET=FULL ENVID=7",
            sites::INTERNATIONAL
        ),
        &["<b\u{f6}b@moon.example> NOTIFY=FAILURE ORCPT=utf-8;b\\x{F6}b@moon.example"],
        &message,
    );
    let arrived = wait::holds_within(SOON, || !earth.dovecot.on_disk(sites::INTERNATIONAL).is_empty());
    assert!(
        arrived,
        "no report; Earth's Postfix:\n{}\nthe Moon's:\n{}",
        earth.mta.log(),
        moon.mta.log()
    );
    let report = earth.dovecot.wait_mails(sites::INTERNATIONAL, 1).remove(0);
    let report = String::from_utf8(report).unwrap();
    assert_says(
        &report,
        &[
            "return-path: <>",
            "to: <\u{e4}lice@earth.example>",
            "content-type: message/global-delivery-status",
            "reporting-mta: dns; gw1.moon.example",
            "original-envelope-id: 7",
            "original-recipient: utf-8; b\u{f6}b@moon.example",
            "final-recipient: utf-8; b\u{f6}b@moon.example",
            "action: failed",
            "status: 5.1.1",
            "content-type: message/global\r\n",
            "message-id: <international@earth.example>",
            "gr\u{fc}\u{df}e\r\n",
            // The way of the mail and the way back.
            "by relay.moon.example",
            "by gw1.earth.example",
            "by relay.earth.example",
        ],
    );
}
