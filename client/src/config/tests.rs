use std::fmt::Write;

use super::*;

/// The sample, with every place that only exists on an installed host replaced by one in `folder`.
fn sample(folder: &Path) -> String {
    let text = include_str!("../../../deploy/client.toml");
    for name in [
        "relay.pem",
        "relay.key",
        "mx.pem",
        "mx.key",
        "bundle.pem",
        "bundle.key",
    ] {
        std::fs::write(folder.join(name), "x").unwrap();
    }
    text.replace("/var/lib/lightpost/", &format!("{}/", folder.display()))
        .replace("/etc/lightpost/", &format!("{}/", folder.display()))
}

#[test]
fn the_sample_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::from_text(Path::new("client.toml"), &sample(folder.path())).unwrap();
    assert_eq!(config.name, "relay.earth.example");
    let beside = folder.path().join("outbox.db.sessions");
    assert_eq!(config.sessions, Some(beside));
    assert_eq!(config.ingest.max_message, 50_000_000);
    assert_eq!(config.routes.len(), 2);
    let moon = &config.paths["moon"];
    // 2 Mbit/s for the 2.82 s until a mail is answered.
    assert_eq!(moon.concurrency, 86);
    assert!(moon.reply(0) > Duration::from_secs(7200));
    assert!(config.local.target().is_ok());
    assert!(config.screen.is_none());
}

#[test]
fn every_key_of_the_sample_that_is_commented_out_is_right_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::new();
    // A key for seals cannot be made here; the end-to-end tests have one.
    let sample = sample(folder.path());
    let (before, after) = sample.split_once("# [screen.seal]").unwrap();
    let after = after.split_once("\n\n").unwrap().1;
    for line in before.lines().chain(after.lines()) {
        let bare = line.strip_prefix("# ").filter(|rest| {
            let key = |key: &str| key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
            rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(name, _)| key(name))
        });
        writeln!(text, "{}", bare.unwrap_or(line)).unwrap();
    }
    std::fs::write(folder.path().join("tokens"), "mta 0123456789\n").unwrap();
    std::fs::write(folder.path().join("moon.token"), "0123456789\n").unwrap();
    std::fs::write(folder.path().join("moon.recipients"), "bob\n").unwrap();
    std::fs::write(folder.path().join("ca.pem"), "x").unwrap();
    let config = Config::from_text(Path::new("client.toml"), &text).unwrap();
    assert_eq!(config.sessions, None);
    assert!(config.ingest.tokens.is_some() && config.paths["moon"].token.is_some());
    assert_eq!(config.routes[1].gateways.len(), 2);
    assert!(config.routes[0].recipients.is_some() && config.quotas.len() == 2);
    let screen = config.screen.as_ref().unwrap();
    assert_eq!(screen.trusted_relays.len(), 2);
    assert!(screen.authentication.as_ref().unwrap().enforce && screen.seal.is_none());
    assert_eq!(
        screen.rspamd.as_ref().unwrap().url,
        "http://127.0.0.1:11333/checkv2"
    );
    let smtp = config.smtp.as_ref().unwrap();
    assert!(smtp.identity.is_some() && smtp.client_trust.is_some() && smtp.clients.len() == 1);
    let lmtp = config.lmtp.as_ref().unwrap();
    assert!(lmtp.listen.is_some() && lmtp.socket.is_some());
    let shown = format!("{config:?}");
    assert!(!shown.contains("0123456789"), "{shown}");
}

#[test]
fn every_problem_has_line_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let good = sample(folder.path());
    let cases: [(&str, &str, &str); 19] = [
        (
            "127.0.0.1:8026",
            "0.0.0.0:8026",
            "whoever reaches it may send mail",
        ),
        (
            "# clients = [\"192.0.2.0/24\"]",
            "clients = [\"192.0.2.0/33\"]",
            "is not a network",
        ),
        ("# client_trust = ", "client_trust = ", "there is no TLS"),
        ("listen = \"127.0.0.1:8026\"", "", "no way for mail to come in"),
        ("max_errors = 20", "max_errors = 0", "is zero"),
        ("127.0.0.1:8025", "0.0.0.0:8025", "asks for no token"),
        (
            "protocol = \"smtp\"",
            "protocol = \"uucp\"",
            "write \"smtp\" or \"lmtp\"",
        ),
        (
            "address = \"127.0.0.1:25\"",
            "address = \"127.0.0.1\"",
            "has no port",
        ),
        ("relay.pem\"", "absent.pem\"", "cannot be read"),
        ("path = \"moon\"", "path = \"mars\"", "there is no path \"mars\""),
        (
            "\"*.moon.example\"\npath",
            "\"moon.example\"\npath",
            "has two routes",
        ),
        (
            "# gateways = [\"https",
            "gateways = [\"http",
            "the scheme is http",
        ),
        ("encoding = \"zstd\"", "encoding = \"gzip\"", "write \"zstd\""),
        (
            "lifetime = \"5d\"\n# \"zstd\"",
            "lifetime = \"5m\"\n# \"zstd\"",
            "is shorter than the time that one reply",
        ),
        ("# concurrency = 64", "concurrency = 0", "is zero"),
        (
            "name = \"relay.earth.example\"",
            "name = \"relay earth\"",
            "not a host name",
        ),
        ("max_recipients = 1000", "max_recipents = 1000", "not a known key"),
        (
            "= \"normalise\"",
            "= \"ignore\"",
            "write \"normalise\" or \"refuse\"",
        ),
        ("\nkey = \"", "\n# key = \"", "is missing although"),
    ];
    for (from, to, expected) in cases {
        std::fs::write(folder.path().join("ca.pem"), "x").unwrap();
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        let problems = Config::from_text(Path::new("client.toml"), &text).unwrap_err();
        assert!(problems.to_string().contains(expected), "{from}: {problems}");
        assert!(problems.problems.iter().all(|problem| !problem.remedy.is_empty()));
    }
}

#[test]
fn patterns() {
    for (text, expected) in [
        ("Moon.Example.", Some("moon.example")),
        ("*.moon.example", Some("*.moon.example")),
        ("*", Some("*")),
        ("bücher.example", Some("xn--bcher-kva.example")),
        ("a b", None),
        ("*.*.example", None),
        ("", None),
    ] {
        let pattern = Pattern::parse(text).map(|pattern| pattern.to_string());
        assert_eq!(pattern.as_deref(), expected, "{text}");
    }
}
