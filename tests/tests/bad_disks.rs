//! A disk without room, a disk that cannot be written and a database that is damaged: nothing new is acknowledged, the programs say in
//! one line what is wrong, and what was acknowledged before is not lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    time::Duration,
};

use lightpost_tests::{
    Site, corpus,
    dovecot::Dovecot,
    full_disk::SmallDisk,
    http::{Answer, Request},
    pki::Authority,
    programs::Program,
    wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const SOON: Duration = Duration::from_secs(90);

fn client_for(site: &Site, authority: &Authority, uri: String, database: Option<String>) -> Program {
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    settings.routes.push(("moon.example".into(), vec![uri]));
    settings.database = database;
    world::client(site, authority, &settings)
}

fn hand_over(client: &Program, subject: &str) -> Answer {
    let message = corpus::attachment(subject, 100_000);
    client.ask(&Request::mail(ALICE, &[BOB], &message)).unwrap()
}

/// A 507 or 503 as it has to be.
#[track_caller]
fn assert_try_later(answer: &Answer) {
    assert!(
        [503, 507].contains(&answer.status),
        "{} {}",
        answer.status,
        answer.text()
    );
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{}",
        answer.text()
    );
    assert!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    let said = text.lines().any(|line| {
        let line = line.to_lowercase();
        words.iter().any(|word| line.contains(word))
    });
    assert!(said, "no line says what is wrong (one of {words:?}):\n{text}");
}

#[test]
fn a_full_outbox_disk_answers_507_and_loses_nothing() {
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
    let mut client = client_for(&site, &authority, gateway.uri_by_address(), Some(database));
    client.start(&site);

    let mut acknowledged = BTreeSet::new();
    let full = loop {
        let subject = format!("before-{}", acknowledged.len());
        let answer = hand_over(&client, &subject);
        if answer.status != 202 {
            break answer;
        }
        acknowledged.insert(subject);
        assert!(acknowledged.len() < 400, "the disk does not fill");
    };
    println!(
        "{} mails of 100 kB were accepted on a disk of 24 MB",
        acknowledged.len()
    );
    assert!(!acknowledged.is_empty());
    disk.fill();
    assert_try_later(&full);
    let full = hand_over(&client, "full");
    assert_eq!(full.status, 507, "short of room is 507");
    let detail = full.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains(" free, ") && detail.contains(" MiB wanted, "),
        "{detail}"
    );
    // Callers are not told of paths, the log and who asks for the program's health are.
    let place = format!("file system {}: ", disk.folder.display());
    assert!(!detail.contains(&place), "{detail}");
    let health = client.ask(&Request::get("/v1/health")).unwrap();
    assert_eq!(health.status, 507);
    for text in [health.text(), client.process().output()] {
        let line = text.lines().find(|line| line.contains(&place));
        let line = line.unwrap_or_else(|| panic!("{place} is not named:\n{text}"));
        assert!(line.contains("outbox.db is full"), "{line}");
        assert!(line.contains(" short); free some room"), "{line}");
        println!("{line}");
    }

    // Killed and started on the full disk, then there is room again.
    client.kill();
    disk.make_room();
    client.start(&site);
    let after = hand_over(&client, "after");
    assert_eq!(after.status, 202, "{}", after.text());
    acknowledged.insert("after".into());
    gateway.program.start(&site);
    let mails = dovecot.wait_mails(BOB, acknowledged.len());
    for subject in &acknowledged {
        corpus::find(&mails, subject);
    }
}

