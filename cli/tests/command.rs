//! The command as a process: exit codes, streams, and the demo as a whole.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
    thread,
};

fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lightpost"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A command that ends without reading its input breaks the pipe; that is its right.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Reads one HTTP request with a body of known length.
fn request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let shown = String::from_utf8_lossy(&text).to_ascii_lowercase();
        if let Some((head, body)) = shown.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).unwrap();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            if body.len() >= length {
                return String::from_utf8(text).unwrap();
            }
        }
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "the request was cut off");
        text.extend_from_slice(&chunk[..read]);
    }
}

fn answer(stream: &mut TcpStream, status: &str, body: &str) {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
}

fn key(request: &str) -> String {
    let line = request.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("idempotency-key")
            .then(|| value.trim().to_owned())
    });
    line.unwrap()
}

#[test]
fn a_reader_that_went_away_is_no_news() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lightpost"))
        .args(["bsmtp", "decode", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let object = b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n";
    child.stdin.take().unwrap().write_all(object).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), errors(&output)), (74, String::new()));
}

#[test]
fn a_lost_connection_is_repeated_once_with_the_same_key() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        let one = request(&mut first);
        drop(first);
        let (mut second, _) = listener.accept().unwrap();
        let two = request(&mut second);
        answer(&mut second, "202 Accepted", "{}");
        (one, two)
    });
    let output = run(
        &["submit", "-f", "", "b@moon.example", "--url", &url],
        b"Subject: x\n\nx\n",
    );
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let (one, two) = server.join().unwrap();
    assert_eq!(key(&one), key(&two));
    assert!(
        two.starts_with("POST /v1/messages?from=%3C%3E&to=b%40moon.example HTTP/1.1\r\n"),
        "{two}"
    );
    assert!(two.ends_with("Subject: x\n\nx\n"), "{two}");
}

#[test]
fn exit_codes_of_submit() {
    for (status, body, expected) in [
        ("202 Accepted", "{}", 0),
        (
            "422 Unprocessable Entity",
            r#"{"detail":"no such route","code":"5.1.2"}"#,
            65,
        ),
        ("403 Forbidden", "{}", 77),
        ("503 Service Unavailable", "{}", 75),
        ("507 Insufficient Storage", "{}", 75),
        ("401 Unauthorized", "{}", 75),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            request(&mut stream);
            answer(&mut stream, status, body);
        });
        let output = run(
            &["submit", "-f", "a@earth.example", "b@moon.example", "--url", &url],
            b"x\n",
        );
        server.join().unwrap();
        assert_eq!(code(&output), expected, "{status}: {}", errors(&output));
    }
}

#[test]
fn mistakes_of_the_caller_keep_the_mail() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{closed}");
    for arguments in [
        &["submit", "-f", "a@b", "c@d", "--url", &nobody][..],
        &[
            "submit",
            "-f",
            "a@b",
            "c@d",
            "--config",
            "/nonexistent/client.toml",
        ],
        &["submit", "-f", "a@b", "c@d", "--url", "https://far.example"],
        &[
            "submit",
            "-f",
            "a@b",
            "c@d",
            "--url",
            &nobody,
            "--token-file",
            "/nonexistent",
        ],
        &["submit", "-f", "a@b", "--colour"],
        &["submit"],
    ] {
        let output = run(arguments, b"x\n");
        assert_eq!(code(&output), 75, "{arguments:?}: {}", errors(&output));
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(code(&run(&["nonsense"], b"")), 64);
}

#[test]
fn check_names_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.toml");
    std::fs::write(&file, "name = 1\ntypo = 2\n[ingest]\nlisten = \"nowhere\"\n").unwrap();
    let file = file.to_str().unwrap();
    let output = run(&["check", "--config", file], b"");
    assert_eq!(code(&output), 78);
    let text = errors(&output);
    for expected in [
        "client.toml:1: name",
        "client.toml:2: typo",
        "client.toml:4: ingest.listen",
        "database",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(text.lines().all(|line| line.starts_with("lightpost: ")), "{text}");
    let output = run(&["check", "--json", "--config", file], b"");
    assert_eq!(code(&output), 78);
    let document = json(&output);
    assert_eq!(document["ok"], false);
    assert!(document["problems"].as_array().unwrap().len() >= 4, "{document}");
}

