use std::sync::Arc;

use lightpost_clock::Clock;
use lightpost_config::Problems;
use lightpost_queue::{NewMessage, sqlite::SqliteStore};

use super::*;
use crate::{
    accept::{Source, Spooling},
    config::Config,
    discover::Discovery,
};

/// Three paths: one takes everything, one next to nothing, one is small.
const CONFIG: &str = r#"
name = "relay.earth.example"
database = "ROOT/outbox.db"
[ingest]
listen = "127.0.0.1:0"
[local]
address = "127.0.0.1:25"
[path.wide]
FIGURES
[path.narrow]
FIGURES
accepts = ["dsn"]
max_line = 998
convert = "CONVERT"
[path.small]
FIGURES
max_message = "1kB"
[[route]]
domain = "wide.example"
path = "wide"
[[route]]
domain = "narrow.example"
path = "narrow"
[[route]]
domain = "xn--mnd-sna.example"
path = "narrow"
[[route]]
domain = "small.example"
path = "small"
"#;
const FIGURES: &str = "one_way_min = \"1s\"\none_way_max = \"1s\"\noutage_max = \"0s\"\nrate_up = \"1Mbit/s\"\nrate_down = \"1Mbit/s\"\n";

struct World {
    acceptance: Acceptance,
    _folder: tempfile::TempDir,
}

fn config(root: &str, convert: &str) -> Result<Config, Problems> {
    let text = CONFIG
        .replace("ROOT", root)
        .replace("FIGURES", FIGURES)
        .replace("CONVERT", convert);
    Config::from_text(std::path::Path::new("client.toml"), &text)
}

impl World {
    async fn new(convert: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Arc::new(config(&folder.path().display().to_string(), convert).unwrap());
        let clock = Clock::system();
        let store = SqliteStore::open(&config.database, clock.clone()).await.unwrap();
        Self {
            acceptance: Acceptance {
                discovery: Arc::new(Discovery::new(&config, clock.clone()).unwrap()),
                store: Arc::new(store),
                config,
                screen: None,
                clock,
            },
            _folder: folder,
        }
    }

    /// What is said to a mail, or the message and its whole body.
    async fn offer(&self, from: &str, to: &[&str], body: &[u8]) -> Result<(NewMessage, Vec<u8>), String> {
        let sender: Sender = from.parse().unwrap();
        let mut draft = self.acceptance.draft();
        for recipient in to {
            let taken = self
                .acceptance
                .recipient(&mut draft, &sender, &recipient.parse().unwrap());
            taken.map_err(|refusal| format!("RCPT: {refusal}"))?;
        }
        let source = Source::rest();
        let mut spooling = Spooling::start(&self.acceptance, &draft, &source).await.unwrap();
        spooling.push(body).await.unwrap();
        let spooled = spooling.finish().await.unwrap();
        let fitted = self.acceptance.message(&draft, &source, &sender, spooled).await;
        let fitted = fitted.map_err(|refusal| format!("DATA: {refusal}"))?;
        let message = draft.message(&source, sender, fitted, None);
        let mut octets = Vec::new();
        match &message.body {
            lightpost_queue::NewBody::Inline(body) => octets.extend_from_slice(body),
            lightpost_queue::NewBody::Spooled(body) => loop {
                let piece = self
                    .acceptance
                    .store
                    .read_body(*body, octets.len() as u64)
                    .await
                    .unwrap();
                if piece.is_empty() {
                    break;
                }
                octets.extend_from_slice(&piece);
            },
        }
        assert_eq!(message.facts.size, octets.len() as u64);
        Ok((message, octets))
    }
}

const TEXT: &str =
    "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\u{fc}\u{df}e\r\n";

#[tokio::test]
async fn a_mail_is_converted_for_the_path_that_needs_it() {
    let world = World::new("dkim").await;
    let (_, kept) = world
        .offer("<a@b.example>", &["<c@wide.example>"], TEXT.as_bytes())
        .await
        .unwrap();
    assert!(kept.ends_with(TEXT.as_bytes()));
    let both = ["<c@wide.example>", "<c@narrow.example>"];
    let (message, converted) = world
        .offer("<a@b.example> BODY=8BITMIME", &both, TEXT.as_bytes())
        .await
        .unwrap();
    let text = String::from_utf8(converted).unwrap();
    assert!(
        text.starts_with("Received: ") && text.ends_with("\r\n\r\nGr=C3=BC=C3=9Fe\r\n"),
        "{text}"
    );
    let note = format!(
        "Content-Transfer-Encoding: quoted-printable\r\nX-MIME-Autoconverted: from 8bit to quoted-printable\r\n by relay.earth.example id {}\r\n\r\n",
        message.id
    );
    assert!(text.contains(&note), "{text}");
    assert!(!message.facts.eight_bit);
    assert_eq!(message.notes, ["converted to quoted-printable for its path"]);
}

