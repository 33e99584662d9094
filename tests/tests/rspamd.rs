//! Mail that a real Rspamd looks at before it is acknowledged.

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
    http::Request,
    pki::Authority,
    process::Signal,
    programs::Program,
    rspamd::Rspamd,
    smtp, wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};
use serde_json::Value;

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const CAROL: &str = "carol@moon.example";
const SOON: Duration = Duration::from_secs(120);
/// The string that every filter takes for spam, in two pieces: this file is not.
const GTUBE: [&str; 2] = [
    "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE",
    "-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X",
];

struct World {
    client: Program,
    smtp: SocketAddr,
    rspamd: Rspamd,
    dovecot: Dovecot,
    gateway: Gateway,
    authority: Authority,
    site: Site,
}

impl World {
    fn new(settings: &str) -> Self {
        let site = Site::new();
        let authority = Authority::new(&site, "ca");
        let rspamd = Rspamd::start(&site);
        let dovecot = Dovecot::start(&site, "dovecot", &[BOB, CAROL]);
        let gateway = GatewaySettings::new("gw1.moon.example", &["moon.example"], dovecot.lmtp);
        let gateway = Gateway::start(&site, &authority, &gateway);
        let smtp = site.socket();
        let mut world = Self {
            client: world::client(&site, &authority, &ClientSettings::discovering(smtp, &[])),
            smtp,
            rspamd,
            dovecot,
            gateway,
            authority,
            site,
        };
        world.restart(settings);
        world
    }

    /// The client with other settings for Rspamd.
    fn restart(&mut self, settings: &str) {
        self.client.stop();
        let (smtp, rspamd) = (self.smtp, self.rspamd.address);
        let client = ClientSettings {
            routes: vec![("moon.example".into(), vec![self.gateway.uri_by_address()])],
            more: format!(
                "\n[smtp]\nlisten = \"{smtp}\"\n[screen.rspamd]\nurl = \"http://{rspamd}\"\n{settings}\n"
            ),
            ..ClientSettings::discovering(self.site.socket(), &[])
        };
        self.client = world::client(&self.site, &self.authority, &client);
        self.client.start(&self.site);
        wait::until("SMTP", SOON, || wait::listens(self.smtp));
    }

    fn offer(&self, message: &[u8]) -> String {
        let from = format!("<{ALICE}>");
        let to = [BOB, CAROL].map(|to| format!("<{to}>"));
        smtp::offer(self.smtp, &from, &[&to[0], &to[1]], message).unwrap()
    }

