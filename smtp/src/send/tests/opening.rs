use std::{fmt::Write as _, sync::Arc};

use rustls::pki_types::PrivateKeyDer;

use super::*;

async fn open_with(text: &str, change: impl FnOnce(&mut Target)) -> (Server, Result<Session, SmtpError>) {
    let mut server = Server::start(script(text)).await;
    change(&mut server.target);
    let session = Session::open(&server.target, &Clock::system()).await;
    (server, session)
}

#[tokio::test]
async fn greetings() {
    let cases = [
        ("S: 220\nC: EHLO client.example\nS: 250", "ok"),
        ("S: 220-a\nS: 220 b\nC: EHLO\nS: 250-x\nS: 250 PIPELINING", "ok"),
        (
            "S: 220 a\nC: EHLO\nS: 502 what\nC: HELO client.example\nS: 250 a",
            "ok",
        ),
        (
            "S: 220 a\nC: EHLO\nS: 502 what\nC: HELO\nS: 550 no",
            "HELO refused: 550 no",
        ),
        ("S: 220 a\nC: EHLO\nS: 421 bye", "EHLO refused: 421 bye"),
        (
            "S: 554 5.7.1 no mail\nC: QUIT",
            "greeting refused: 554 5.7.1 no mail",
        ),
        ("S: 421 later", "greeting refused: 421 later"),
        ("S: 354 what", "greeting: unexpected reply 354 what"),
        ("S: SSH-2.0-x", "greeting: not a reply: \"SSH-2.0-x\""),
        (
            "S: 220 a\nC: EHLO\nS: 250-a\nS: 220 b",
            "EHLO: a reply that began with 250 goes on with \"220 b\"",
        ),
        ("", "connection lost greeting: closed by the server"),
        ("S: 220 a\nC: EHLO", "connection lost EHLO: closed by the server"),
    ];
    for (text, expected) in cases {
        let text = text.replace("\nC: QUIT", "");
        let (server, session) = open_with(&text, |_| {}).await;
        let got = session
            .as_ref()
            .map_or_else(ToString::to_string, |_| "ok".to_owned());
        let got = got
            .strip_prefix(&format!("{}: ", server.target.address))
            .unwrap_or(&got);
        assert_eq!(got, expected, "{text}");
        server.done().await;
    }
}

#[tokio::test]
async fn lmtp_knows_no_helo() {
    let (server, session) =
        open_with("S: 220 a\nC: LHLO\nS: 500 what", |t| t.protocol = Protocol::Lmtp).await;
    assert!(
        matches!(session, Err(SmtpError::Refused { during: "LHLO", .. })),
        "{session:?}"
    );
    server.done().await;
}

/// Replies without an end cost bounded memory.
#[tokio::test]
async fn oversized_replies() {
    let many = (0..101).fold(String::new(), |mut text, _| {
        let _ = writeln!(text, "S: 220-x");
        text
    });
    let wide = format!("S: 220-{}\n", "x".repeat(1900)).repeat(40);
    let cases = [
        (
            format!("S: 220 {}", "x".repeat(10_000)),
            "a reply line of more than 2048 octets",
        ),
        (many, "a reply of more than 100 lines"),
        (wide, "a reply of more than 65536 octets"),
    ];
    for (text, expected) in cases {
        let (server, session) = open_with(&format!("{text}\nHOLD"), |_| {}).await;
        let Err(SmtpError::Protocol { what, .. }) = session else {
            panic!("{session:?}");
        };
        assert!(what.contains(expected), "{what}");
        drop(server);
    }
}

#[tokio::test]
async fn a_silent_server() {
    let (server, session) = open_with("PAUSE\nHOLD", |_| {}).await;
    let error = session.unwrap_err().to_string();
    assert!(
        error.ends_with("connection lost greeting: no reply within 5s"),
        "{error}"
    );
    server.done().await;
}

#[tokio::test]
async fn nobody_listens() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(Vec::new()).await;
    let mut target = server.target.clone();
    target.address = Address::Tcp("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
    drop(listener);
    let error = Session::open(&target, &Clock::system()).await.unwrap_err();
    assert!(matches!(error, SmtpError::Connect { .. }), "{error}");
    target.address = Address::Unix("/nonexistent/lmtp".into());
    let error = Session::open(&target, &Clock::system()).await.unwrap_err();
    assert!(
        error.to_string().starts_with("/nonexistent/lmtp: cannot connect"),
        "{error}"
    );
}

