//! What the far end takes is agreed, not asked: a mail that needs more arrives converted and readable, or is refused at once and with its
//! code, by SMTP, through a real MTA, and by REST.

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
    http::Request,
    peer,
    pki::Authority,
    postfix::{self, Postfix},
    programs::{Fault, Program},
    smtp, wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
/// The same on a Moon with an umlaut.
const IDN: &str = "bob@xn--mnd-sna.example";
const SOON: Duration = Duration::from_secs(120);
/// Text that says more than ASCII can.
const TEXT: &str =
    "Gr\u{fc}\u{df}e vom Mond, \u{17e}lu\u{165}ou\u{10d}k\u{fd} k\u{16f}\u{148}, = und ein Rest \r\n";

struct World {
    client: Program,
    smtp: SocketAddr,
    dovecot: Dovecot,
    _gateway: Gateway,
    site: Site,
}

impl World {
    /// `path` are lines for the client's path.
    fn new(path: &str) -> Self {
        let site = Site::new();
        let authority = Authority::new(&site, "ca");
        let dovecot = Dovecot::start(&site, "dovecot", &[ALICE, BOB, IDN]);
        let domains = ["moon.example", "xn--mnd-sna.example"];
        let settings = GatewaySettings::new("gw1.moon.example", &domains, dovecot.lmtp);
        let gateway = Gateway::start(&site, &authority, &settings);
        let agent = site.socket();
        let mut settings = ClientSettings::discovering(site.socket(), &[]);
        for domain in domains {
            settings
                .routes
                .push((domain.into(), vec![gateway.uri_by_address()]));
        }
        settings.more = format!("\n[smtp]\nlisten = \"{agent}\"\n");
        settings.path = path.to_owned();
        let mut client = world::client(&site, &authority, &settings);
        client.start(&site);
        Self {
            client,
            smtp: agent,
            dovecot,
            _gateway: gateway,
            site,
        }
    }

    /// Earth's Postfix, with the snippet of `deploy/mta`.
    fn postfix(&self) -> Postfix {
        let sample = fs::read_to_string(peer::root().join("deploy/mta/postfix/smtp.transport")).unwrap();
        let address = format!("[{}]:{}", self.smtp.ip(), self.smtp.port());
        let fitted = sample.replace("[127.0.0.1]:8026", &address);
        assert_ne!(fitted, sample);
        let settings = postfix::Settings {
            name: "earth".into(),
            host: "mx.earth.example".into(),
            relayed: vec!["moon.example".into()],
            transports: fitted.lines().map(str::to_owned).collect(),
            ..postfix::Settings::default()
        };
        // Dovecot's LMTP would not take a bounce that speaks of a UTF-8 address.
        Postfix::start(&self.site, &settings.maildir(ALICE, &self.dovecot))
    }

    fn offer(&self, from: &str, to: &str, message: &[u8]) -> String {
        smtp::offer(self.smtp, from, &[to], message).unwrap()
    }
}

#[test]
fn eight_bit_text_arrives_readable_where_only_seven_bits_pass() {
    let world = World::new("accepts = [\"DSN\"]");
    let postfix = world.postfix();
    let message = corpus::message("readable", TEXT.as_bytes());
    smtp::hand_over(
        postfix.smtp,
        &format!("<{ALICE}> BODY=8BITMIME"),
        &[&format!("<{BOB}>")],
        &message,
    );
    let mails = world.dovecot.wait_mails(BOB, 1);
    let stored = String::from_utf8_lossy(&mails[0]).into_owned();
    assert!(mails[0].is_ascii(), "{stored}");
    for part in [
        "Content-Transfer-Encoding: quoted-printable\r\n",
        "X-MIME-Autoconverted: from 8bit to quoted-printable\r\n by relay.earth.example id ",
        "Subject: readable\r\n",
    ] {
        assert!(stored.contains(part), "{part:?} is not in:\n{stored}");
    }
    // Decoded by a program that is not ours.
    let decoded = world.dovecot.decoded(BOB, "1");
    assert_eq!(String::from_utf8_lossy(&decoded[0]), TEXT);
}