#[tokio::test]
async fn a_large_mail_is_converted_in_pieces() {
    let world = World::new("dkim").await;
    let line = "Gr\u{fc}\u{df}e und l\u{e4}ngere Zeilen = Text\r\n";
    let body = format!(
        "Content-Type: text/plain; charset=utf-8\r\n\r\n{}",
        line.repeat(60_000)
    );
    let (message, converted) = world
        .offer("<a@b.example>", &["<c@narrow.example>"], body.as_bytes())
        .await
        .unwrap();
    assert!(converted.is_ascii() && message.facts.longest_line <= 998);
    assert!(matches!(message.body, lightpost_queue::NewBody::Spooled(_)));
    let encoded = "Gr=C3=BC=C3=9Fe und l=C3=A4ngere Zeilen =3D Text\r\n";
    assert!(
        String::from_utf8(converted)
            .unwrap()
            .ends_with(&encoded.repeat(60_000))
    );
}

#[tokio::test]
async fn signatures_are_kept_as_the_policy_says() {
    let signed = format!("DKIM-Signature: v=1\r\n{TEXT}");
    let part = "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\u{fc}\r\n--b--\r\n";
    for (convert, plain, dkim, parts) in [
        ("off", false, false, false),
        ("unsigned", true, false, false),
        ("dkim", true, true, false),
        ("all", true, true, true),
    ] {
        let world = World::new(convert).await;
        for (mail, taken) in [(TEXT, plain), (&signed, dkim), (part, parts)] {
            let said = world
                .offer("<a@b.example>", &["<c@narrow.example>"], mail.as_bytes())
                .await;
            match (said, taken) {
                (Ok((_, octets)), true) => {
                    let text = String::from_utf8(octets).unwrap();
                    let broken = text.contains("its DKIM signature was made before")
                        || text.contains("a signed or encrypted part was changed");
                    assert_eq!(broken, mail != TEXT, "{text}");
                }
                (Err(said), false) => assert!(
                    said.starts_with("DATA: 554 5.6.2 the mail has octets above 127"),
                    "{said}"
                ),
                (said, _) => panic!("{convert}: {mail}: {said:?}"),
            }
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_its_code() {
    let world = World::new("all").await;
    let long = format!("X: {}\r\n\r\nx\r\n", "y".repeat(1000));
    let large = "x".repeat(1000) + "\r\n";
    for (from, to, body, said) in [
        (
            "<\u{e4}@b.example> SMTPUTF8",
            "<c@narrow.example>",
            "x\r\n",
            "RCPT: 553 5.6.7 \u{e4}@b.example is not ASCII, and the path does not take SMTPUTF8",
        ),
        (
            "<a@b.example> SMTPUTF8",
            "<\u{e7}@narrow.example>",
            "x\r\n",
            "RCPT: 553 5.6.7 \u{e7}@narrow.example is not ASCII, and the path does not take SMTPUTF8",
        ),
        (
            "<a@b.example> SMTPUTF8",
            "<c@narrow.example>",
            "Subject: \u{fc}\r\n\r\nx\r\n",
            "DATA: 554 5.6.9 its header section is UTF-8, and the path does not take SMTPUTF8",
        ),
        (
            "<a@b.example>",
            "<c@narrow.example>",
            "Subject: \u{fc}\r\n\r\nx\r\n",
            "DATA: 554 5.6.9 the mail has octets above 127, the path does not take that, and the header section that begins in line 1 has \
             octets above 127",
        ),
        (
            "<a@b.example>",
            "<c@narrow.example>",
            "Content-Transfer-Encoding: base64\r\n\r\n\u{fc}\r\n",
            "DATA: 554 5.6.3 the mail has octets above 127, the path does not take that, and the part that begins in line 1 is encoded in \
             base64 and does not fit as it is",
        ),
        (
            "<a@b.example>",
            "<c@narrow.example>",
            &long,
            "DATA: 554 5.6.3 the mail has a line of 1003 octets, the path does not take that, and a header section has a line of 1003 octets",
        ),
        (
            "<a@b.example> SIZE=1001",
            "<c@small.example>",
            "x\r\n",
            "RCPT: 552 5.3.4 the mail has 1001 octets, its path takes 1000",
        ),
        (
            "<a@b.example> BY=60;R",
            "<c@narrow.example>",
            "x\r\n",
            "RCPT: 550 5.3.3 it is to be returned when its time is over, and the path does not take DELIVERBY",
        ),
    ] {
        assert_eq!(world.offer(from, &[to], body.as_bytes()).await.unwrap_err(), said);
    }
    let said = world
        .offer("<a@b.example>", &["<c@small.example>"], large.as_bytes())
        .await;
    assert!(said.unwrap_err().starts_with("DATA: 552 5.3.4 the mail has 1"));
    // Nothing that was refused stays behind.
    assert_eq!(world.acceptance.store.totals().await.unwrap().messages, 0);
}

#[tokio::test]
async fn domains_become_a_labels_where_the_local_part_is_ascii() {
    let world = World::new("dkim").await;
    let from = "<a@\u{e4}.example> SMTPUTF8";
    let to = "<c@m\u{f6}nd.example> NOTIFY=FAILURE";
    let (message, _) = world.offer(from, &[to], b"x\r\n").await.unwrap();
    assert_eq!(message.sender.to_string(), "<a@xn--4ca.example>");
    assert_eq!(
        message.recipients[0].recipient.to_string(),
        "<c@xn--mnd-sna.example> NOTIFY=FAILURE"
    );
    let (message, _) = world.offer(from, &["<c@wide.example>"], b"x\r\n").await.unwrap();
    assert_eq!(message.sender.to_string(), "<a@\u{e4}.example> SMTPUTF8");
}