#[tokio::test]
async fn unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lmtp");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"220 a\r\n250 b\r\n")
            .await
            .unwrap();
        stream
    });
    let target = Target {
        protocol: Protocol::Lmtp,
        address: Address::Unix(path),
        starttls: StartTls::Off,
        tls: None,
        helo: "client.example".to_owned(),
        reply_timeout: std::time::Duration::from_secs(5),
    };
    let session = Session::open(&target, &Clock::system()).await.unwrap();
    assert!(session.is_reusable() && !session.is_encrypted());
    server.await.unwrap();
}

/// A server's settings with a certificate for 127.0.0.1, a client's that trusts it, and one that trusts nobody.
fn tls() -> (
    Arc<rustls::ServerConfig>,
    Arc<rustls::ClientConfig>,
    Arc<rustls::ClientConfig>,
) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let client = |roots| {
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    (
        Arc::new(server),
        client(roots),
        client(rustls::RootCertStore::empty()),
    )
}

const OFFER: &str = "S: 220 a\nC: EHLO\nS: 250-a\nS: 250-DSN\nS: 250 STARTTLS\nC: STARTTLS\n";
const SECURE: &str = "C: EHLO client.example\nS: 250-a\nS: 250 PIPELINING\n
    C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 done";

#[tokio::test]
async fn starttls() {
    let (config, trusting, distrusting) = tls();
    for (mode, client) in [
        (StartTls::Required, trusting),
        (StartTls::Opportunistic, distrusting),
    ] {
        let mut steps = script(&format!("{OFFER}S: 220 go"));
        steps.push(Step::Tls(Arc::clone(&config)));
        steps.extend(script(SECURE));
        let mut server = Server::start(steps).await;
        server.target.starttls = mode;
        server.target.tls = Some(client);
        let mut session = open(&server).await;
        assert!(session.is_encrypted());
        // What was offered in clear is forgotten.
        assert!(!session.capabilities().dsn && session.capabilities().pipelining);
        assert_eq!(result(deliver(&mut session, 1).await), "+250");
        server.done().await;
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for() {
    let (config, _, distrusting) = tls();
    let mut steps = script(&format!("{OFFER}S: 220 go"));
    steps.push(Step::Tls(config));
    let mut server = Server::start(steps).await;
    server.target.starttls = StartTls::Required;
    server.target.tls = Some(distrusting);
    let error = Session::open(&server.target, &Clock::system()).await.unwrap_err();
    assert!(
        matches!(
            &error,
            SmtpError::Lost {
                during: "TLS handshake",
                ..
            }
        ),
        "{error}"
    );
    server.done().await;
}

/// Replies that an attacker put behind the 220 in clear do not count under TLS.
#[tokio::test]
async fn clear_text_behind_starttls_is_ignored() {
    let (config, trusting, _) = tls();
    let mut steps = script(OFFER);
    steps.push(Step::Send(b"220 go\r\n250-evil\r\n250 SIZE 1\r\n".to_vec()));
    steps.push(Step::Tls(config));
    steps.extend(script(SECURE));
    let mut server = Server::start(steps).await;
    server.target.starttls = StartTls::Required;
    server.target.tls = Some(trusting);
    let mut session = open(&server).await;
    assert_eq!(session.capabilities().size, None);
    assert_eq!(result(deliver(&mut session, 1).await), "+250");
    server.done().await;
}

#[tokio::test]
async fn starttls_that_fails() {
    let (_, client, _) = tls();
    let plain = "S: 220 a\nC: EHLO\nS: 250 a";
    let again = "NEXT\nS: 220 a\nC: EHLO\nS: 250 a";
    let cases = [
        (plain.to_owned(), StartTls::Opportunistic, "clear"),
        (
            plain.to_owned(),
            StartTls::Required,
            "STARTTLS is required, but the server does not offer it",
        ),
        (format!("{OFFER}S: 454 not now"), StartTls::Opportunistic, "clear"),
        (
            format!("{OFFER}S: 454 not now"),
            StartTls::Required,
            "STARTTLS refused: 454 not now",
        ),
        (
            format!("{OFFER}S: 220 go\n{again}"),
            StartTls::Opportunistic,
            "clear",
        ),
        (
            format!("{OFFER}S: 220 go\nS: not TLS at all\n{again}"),
            StartTls::Opportunistic,
            "clear",
        ),
    ];
    for (text, mode, expected) in cases {
        let (server, session) = open_with(&text, |target| {
            target.starttls = mode;
            target.tls = Some(Arc::clone(&client));
        })
        .await;
        let got = match &session {
            Ok(session) => if session.is_encrypted() {
                "encrypted"
            } else {
                "clear"
            }
            .to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(got.ends_with(expected), "{text}: {got}");
        server.done().await;
    }
}