#[test]
fn a_full_inbox_disk_leaves_the_mail_on_earth_until_there_is_room() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let mut dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
    dovecot.kill();
    let disk = SmallDisk::mount(&site, "small", "48m");
    disk.take(24 << 20);
    let mut settings = GatewaySettings::new("gw1.moon.example", &["moon.example"], dovecot.lmtp);
    settings.database = Some(disk.folder.join("inbox.db").display().to_string());
    let mut gateway = Gateway::start(&site, &authority, &settings);
    let mut client = client_for(&site, &authority, gateway.uri_by_address(), None);
    client.start(&site);

    let mut subjects = Vec::new();
    let delivered = |client: &Program, id: &str| client.statuses(id) == ["delivered"];
    // Until the gateway has no room: with its mailbox server away, everything stays in the inbox.
    for number in 0.. {
        assert!(number < 400, "the disk does not fill");
        let subject = format!("mail-{number}");
        let id = client.submit(ALICE, &[BOB], &corpus::attachment(&subject, 100_000));
        subjects.push(subject);
        let mut refused = false;
        wait::until("delivered or tried in vain", SOON, || {
            let message = client.message(&id);
            refused = message["recipients"][0]["attempts"].as_u64() >= Some(1) && !delivered(&client, &id);
            refused || delivered(&client, &id)
        });
        if refused {
            break;
        }
    }
    disk.fill();
    let waiting = client.unfinished();
    println!(
        "the gateway's disk took {} mails of 100 kB; {waiting:?} wait on Earth",
        subjects.len() - 1
    );
    assert!(waiting >= Some(1));
    assert_says(&gateway.program.process().output(), &["is full (file system "]);

    disk.make_room();
    dovecot.start_again(&site);
    let mails = dovecot.wait_mails(BOB, subjects.len());
    for subject in &subjects {
        corpus::find(&mails, subject);
    }
}

#[test]
fn a_damaged_outbox_is_named_and_accepts_nothing() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let mut client = client_for(
        &site,
        &authority,
        format!("https://{}/inboundmail", site.socket()),
        None,
    );
    client.start(&site);
    for number in 0..20 {
        assert_eq!(hand_over(&client, &format!("mail-{number}")).status, 202);
    }
    client.stop();
    let database = site.path("client/outbox.db");
    let size = fs::metadata(&database).unwrap().len();
    let mut file = OpenOptions::new().write(true).open(&database).unwrap();
    // The first page stays, so that it still looks like a database.
    file.seek(SeekFrom::Start(4096)).unwrap();
    file.write_all(&vec![0xa5; usize::try_from(size - 4096).unwrap()])
        .unwrap();
    drop(file);
    assert_unusable(
        &site,
        &mut client,
        &["outbox.db", "damaged", "malformed", "corrupt"],
    );
}

#[test]
fn a_file_that_is_no_database_is_named_and_left_alone() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let text = vec![b'x'; 20_000];
    let database = site.write("client/outbox.db", &text);
    let mut client = client_for(
        &site,
        &authority,
        format!("https://{}/inboundmail", site.socket()),
        None,
    );
    assert_unusable(&site, &mut client, &["outbox.db"]);
    assert!(fs::read(database).unwrap() == text, "the file was changed");
}

#[test]
fn a_read_only_outbox_is_named_and_accepts_nothing() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let disk = SmallDisk::mount(&site, "small", "24m");
    let database = disk.folder.join("outbox.db").display().to_string();
    let mut client = client_for(
        &site,
        &authority,
        format!("https://{}/inboundmail", site.socket()),
        Some(database),
    );
    client.start(&site);
    let id = client.submit(ALICE, &[BOB], &corpus::message("kept", b"Hello\r\n"));
    client.stop();
    disk.set_read_only(true);
    assert_unusable(
        &site,
        &mut client,
        &["read-only", "readonly", "cannot be written"],
    );
    disk.set_read_only(false);
    client.start(&site);
    assert!(!client.statuses(&id).is_empty(), "the mail is still there");
}

/// The program either refuses to start or runs and answers 503 or 507; both times it says why in one line.
fn assert_unusable(site: &Site, client: &mut Program, words: &[&str]) {
    client.start_unready(site);
    let mut refusal = None;
    // A listener alone is no answer: it is bound before the database is opened.
    wait::until("an end or an answer", SOON, || {
        client.process().ended().is_some() || client.ask(&Request::get("/v1/health")).is_ok()
    });
    if client.process().ended().is_none() {
        let answer = hand_over(client, "unusable");
        assert_try_later(&answer);
        refusal = Some(answer.text());
    }
    let output = client.process().output();
    assert_says(&output, words);
    assert!(!output.contains("panicked"), "{output}");
    if let Some(status) = client.process().ended() {
        assert!(!status.success());
        println!("refuses to start: {}", output.lines().last().unwrap_or_default());
    }
    println!("{}", refusal.unwrap_or_default());
    client.stop();
}