    /// What the history says of the look at a mail.
    fn notes(&self, id: &str) -> Vec<String> {
        let message = self.client.message(id);
        let history = message["history"].as_array().unwrap();
        let screened = history.iter().filter(|event| event["kind"] == "screened");
        screened
            .map(|event| event["detail"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[test]
fn what_rspamd_refuses_does_not_leave_earth() {
    let world = World::new("timeout = \"60s\"");
    let gtube = corpus::message("gtube", format!("{}\r\n", GTUBE.concat()).as_bytes());
    let reply = world.offer(&gtube);
    assert!(reply.starts_with("550 5.7.1 Gtube pattern"), "{reply}");
    let answer = world.client.ask(&Request::mail(ALICE, &[BOB], &gtube)).unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(answer.json()["code"], "5.7.1");
    assert_eq!(answer.json()["detail"], "Gtube pattern");

    // By an MTA on this machine: its trace field names the client.
    let mut later = b"Received: from out.example (mail.out.example [192.0.2.7])\r\n\tby mx.earth.example (Postfix) with ESMTP id 1;\r\n\tSun, 22 Nov 2026 12:00:00 +0000\r\n".to_vec();
    later.extend(corpus::message("later", b"Hello\r\n"));
    let reply = world.offer(&later);
    let told = format!("451 4.7.1 ip=192.0.2.7 helo=out.example from={ALICE} to={BOB} {CAROL} id=01");
    assert!(reply.starts_with(&told), "{reply}");
    let answer = world.client.ask(&Request::mail(ALICE, &[BOB], &later)).unwrap();
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    assert_eq!(world.client.messages(), Vec::<Value>::new());
}

#[test]
fn what_rspamd_lets_pass_arrives() {
    let world = World::new("timeout = \"60s\"\nmax_size = \"30MB\"");
    let ham = corpus::message("ham", &corpus::eight_bit());
    let id = world.client.submit(ALICE, &[BOB], &ham);
    corpus::assert_only_trace_added(&world.dovecot.wait_mails(BOB, 1)[0], &ham);
    assert_eq!(world.notes(&id), ["Rspamd: no action, 0.0 of 15.0"]);

    // A mark, on a small mail and on one that does not stay in memory.
    for (count, message) in [
        corpus::message("spam", &corpus::lone_dots()),
        corpus::attachment("spam", 20_000_000),
    ]
    .iter()
    .enumerate()
    {
        let id = world.client.submit(ALICE, &[CAROL], message);
        let mails = world.dovecot.wait_mails(CAROL, count + 1);
        let mail = mails
            .iter()
            .find(|mail| mail.ends_with(message))
            .expect("the mail unchanged");
        let added = String::from_utf8_lossy(&mail[..mail.len() - message.len()]).into_owned();
        assert_eq!(
            added.matches("\r\nX-Spam: Yes\r\nReceived: ").count(),
            1,
            "{added}"
        );
        assert_eq!(world.notes(&id)[0].split(',').next(), Some("Rspamd: add header"));
    }
    let id = world
        .client
        .submit(ALICE, &[BOB], &corpus::message("caution", b"Hello\r\n"));
    assert_eq!(world.client.statuses(&id), ["held"]);

    let id = world
        .client
        .submit(ALICE, &[BOB], &corpus::attachment("spam", 30_100_000));
    let note = &world.notes(&id)[0];
    assert!(note.starts_with("Rspamd was not asked: 30"), "{note}");
    world.client.wait_status(&id, "delivered", SOON);
}

#[test]
fn without_rspamd_mail_waits_or_passes_as_configured() {
    let mut world = World::new("timeout = \"2s\"");
    let mail = |subject: &str| corpus::message(subject, b"Hello\r\n");
    let from = |world: &World, subject: &str| world.client.submit(ALICE, &[BOB], &mail(subject));
    world.rspamd.process.signal(Signal::Stop);
    let reply = world.offer(&mail("silent"));
    assert!(
        reply.starts_with("451 4.3.0 the content cannot be checked now"),
        "{reply}"
    );
    world.restart("timeout = \"2s\"\nwhen_down = \"accept\"");
    let id = from(&world, "silent-too");
    assert_eq!(world.notes(&id), ["taken without Rspamd: no answer within 2s"]);

    world.rspamd.process.kill();
    wait::until("Rspamd is gone", SOON, || !wait::listens(world.rspamd.address));
    let id = from(&world, "gone");
    let note = &world.notes(&id)[0];
    assert!(
        note.starts_with("taken without Rspamd: ") && note.contains("refused"),
        "{note}"
    );
    world.restart("when_down = \"defer\"");
    let answer = world
        .client
        .ask(&Request::mail(ALICE, &[BOB], &mail("gone")))
        .unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(world.dovecot.wait_mails(BOB, 2).len(), 2);
}

/// The mail is streamed to Rspamd and written again with its mark: the agent's memory does not grow with it.
#[test]
fn a_large_mail_is_not_held_whole() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let rspamd = Rspamd::start(&site);
    let client = ClientSettings {
        routes: vec![(
            "moon.example".into(),
            vec!["https://127.0.0.1:1/inboundmail".into()],
        )],
        ingest: "max_message = \"100MB\"\n".into(),
        more: format!(
            "\n[screen.rspamd]\nurl = \"http://{}\"\nmax_size = \"100MB\"\ntimeout = \"5m\"\n",
            rspamd.address
        ),
        ..ClientSettings::discovering(site.socket(), &[])
    };
    let mut client = world::client(&site, &authority, &client);
    client.start(&site);
    let before = client.process().peak_memory();
    let message = corpus::attachment("spam", 95_000_000);
    let id = client.submit(ALICE, &[BOB], &message);
    let grown = client.process().peak_memory() - before;
    // The database's share is three quarters of what is measured: 81 MB.
    assert!(grown < 120_000_000, "{grown} octets more");
    let stored = client.message(&id)["size"].as_u64().unwrap();
    assert!(
        stored > message.len() as u64 + "X-Spam: Yes\r\n".len() as u64,
        "{stored}"
    );
}