/// A gateway's configuration whose chain ends with `roots` times the root, in a folder of its own.
fn gateway(roots: usize) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let pki = lightpost_sim::Pki::new(folder.path()).unwrap();
    let (certificate, key) = pki.issue("gw1.moon.example").unwrap();
    let root = std::fs::read_to_string(pki.authority()).unwrap();
    let chain = std::fs::read_to_string(&certificate).unwrap() + &root.repeat(roots);
    std::fs::write(&certificate, chain).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = folder.path().join("server.toml");
    let text = format!(
        "name = \"gw1.moon.example\"\ndatabase = \"inbox.db\"\n[listen]\nhttps = \"127.0.0.1:0\"\ncertificate = \"{}\"\nkey = \"{}\"\n\
         client_trust = \"ca.pem\"\n[accept]\ndomains = [\"moon.example\"]\n[[peer]]\nname = \"relay.earth.example\"\n[local]\n\
         address = \"127.0.0.1:24\"\n[path.mars]\none_way_min = \"182s\"\none_way_max = \"1342s\"\nrate_up = \"1Mbit/s\"\nrate_down = \"1Mbit/s\"\n",
        certificate.display(),
        key.display(),
    );
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    (folder, file)
}

#[test]
fn check_warns_of_an_open_key_and_of_a_chain_that_costs_a_round_trip() {
    let (folder, file) = gateway(0);
    let output = run(&["check", "--json", "--config", &file], b"");
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(json(&output)["warnings"], serde_json::json!([]));

    let key = folder.path().join("gw1.moon.example.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = run(&["check", "--json", "--config", &file], b"");
    assert_eq!(
        json(&output)["warnings"][0]["key"],
        "listen.key",
        "a key that everybody can read"
    );

    let (_folder, file) = gateway(20);
    let output = run(&["check", "--json", "--config", &file], b"");
    assert_eq!(code(&output), 0, "it works, only slower: {}", errors(&output));
    let warning = &json(&output)["warnings"][0];
    assert_eq!(warning["key"], "listen.certificate");
    assert!(
        warning["remedy"].as_str().unwrap().contains("leave out the root"),
        "{warning}"
    );
    let output = run(&["check", "--config", &file], b"");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let warning = text
        .lines()
        .find(|line| line.starts_with("warning: listen.certificate: "));
    let warning = warning.unwrap_or_else(|| panic!("{text}"));
    for expected in [
        "gw1.moon.example.pem",
        "21 certificates with",
        "5 light times instead of 3 (44m44s more on path mars)",
    ] {
        assert!(warning.contains(expected), "{expected}: {warning}");
    }
}

#[test]
fn check_looks_at_the_database_and_makes_nothing() {
    let (folder, file) = gateway(0);
    let output = run(&["check", "--config", &file], b"");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("inbox.db (made at the first start)"), "{text}");
    let made = std::fs::read_dir(folder.path()).unwrap();
    let made = made.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(made.filter(|name| name.starts_with("inbox")).count(), 0);

    // With what else is wrong.
    std::fs::write(
        folder.path().join("inbox.db"),
        "a text of some length\n".repeat(50),
    )
    .unwrap();
    std::fs::write(folder.path().join("gw1.moon.example.key"), "no key").unwrap();
    let output = run(&["check", "--config", &file], b"");
    assert_eq!(code(&output), 78);
    let text = errors(&output);
    assert_eq!(text.lines().count(), 2, "{text}");
    for expected in [
        "server.toml: database: ",
        "inbox.db is no queue of Lightpost: no SQLite database; name a file of its own",
        "holds no private key",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn check_refuses_a_certificate_that_cannot_be_used() {
    let (folder, file) = gateway(0);
    std::fs::write(folder.path().join("gw1.moon.example.key"), "no key").unwrap();
    let output = run(&["check", "--config", &file], b"");
    assert_eq!(code(&output), 78);
    assert!(
        errors(&output).contains("holds no private key"),
        "{}",
        errors(&output)
    );
}

#[test]
fn a_resolver_that_is_down_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.toml");
    // Taken, and nobody answers there.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let text = format!(
        "name = \"relay.earth.example\"\ndatabase = \"outbox.db\"\n[ingest]\nlisten = \"127.0.0.1:8025\"\n\
         [resolver]\nservers = [\"{address}\"]\ntimeout = \"500ms\"\n[local]\naddress = \"127.0.0.1:25\"\n\
         [path.moon]\none_way_min = \"1.2s\"\none_way_max = \"1.4s\"\nrate_up = \"1Mbit/s\"\nrate_down = \"1Mbit/s\"\n\
         [[route]]\ndomain = \"moon.example\"\npath = \"moon\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let output = run(&["discover", "moon.example", "--config", file], b"");
    assert_eq!(code(&output), 75, "{}", errors(&output));
    assert_eq!(
        errors(&output),
        format!(
            "lightpost: _bsmtp._https.moon.example cannot be looked up at {address}: no answer within 0.5s; mail for this domain waits until the \
             resolver answers; start it, or name another with `servers` in [resolver]\n"
        )
    );
}

#[test]
fn what_is_there_twice_and_a_light_time_that_is_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.toml");
    std::fs::write(
        &file,
        "name = \"a.example\"\n[ingest]\nlisten = \"127.0.0.1:8025\"\n\nlisten = \"[::1]:8025\"\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let output = run(&["check", "--config", file], b"");
    assert_eq!(code(&output), 78);
    assert_eq!(
        errors(&output),
        format!(
            "lightpost: {file}:5: ingest.listen: is there twice, first in line 3; remove one of the two\n"
        )
    );
    let output = run(&["demo", "--owlt", "999d"], b"");
    assert_eq!(code(&output), 64);
    let text = errors(&output);
    assert!(
        text.contains(
            "'999d' for '--owlt <TIME>': the demo takes as long as light does; write a day (1d) or less"
        ),
        "{text}"
    );
}

#[test]
fn bsmtp_there_and_back() {
    let mail = b"Subject: x\r\n\r\n.\r\n..\r\nend\r\n";
    let encoded = run(
        &[
            "bsmtp",
            "encode",
            "-f",
            "a@earth.example",
            "<b@moon.example> NOTIFY=NEVER",
        ],
        mail,
    );
    assert_eq!(code(&encoded), 0, "{}", errors(&encoded));
    let folder = tempfile::tempdir().unwrap();
    let bodies = folder.path().to_str().unwrap();
    let decoded = run(
        &["bsmtp", "decode", "--strict", "--json", "--bodies", bodies],
        &encoded.stdout,
    );
    assert_eq!(code(&decoded), 0, "{}", errors(&decoded));
    let document = json(&decoded);
    assert_eq!(
        document["to"],
        serde_json::json!(["<b@moon.example> NOTIFY=NEVER"])
    );
    assert_eq!(document["size"], mail.len());
    assert_eq!(std::fs::read(folder.path().join("1.eml")).unwrap(), mail);
    let cut = run(&["bsmtp", "decode"], &encoded.stdout[..encoded.stdout.len() - 10]);
    assert_eq!(code(&cut), 65);
}

#[test]
fn the_first_mail_of_the_demo_takes_three_light_times() {
    let output = run(&["demo", "--once", "--json", "--owlt", "1s"], b"");
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let facts = json(&output);
    let figure = |name: &str| facts[name].as_f64().unwrap_or_else(|| panic!("{name}: {facts}"));
    assert_eq!(figure("owlt_s"), 1.0);
    assert_eq!(facts["transport"], "quic");
    assert!((2.99..3.6).contains(&figure("gateway_owlt")), "{facts}");
    assert!(figure("accepted_s") <= figure("left_s") + 0.5, "{facts}");
    assert!(figure("mailbox_s") >= figure("gateway_s"), "{facts}");
    assert!(figure("reply_s") - figure("gateway_s") >= 0.99, "{facts}");
}

#[test]
fn by_bundle_the_first_mail_of_the_demo_takes_one_light_time() {
    let output = run(
        &[
            "demo",
            "--transport",
            "bundle",
            "--once",
            "--json",
            "--owlt",
            "2s",
        ],
        b"",
    );
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let facts = json(&output);
    let figure = |name: &str| facts[name].as_f64().unwrap_or_else(|| panic!("{name}: {facts}"));
    assert_eq!(facts["transport"], "bundle");
    assert!((1.0..2.0).contains(&figure("gateway_owlt")), "{facts}");
    assert!(figure("mailbox_s") >= figure("gateway_s"), "{facts}");
    assert!(figure("reply_s") - figure("gateway_s") >= 1.99, "{facts}");
    let output = run(&["demo", "--transport", "bundle", "--loss", "0.1", "--json"], b"");
    assert_eq!(code(&output), 64);
}