#[test]
fn the_parts_of_a_mail_arrive_as_they_were_sent() {
    let world = World::new("accepts = []\nmax_line = 998");
    let long = "x".repeat(5000) + "\r\n";
    let noise = corpus::eight_bit();
    let message = [
        &b"From: Alice <alice@earth.example>\r\nTo: Bob <bob@moon.example>\r\nSubject: parts\r\nMessage-ID: <parts@earth.example>\r\n\
           Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"a b\"\r\n\
           Content-Transfer-Encoding: 8bit\r\n\r\n--a b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"[..],
        TEXT.as_bytes(),
        b"\r\n--a b\r\nContent-Type: text/html\r\n\r\n",
        long.as_bytes(),
        b"\r\n--a b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
        &noise,
        b"\r\n--a b--\r\n",
    ]
    .concat();
    let said = world.offer(&format!("<{ALICE}> BODY=8BITMIME"), &format!("<{BOB}>"), &message);
    assert!(said.starts_with("250"), "{said}");
    let mails = world.dovecot.wait_mails(BOB, 1);
    assert!(mails[0].is_ascii());
    let longest = mails[0].split(|octet| *octet == b'\n').map(<[u8]>::len).max();
    assert!(longest.unwrap() <= 999, "{longest:?}");
    for (part, sent) in [("1", TEXT.as_bytes()), ("2", long.as_bytes()), ("3", &noise)] {
        assert_eq!(world.dovecot.decoded(BOB, part)[0], sent, "part {part}");
    }
}

#[test]
fn what_cannot_pass_is_refused_at_once_with_its_code() {
    let world = World::new("accepts = [\"DSN\"]\nmax_message = \"100kB\"");
    let (alice, bob) = (format!("<{ALICE}>"), format!("<{BOB}>"));
    let plain = corpus::message("plain", b"Hello\r\n");
    let large = corpus::message("large", &b"x\r\n".repeat(40_000));
    let header = "Subject: Gr\u{fc}\u{df}e\r\n\r\nHello\r\n".as_bytes();
    let signed = "MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n\u{fc}\r\n--b--\r\n".as_bytes();
    let utf8 = format!("<{ALICE}> SMTPUTF8");
    for (from, to, message, code) in [
        (&utf8, "<b\u{f6}b@moon.example>", &plain[..], "553 5.6.7 "),
        (
            &"<\u{e4}lice@earth.example> SMTPUTF8".to_owned(),
            &bob,
            &plain,
            "553 5.6.7 ",
        ),
        (&utf8, &bob, header, "554 5.6.9 "),
        (&alice, &bob, signed, "554 5.6.2 "),
        (&format!("<{ALICE}> SIZE=100001"), &bob, &plain, "552 5.3.4 "),
        (&alice, &bob, &large, "552 5.3.4 "),
    ] {
        let said = world.offer(from, to, message);
        assert!(said.starts_with(code), "{from} {to}: {said}, not {code}");
    }
    for (from, to, message, status, code) in [
        (&utf8, "b\u{f6}b@moon.example", &plain[..], 422, "5.6.7"),
        (&utf8, BOB, header, 422, "5.6.9"),
        (&alice, BOB, &large, 413, "5.3.4"),
    ] {
        let answer = world.client.ask(&Request::mail(from, &[to], message)).unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(code), "{}", answer.text());
    }
    assert!(world.client.messages().is_empty());
    // What the MTA before us makes of it: the sender knows at once.
    let postfix = world.postfix();
    smtp::hand_over(postfix.smtp, &utf8, &["<b\u{f6}b@moon.example>"], &plain);
    wait::until("the bounce", SOON, || !world.dovecot.on_disk(ALICE).is_empty());
    let bounce = String::from_utf8_lossy(&world.dovecot.wait_mails(ALICE, 1)[0]).into_owned();
    assert!(bounce.contains("5.6.7"), "{bounce}");
}

#[test]
fn a_domain_beyond_ascii_crosses_as_a_labels() {
    let world = World::new("accepts = [\"8BITMIME\", \"DSN\"]");
    let message = corpus::message("labels", TEXT.as_bytes());
    let said = world.offer(
        &format!("<{ALICE}> SMTPUTF8 BODY=8BITMIME"),
        "<bob@m\u{f6}nd.example>",
        &message,
    );
    assert!(said.starts_with("250"), "{said}");
    let mails = world.dovecot.wait_mails(IDN, 1);
    corpus::assert_only_trace_added(&mails[0], &message);
}

