//! SMTP and LMTP of the client on the wire: the published smuggling probes, a disk without room.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use lightpost_tests::{
    Site, corpus,
    dovecot::Dovecot,
    full_disk::SmallDisk,
    pki::Authority,
    postfix::{self, Postfix},
    programs::Program,
    smtp,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "<alice@earth.example>";
const BOB: &str = "bob@moon.example";

fn client(
    site: &Site,
    authority: &Authority,
    uri: String,
    database: Option<String>,
) -> (Program, SocketAddr) {
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    settings.routes.push(("moon.example".into(), vec![uri]));
    settings.database = database;
    let address = site.socket();
    settings.more = format!("\n[smtp]\nlisten = \"{address}\"\n");
    (world::client(site, authority, &settings), address)
}

/// False ends of data: CVE-2023-51764 (Postfix), CVE-2023-51765 (Sendmail), CVE-2023-51766 (Exim), and relatives.
const ENDS: [&str; 9] = [
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r.\r\n",
    "\r\n.\r",
    "\n\n.\r\n",
    "\r\n\0.\r\n",
    "\r\r\n.\r\r\n",
];

#[test]
fn the_published_probes_smuggle_nothing() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
    let gateway = GatewaySettings::new("gw1.moon.example", &["moon.example"], dovecot.lmtp);
    let gateway = Gateway::start(&site, &authority, &gateway);
    let (mut client, address) = client(&site, &authority, gateway.uri_by_address(), None);
    client.start(&site);
    for (number, end) in ENDS.iter().enumerate() {
        let smuggled = "MAIL FROM:<mallory@earth.example>\r\nRCPT TO:<bob@moon.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n";
        let input = format!(
            "EHLO probe.earth.example\r\nMAIL FROM:{ALICE}\r\nRCPT TO:<{BOB}>\r\nDATA\r\nMessage-ID: <probe-{number}@earth.example>\r\n\r\nfirst{end}{smuggled}.\r\nQUIT\r\n"
        );
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(input.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        assert_eq!(
            answers.matches("\r\n250 2.6.0 ").count(),
            1,
            "{}: {answers}",
            end.escape_debug()
        );
    }
    // One mail each, from Alice, at the client and in the mailbox behind the gateway.
    let messages = client.messages();
    assert_eq!(messages.len(), ENDS.len());
    assert!(
        messages
            .iter()
            .all(|message| message["sender"] == "alice@earth.example"),
        "{messages:?}"
    );
    let mails = dovecot.wait_mails(BOB, ENDS.len());
    for number in 0..ENDS.len() {
        let mail = corpus::find(&mails, &format!("probe-{number}"));
        assert!(corpus::contains(mail, b"Subject: smuggled"), "the text is gone");
    }
}

#[test]
fn a_full_disk_answers_452_and_loses_nothing() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
    let mut gateway = Gateway::new(
        &site,
        &authority,
        &GatewaySettings::new("gw1.moon.example", &["moon.example"], dovecot.lmtp),
    );
    let disk = SmallDisk::mount(&site, "small", "48m");
    disk.take(24 << 20);
    let database = disk.folder.join("outbox.db").display().to_string();
    let (mut client, address) = client(&site, &authority, gateway.uri_by_address(), Some(database));
    client.start(&site);
    let offer = |subject: &str, size: usize| {
        let message = corpus::attachment(subject, size);
        smtp::offer(address, ALICE, &[&format!("<{BOB}>")], &message).unwrap()
    };
    let mut acknowledged = Vec::new();
    let refusal = loop {
        // Small ones go in with their message, large ones are stored while they arrive.
        let number = acknowledged.len();
        let subject = format!("mail-{number}");
        let reply = offer(&subject, if number % 2 == 0 { 100_000 } else { 600_000 });
        if !reply.starts_with("250 ") {
            break reply;
        }
        acknowledged.push(subject);
        assert!(number < 400, "the disk does not fill");
    };
    println!("{} mails were accepted on a disk of 24 MB", acknowledged.len());
    assert!(refusal.starts_with("452 4.3.1 "), "{refusal}");
    assert!(!acknowledged.is_empty());
    disk.make_room();
    let reply = offer("after", 600_000);
    assert!(reply.starts_with("250 "), "{reply}");
    acknowledged.push("after".into());
    gateway.program.start(&site);
    let mails = dovecot.wait_mails(BOB, acknowledged.len());
    for subject in &acknowledged {
        corpus::find(&mails, subject);
    }
}

#[test]
fn postfix_starts_tls() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
    let gateway = GatewaySettings::new("gw1.moon.example", &["moon.example"], dovecot.lmtp);
    let gateway = Gateway::start(&site, &authority, &gateway);
    let identity = authority.issue(&site, "mx.relay.earth.example");
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    settings
        .routes
        .push(("moon.example".into(), vec![gateway.uri_by_address()]));
    let address = site.socket();
    settings.more = format!(
        "\n[smtp]\nlisten = \"{address}\"\ncertificate = \"{}\"\nkey = \"{}\"\nclient_trust = \"{}\"\n",
        identity.certificate.display(),
        identity.key.display(),
        authority.file.display()
    );
    let mut client = world::client(&site, &authority, &settings);
    client.start(&site);
    let earth = postfix::Settings {
        name: "earth".into(),
        host: "mx.earth.example".into(),
        relayed: vec!["moon.example".into()],
        transports: vec![format!(
            "moon.example secure:[{}]:{}",
            address.ip(),
            address.port()
        )],
        services: "tlsmgr unix - - n 1000? 1 tlsmgr\nsecure unix - - n - - smtp -o smtp_tls_security_level=encrypt\n".into(),
        ..postfix::Settings::default()
    };
    let earth = Postfix::start(&site, &earth);
    let message = corpus::message("secure", b"Hello\r\n");
    smtp::hand_over(earth.smtp, ALICE, &[&format!("<{BOB}>")], &message);
    let mails = dovecot.wait_mails(BOB, 1);
    corpus::assert_only_trace_added(&mails[0], &message);
    let from =
        b"Received: from mx.earth.example\r\n ([127.0.0.1])\r\n by relay.earth.example\r\n with ESMTPS\r\n";
    assert!(
        corpus::contains(&mails[0], from),
        "{}",
        String::from_utf8_lossy(&mails[0])
    );
}

#[test]
fn bare_line_ends_are_refused_where_that_is_asked_for() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    let nobody = format!("https://{}/inboundmail", site.socket());
    settings.routes.push(("moon.example".into(), vec![nobody]));
    settings.ingest = "bare_line_ends = \"refuse\"\n".into();
    let address = site.socket();
    settings.more = format!("\n[lmtp]\nlisten = \"{address}\"\n");
    let mut client = world::client(&site, &authority, &settings);
    client.start(&site);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mail = |body: &str| {
        format!("MAIL FROM:{ALICE}\r\nRCPT TO:<{BOB}>\r\nRCPT TO:<c@moon.example>\r\nDATA\r\n{body}\r\n.\r\n")
    };
    let input = format!("LHLO a\r\n{}{}QUIT\r\n", mail("a\nb"), mail("a\r\nb"));
    stream.write_all(input.as_bytes()).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    // LMTP: an answer for each recipient.
    assert_eq!(
        answers
            .matches("554 5.6.0 line 1, octet 1: a bare LF\r\n")
            .count(),
        2,
        "{answers}"
    );
    assert_eq!(
        answers.matches("250 2.6.0 on disk here as ").count(),
        2,
        "{answers}"
    );
    assert_eq!(client.messages().len(), 1);
}
