//! What is refused on Earth: users that the far side does not know, and what exceeds a day's quota.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{net::SocketAddr, path::Path, time::Duration};

use lightpost_tests::{
    Site, corpus,
    http::{Answer, Request},
    pki::Authority,
    programs::{self, Program},
    smtp, wait,
    world::{self, ClientSettings},
};

const ALICE: &str = "alice@earth.example";
const BOB: &str = "bob@moon.example";
const SOON: Duration = Duration::from_secs(60);

/// A client with a listener for SMTP, whose gateway does not exist; `route` are lines for its route, `tables` follow it.
fn client(site: &Site, route: &str, tables: &str) -> (Program, SocketAddr) {
    let authority = Authority::new(site, "ca");
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    let nowhere = format!("https://{}/inboundmail", site.socket());
    settings.routes.push(("moon.example".into(), vec![nowhere]));
    let address = site.socket();
    settings.more = format!("{route}\n[smtp]\nlisten = \"{address}\"\n{tables}");
    let mut client = world::client(site, &authority, &settings);
    client.start(site);
    (client, address)
}

fn mail(size: usize) -> Vec<u8> {
    corpus::attachment("limits", size)
}

fn rest(client: &Program, from: &str, to: &[&str], size: usize) -> Answer {
    client.ask(&Request::mail(from, to, &mail(size))).unwrap()
}

fn by_smtp(address: SocketAddr, from: &str, to: &str, size: usize) -> String {
    smtp::offer(address, &format!("<{from}>"), &[&format!("<{to}>")], &mail(size)).unwrap()
}

#[test]
fn unknown_users_are_refused_at_once_and_the_list_follows_its_file() {
    let site = Site::new();
    let list = site.write("recipients", "bob\n");
    let (mut client, address) = client(&site, &format!("recipients = \"{}\"\n", list.display()), "");
    let carol = "carol@moon.example";
    let answer = rest(&client, ALICE, &[BOB, carol], 100);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let said = answer.json();
    assert_eq!(said["recipients"][0]["status"], "queued");
    assert_eq!(said["recipients"][1]["code"], "5.1.1");
    assert_eq!(rest(&client, ALICE, &[carol], 100).status, 422);
    let reply = by_smtp(address, ALICE, carol, 100);
    assert!(reply.starts_with("550 5.1.1 "), "{reply}");
    assert!(by_smtp(address, ALICE, "postmaster@moon.example", 100).starts_with("250 "));

    // No restart; a file with a mistake changes nothing.
    replace(&list, "bob\ncarol\n");
    wait::until("carol is known", SOON, || {
        by_smtp(address, ALICE, carol, 100).starts_with("250 ")
    });
    replace(&list, "dave\nnot a user\n");
    wait::until("the mistake is told", SOON, || {
        let log = client.process().output();
        log.contains("stays as it was; mend the file")
    });
    assert!(by_smtp(address, ALICE, carol, 100).starts_with("250 "));
    assert!(by_smtp(address, ALICE, "dave@moon.example", 100).starts_with("550 5.1.1 "));
}

/// As careful people and programs do it: whoever reads sees the old file or the new one.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

#[test]
fn a_spent_quota_refuses_for_the_day_and_outlives_a_kill() {
    let site = Site::new();
    let tables = "\n[[quota]]\nsender = \"*\"\nmessages = 2\n\n[[quota]]\nsender = \"earth.example\"\noctets = \"10kB\"\n\
                  exceeded = \"refuse\"\n\n[[quota]]\ndestination = \"moon.example\"\noctets = \"1MB\"\n";
    let (mut client, address) = client(&site, "", tables);
    // Quotas begin anew at midnight: should it pass meanwhile, another sender shows the same.
    for attempt in 0.. {
        let day = today();
        let sender = format!("sender-{attempt}@mars.example");
        // One by REST, one by SMTP, as one account.
        assert_eq!(rest(&client, &sender, &[BOB], 100).status, 202);
        assert!(by_smtp(address, &sender.to_uppercase(), BOB, 100).starts_with("250 "));
        client.kill();
        client.start(&site);
        let answer = rest(&client, &sender, &[BOB], 100);
        let reply = by_smtp(address, &sender, BOB, 100);
        if today() != day {
            continue;
        }
        assert_eq!(answer.status, 429, "{}", answer.text());
        assert_eq!(answer.json()["code"], "4.7.1");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=86_400).contains(&wait), "{wait}");
        assert!(reply.starts_with("452 4.7.1 "), "{reply}");
        break;
    }
    // The quota that fits best, and only that: refused for good, and by octets.
    assert_eq!(rest(&client, ALICE, &[BOB], 100).status, 202);
    let answer = rest(&client, ALICE, &[BOB], 20_000);
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(answer.json()["code"], "5.7.1");
    assert!(by_smtp(address, ALICE, BOB, 20_000).starts_with("550 5.7.1 "));
    assert_eq!(rest(&client, ALICE, &[BOB], 100).status, 202);
    assert!(by_smtp(address, ALICE, BOB, 100).starts_with("250 "));
    // A destination's quota counts for everyone, bounces included.
    let answer = rest(&client, "<>", &[BOB], 2_000_000);
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert_eq!(rest(&client, "<>", &[BOB], 100).status, 202);
    // Nothing that was refused is in the outbox.
    assert!(
        client
            .messages()
            .iter()
            .all(|message| message["size"].as_u64() < Some(10_000))
    );
}

#[allow(clippy::disallowed_methods, reason = "the host's day, as the program sees it")]
fn today() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs() / 86_400
}

#[test]
fn a_bad_list_is_named_with_its_line() {
    let site = Site::new();
    let list = site.write("recipients", "bob\n# a remark\ntwo words\n");
    let (client, _) = client(&site, "", "");
    let text = std::fs::read_to_string(&client.configuration).unwrap();
    let bad = text.replace(
        "[[route]]\n",
        &format!("[[route]]\nrecipients = \"{}\"\n", list.display()),
    );
    let bad = site.write("bad.toml", bad);
    let finished = programs::lightpost(&["check", "--config", &bad.display().to_string()], b"");
    assert_eq!(finished.status.code(), Some(78));
    let said = format!(
        "{}, line 3: \"two words\" is neither an address nor a local part",
        list.display()
    );
    assert!(finished.stderr.contains(&said), "{}", finished.stderr);
}