#[test]
fn a_large_mail_is_converted_in_little_memory() {
    const LINES: usize = 450_000;
    let mut world = World::new("accepts = []");
    let hand_in = |world: &World, subject: &str, body: &str| {
        let message = corpus::message(subject, body.as_bytes());
        let said = world.offer(&format!("<{ALICE}> BODY=8BITMIME"), &format!("<{BOB}>"), &message);
        assert!(said.starts_with("250"), "{said}");
        message.len() as u64
    };
    // What a mail of this size takes that is not converted, the database's cache in it.
    let line = format!("{}ue\r\n", "text ".repeat(12));
    hand_in(&world, "plain", &line.repeat(LINES));
    world.dovecot.wait_mails(BOB, 1);
    let before = world.client.process().peak_memory();
    let line = line.replace("ue", "\u{fc}");
    let body = line.repeat(LINES);
    let size = hand_in(&world, "large", &body);
    let after = world.client.process().peak_memory();
    println!("{size} octets: peak memory {before} octets without and {after} octets with conversion");
    assert!(
        size > 25_000_000 && after - before < size / 2,
        "{before}, then {after}"
    );
    let stored = world.dovecot.wait_mails(BOB, 2);
    assert!(stored.iter().all(|mail| mail.is_ascii()));
    let decoded = world.dovecot.decoded(BOB, "1");
    assert!(decoded.iter().any(|part| part == body.as_bytes()));
}

/// Killed on entering the writes of a mail's way (stored, claimed, about to leave, answered), with another agreement in each life: what the gateway
/// may have already is the same object again, which it recognises.
#[test]
fn what_may_have_arrived_is_repeated_as_it_was_whatever_is_agreed_since() {
    const AGREEMENTS: [&str; 2] = ["accepts = [\"8BITMIME\", \"DSN\"]", "accepts = []"];
    /// A mail alone takes about fifty. Before the last of them the gateway has it, and the client does not know.
    const WRITES: std::ops::RangeInclusive<u32> = 21..=70;
    let mut world = World::new(AGREEMENTS[0]);
    let file = world.client.configuration.clone();
    let mut subjects = Vec::new();
    for nth in WRITES {
        let fault = Fault::new("pwrite64", nth);
        // Once this one is there, the writes of the start are over.
        let before = format!("before-{nth}");
        let message = corpus::message(&before, b"Hello\r\n");
        let id = world.client.submit(&format!("<{ALICE}>"), &[BOB], &message);
        world.client.wait_status(&id, "delivered", SOON);
        subjects.push(before);
        let tracer = world.client.fault_from_now(&world.site, fault, None);
        let subject = format!("agreed-{nth}");
        let message = corpus::message(&subject, b"Hello\r\n");
        let from = format!("<{ALICE}> RET=HDRS ENVID=7");
        let request = Request::mail(&from, &[&format!("<{BOB}> NOTIFY=FAILURE")], &message)
            .header("Idempotency-Key", &format!("\"{subject}\""));
        let answer = world.client.ask(&request);
        // There may be fewer.
        wait::until("the end of the client or of the mail's way", SOON, || {
            world.client.unfinished().is_none_or(|left| left == 0)
        });
        world.client.kill();
        drop(tracer);
        let text = fs::read_to_string(&file).unwrap();
        let (now, then) = (AGREEMENTS[(nth as usize + 1) % 2], AGREEMENTS[nth as usize % 2]);
        assert!(text.contains(now));
        fs::write(&file, text.replace(now, then)).unwrap();
        world.client.start(&world.site);
        if answer.is_err() {
            let answer = world.client.ask(&request).unwrap();
            assert_eq!(answer.status, 202, "{}", answer.text());
        }
        subjects.push(subject);
    }
    let mails = world.dovecot.wait_mails(BOB, subjects.len());
    for subject in &subjects {
        corpus::find(&mails, subject);
    }
    wait::until("the client knows of every mail", SOON, || {
        world.client.unfinished() == Some(0)
    });
    let messages = world.client.messages();
    let repeated = messages.iter().filter(|one| {
        let message = world.client.message(one["id"].as_str().unwrap());
        let history = message["history"].as_array().unwrap();
        history.iter().any(|event| event["kind"] == "resent")
    });
    assert!(repeated.count() >= 2, "nothing was under way: {messages:#?}");
}
