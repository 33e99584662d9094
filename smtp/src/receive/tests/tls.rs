use lightpost_mail::{Envelope, lines::BodyFacts};
use rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::send::{Address, RecipientOutcome, Session as Sending, StartTls, Target};

/// A server's settings with a certificate for 127.0.0.1, and a client's that trusts it.
fn certificates() -> (Arc<ServerConfig>, Arc<rustls::ClientConfig>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// Serves one connection on TCP; where, and what is taken.
async fn served(tls: Arc<ServerConfig>) -> (u16, Arc<Keeper>) {
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let keeper = Arc::new(Keeper::default());
    let mut settings = settings(Protocol::Smtp);
    settings.tls = Some(tls);
    let (receiver, settings) = (keeper.clone(), Arc::new(settings));
    tokio::spawn(serve(
        Listener::Tcp(tcp),
        receiver,
        settings,
        Clock::system(),
        CancellationToken::new(),
    ));
    (port, keeper)
}

#[tokio::test]
async fn a_mail_comes_under_tls() {
    let (server, client) = certificates();
    let (port, keeper) = served(server).await;
    let target = Target {
        protocol: Protocol::Smtp,
        address: Address::Tcp("127.0.0.1".into(), port),
        starttls: StartTls::Required,
        tls: Some(client),
        helo: "client.example".into(),
        reply_timeout: Duration::from_secs(20),
    };
    let mut session = Sending::open(&target, &Clock::system()).await.unwrap();
    assert!(session.is_encrypted());
    let envelope = Envelope {
        sender: "<a@b>".parse().unwrap(),
        recipients: vec!["<c@d>".parse().unwrap()],
    };
    let facts = BodyFacts {
        size: 3,
        ..BodyFacts::default()
    };
    let body = futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"x\r\n"))]);
    let delivery = session.deliver(&envelope, &facts, Box::pin(body)).await.unwrap();
    assert!(matches!(&delivery.recipients[0], RecipientOutcome::Accepted(reply) if reply.code == 250));
    let taken = keeper.taken.lock().unwrap().clone();
    assert_eq!(taken[0].with, "ESMTPS");
}

/// What stands in clear behind STARTTLS never counts as said under TLS (CVE-2011-0411).
#[tokio::test]
async fn clear_text_behind_starttls_is_thrown_away() {
    let (server, client) = certificates();
    let (port, keeper) = served(server).await;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let smuggled = b"EHLO a\r\nMAIL FROM:<mallory@b>\r\nSTARTTLS\r\nEHLO a\r\nMAIL FROM:<mallory@b>\r\nRCPT TO:<c@d>\r\n";
    stream.write_all(smuggled).await.unwrap();
    let mut answers = Vec::new();
    while !answers.ends_with(b"go ahead\r\n") {
        assert!(stream.read_buf(&mut answers).await.unwrap() > 0);
    }
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(client)
        .connect(name, stream)
        .await
        .unwrap();
    // Neither the smuggled commands nor what was said before STARTTLS count.
    stream
        .write_all(b"RCPT TO:<c@d>\r\nMAIL FROM:<a@b>\r\nEHLO a\r\nQUIT\r\n")
        .await
        .unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(codes(&answers), "503 503 250 221");
    assert!(!answers.contains("STARTTLS"), "{answers}");
    assert!(keeper.taken.lock().unwrap().is_empty());
}
