//! Senders that are authenticated on Earth, results that are sealed there and verified by a gateway that asks no resolver.

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
    nsd::Nsd,
    pki::Authority,
    programs::Program,
    signatures::SigningKey,
    smtp, wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const SOON: Duration = Duration::from_secs(120);
/// Who may send for earth.example by SPF, and who may not.
const OURS: &str = "192.0.2.7";
const OTHER: &str = "198.51.100.9";
const FORGED: &str =
    "Authentication-Results: earth.example; spf=pass smtp.mailfrom=mallory.example;\r\n dmarc=pass\r\n";
/// Text that says more than ASCII can.
const TEXT: &str =
    "Gr\u{fc}\u{df}e vom Mond, \u{17e}lu\u{165}ou\u{10d}k\u{fd} k\u{16f}\u{148}, = und ein Rest \r\n";
const FOREIGN: &str = "Authentication-Results: mx.other.example; dkim=pass header.d=earth.example\r\n";

struct World {
    client: Program,
    smtp: SocketAddr,
    /// Lines for the client's path.
    path: String,
    /// What signs the mail of earth.example, and what seals.
    dkim: SigningKey,
    seal: SigningKey,
    dns: Nsd,
    dovecot: Dovecot,
    gateway: Gateway,
    authority: Authority,
    site: Site,
}

impl World {
    fn new(settings: &str) -> Self {
        let site = Site::new();
        let authority = Authority::new(&site, "ca");
        let dkim = SigningKey::new(&site, "mail", "earth.example");
        let seal = SigningKey::new(&site, "relay1", "earth.example");
        // psd=n: NSD is no resolver, which would say of _dmarc.example that it does not exist (RFC 9989 section 4.10).
        let records = format!(
            "{}\n@ IN TXT \"v=spf1 ip4:{OURS} -all\"\n_dmarc IN TXT \"v=DMARC1; p=reject; psd=n\"",
            dkim.in_zone()
        );
        let dns = Nsd::start(&site, "earth.example", &records);
        let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
        let keys = site.write("seals", format!("# Earth's\n{} {}\n", seal.owner(), seal.record));
        let gateway = GatewaySettings {
            more: format!("\n[seal]\nkeys = \"{}\"\nrequire = true\n", keys.display()),
            ..GatewaySettings::new("gw1.moon.example", &["moon.example"], dovecot.lmtp)
        };
        let gateway = Gateway::start(&site, &authority, &gateway);
        let smtp = site.socket();
        let mut world = Self {
            client: world::client(&site, &authority, &ClientSettings::discovering(smtp, &[])),
            smtp,
            path: String::new(),
            dkim,
            seal,
            dns,
            dovecot,
            gateway,
            authority,
            site,
        };
        world.restart(&format!("{settings}\n{}", world.sealing()));
        world
    }

    fn sealing(&self) -> String {
        format!(
            "[screen.seal]\nkey = \"{}\"\ndomain = \"earth.example\"\nselector = \"relay1\"\n",
            self.seal.file.display()
        )
    }

    /// The client with these lines for `[screen.authentication]` and what follows it; without any it looks at nothing.
    fn restart(&mut self, settings: &str) {
        self.client.stop();
        let smtp = self.smtp;
        let screen = match settings {
            "" => String::new(),
            settings => format!("[screen.authentication]\nauthserv_id = \"earth.example\"\n{settings}\n"),
        };
        let client = ClientSettings {
            routes: vec![("moon.example".into(), vec![self.gateway.uri_by_address()])],
            more: format!("\n[smtp]\nlisten = \"{smtp}\"\n{screen}"),
            path: self.path.clone(),
            ..ClientSettings::discovering(self.dns.address, &[])
        };
        self.client = world::client(&self.site, &self.authority, &client);
        self.client.start(&self.site);
        wait::until("SMTP", SOON, || wait::listens(self.smtp));
    }

    /// Offers a mail that the MTA of this host had from `client`.
    fn offer(&self, client: &str, mail: &[u8]) -> String {
        self.offer_from(&format!("<{ALICE}>"), client, mail)
    }

    /// The same with this argument of MAIL.
    fn offer_from(&self, sender: &str, client: &str, mail: &[u8]) -> String {
        let mut whole = format!(
            "Received: from out.earth.example (out.earth.example [{client}])\r\n\tby mx.earth.example (Postfix) with ESMTPS id 1;\r\n\
             \tSun, 22 Nov 2026 12:00:00 +0000\r\n"
        )
        .into_bytes();
        whole.extend_from_slice(mail);
        smtp::offer(self.smtp, sender, &[&format!("<{BOB}>")], &whole).unwrap()
    }
}

/// What the history says of the look at the last mail that a program has taken.
fn notes(program: &Program) -> Vec<String> {
    let messages = program.messages();
    let id = messages.last().expect("a mail")["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let message = program.message(&id);
    let history = message["history"].as_array().unwrap();
    let screened = history.iter().filter(|event| event["kind"] == "screened");
    screened
        .map(|event| event["detail"].as_str().unwrap().to_owned())
        .collect()
}

fn text(mail: &[u8]) -> String {
    String::from_utf8_lossy(mail).into_owned()
}

/// A mail from its seal on and without its traces: what somebody would send again.
fn again(mail: &[u8]) -> Vec<u8> {
    let start = mail.windows(9).position(|window| window == b"ARC-Seal:").unwrap();
    let mail = text(&mail[start..]);
    let (headers, body) = mail.split_once("\r\n\r\n").unwrap();
    let mut kept = Vec::new();
    let mut keeps = true;
    for line in headers.split("\r\n") {
        if !line.starts_with([' ', '\t']) {
            keeps = !line.starts_with("Received:");
        }
        if keeps {
            kept.push(line);
        }
    }
    format!("{}\r\n\r\n{body}", kept.join("\r\n")).into_bytes()
}

#[test]
fn results_cross_sealed_and_a_gateway_without_dns_trusts_them() {
    let mut world = World::new("");
    let plain = corpus::message("signed", b"Hello  Moon\r\n\r\n.\r\n\r\n\r\n");
    let signed = world.dkim.sign(&plain);
    let sent = [FORGED.as_bytes(), FOREIGN.as_bytes(), &signed].concat();
    let reply = world.offer(OURS, &sent);
    assert!(reply.starts_with("250"), "{reply}");
    let said = "spf=pass dkim=pass (earth.example) dmarc=pass";
    assert_eq!(notes(&world.client), [said]);

    let mail = world.dovecot.wait_mails(BOB, 1).remove(0);
    // The signature and all below it as they were; the forged results gone, somebody else's still there.
    assert!(mail.ends_with(&signed));
    let head = text(&mail[..mail.len() - signed.len()]);
    assert_eq!(
        head.matches("\r\nAuthentication-Results: earth.example;").count(),
        1,
        "{head}"
    );
    assert!(!head.contains("mallory") && head.contains(FOREIGN), "{head}");
    for result in ["spf=pass", "dkim=pass", "dmarc=pass header.from=earth.example"] {
        // Once in our field, once in the sealed one.
        assert_eq!(
            head.matches(result).count(),
            if result == "dkim=pass" { 3 } else { 2 },
            "{head}"
        );
    }
    let notes = notes(&world.gateway.program);
    assert!(
        notes[0].starts_with("sealed by earth.example (relay1): i=1; earth.example; spf=pass"),
        "{notes:?}"
    );
    assert!(
        world.seal.arc(&mail).starts_with("pass"),
        "{}",
        world.seal.arc(&mail)
    );

    // A mail that does not stay in memory.
    let large = world.dkim.sign(&corpus::attachment("large", 3_000_000));
    assert!(world.offer(OURS, &large).starts_with("250"));
    let mails = world.dovecot.wait_mails(BOB, 2);
    let large = mails.iter().find(|mail| mail.len() > 3_000_000).unwrap();
    assert!(world.seal.arc(large).starts_with("pass"));

    // By a relay that looks at nothing: what was sealed passes as it is, but not altered, and not without a seal.
    world.restart("");
    let sealed = again(&mail);
    let altered = text(&sealed).replace("Hello  Moon", "Hello, Moon").into_bytes();
    let retold = text(&sealed).replacen("dmarc=pass", "dmarc=fail", 1).into_bytes();
    assert_ne!(retold, sealed);
    assert!(world.seal.arc(&altered).starts_with("fail"));
    for (mail, why) in [
        (&altered, "Calculated body hash does not match"),
        (&retold, "the seal is not good"),
        (&plain, "there is no seal"),
    ] {
        let id = world.client.submit(ALICE, &[BOB], mail);
        world.client.wait_status(&id, "failed", SOON);
        let message = world.client.message(&id).to_string();
        assert!(message.contains("5.7.29") && message.contains(why), "{message}");
    }
    let id = world.client.submit(ALICE, &[BOB], &sealed);
    world.client.wait_status(&id, "delivered", SOON);
    assert_eq!(world.dovecot.wait_mails(BOB, 3).len(), 3);
}

#[test]
fn what_was_converted_leaves_with_a_seal_that_fits() {
    let mut world = World::new("");
    world.path = "accepts = [\"DSN\"]\nmax_line = 998".into();
    world.restart(&world.sealing());
    let said = "spf=pass dkim=pass (earth.example) dmarc=pass";
    let converted = "converted to quoted-printable for its path";
    let from = format!("<{ALICE}> BODY=8BITMIME");
    // One that stays in memory, one that does not.
    for (arrived, lines) in [(1, 1), (2, 60_000)] {
        let body = TEXT.repeat(lines);
        let signed = world
            .dkim
            .sign(&corpus::message(&format!("converted{lines}"), body.as_bytes()));
        let reply = world.offer_from(&from, OURS, &[FORGED.as_bytes(), &signed].concat());
        assert!(reply.starts_with("250"), "{reply}");
        assert_eq!(notes(&world.client), [said, converted]);
        // The gateway refuses what has no good seal.
        let mails = world.dovecot.wait_mails(BOB, arrived);
        let mail = mails
            .iter()
            .find(|mail| text(mail).contains(&format!("Subject: converted{lines}\r\n")))
            .unwrap();
        assert!(mail.is_ascii());
        let arc = world.seal.arc(mail);
        assert!(arc.starts_with("pass"), "{arc}");
        let head = text(mail).split("\r\n\r\n").next().unwrap().to_owned();
        assert!(!head.contains("mallory"), "{head}");
        for part in [
            "\r\nAuthentication-Results: earth.example;",
            "dkim=pass header.i=@earth.example",
            "X-MIME-Autoconverted: from 8bit to quoted-printable",
            "its DKIM signature was made before",
        ] {
            assert!(head.contains(part), "{part}: {head}");
        }
        let sealed = notes(&world.gateway.program);
        let told = "sealed by earth.example (relay1): i=1; earth.example; spf=pass";
        assert!(
            sealed[0].starts_with(told) && sealed[0].contains("dkim=pass"),
            "{sealed:?}"
        );
        let decoded = world.dovecot.decoded(BOB, "1");
        assert!(decoded.iter().any(|part| part == body.as_bytes()));
    }
    // The results name a sender as it crosses.
    let signed = world.dkim.sign(&corpus::message("labels", TEXT.as_bytes()));
    let from = "<alice@m\u{f6}nd.example> SMTPUTF8 BODY=8BITMIME";
    let reply = world.offer_from(from, OURS, &signed);
    assert!(reply.starts_with("250"), "{reply}");
    let mails = world.dovecot.wait_mails(BOB, 3);
    let mail = mails
        .iter()
        .find(|mail| text(mail).contains("Subject: labels"))
        .unwrap();
    assert!(mail.is_ascii() && text(mail).contains("smtp.mailfrom=alice@xn--mnd-sna.example"));
    assert!(world.seal.arc(mail).starts_with("pass"));
}

#[test]
fn mail_that_is_not_from_its_domain_does_not_leave() {
    let mut world = World::new("");
    let plain = corpus::message("forged", b"Hello\r\n");
    let signed = world.dkim.sign(&plain);
    let altered = text(&signed).replace("Hello", "Hullo").into_bytes();
    for (mail, result) in [(&plain, "dkim=none"), (&altered, "dkim=neutral (earth.example)")] {
        let reply = world.offer(OTHER, mail);
        let told = format!(
            "550 5.7.1 earth.example asks to refuse mail that is not from there: spf=fail {result} dmarc=fail"
        );
        assert!(reply.starts_with(&told), "{reply}");
    }
    assert!(world.client.messages().is_empty());
    // Its signature is good wherever it comes from; and who hands over on this host is nobody's client.
    assert!(world.offer(OTHER, &signed).starts_with("250"));
    assert_eq!(
        notes(&world.client),
        ["spf=fail dkim=pass (earth.example) dmarc=pass"]
    );
    world.client.submit(ALICE, &[BOB], &plain);
    let notes_of_local = notes(&world.client);
    assert_eq!(
        notes_of_local,
        ["spf=none (no trusted relay names the client) dkim=none dmarc=fail"]
    );

    world.restart(&format!("dmarc = \"observe\"\n{}", world.sealing()));
    assert!(world.offer(OTHER, &plain).starts_with("250"));
    for mail in world.dovecot.wait_mails(BOB, 3) {
        let mail = text(&mail);
        assert!(
            mail.contains("dmarc=fail") || mail.contains("dmarc=pass"),
            "{mail}"
        );
        assert!(world.seal.arc(mail.as_bytes()).starts_with("pass"));
    }

    // Without a resolver nobody is authenticated.
    world.dns.kill();
    world.restart(&format!("timeout = \"20s\"\n{}", world.sealing()));
    let reply = world.offer(OURS, &signed);
    assert!(
        reply.starts_with("451 4.7.0 the sender cannot be authenticated now"),
        "{reply}"
    );
    world.restart("when_down = \"accept\"");
    assert!(world.offer(OURS, &signed).starts_with("250"));
    let note = &notes(&world.client)[0];
    assert!(note.starts_with("taken without authentication: "), "{note}");
}
