use super::support::{CLIENT, GATEWAY, Papers};
use crate::tls::{self, TlsError};

fn text(result: Result<rustls::ServerConfig, TlsError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let papers = Papers::new();
    let (chain, key) = papers.issue(GATEWAY);
    let (_, other_key) = papers.issue(CLIENT);
    let (empty, missing) = (papers.file("empty.pem"), papers.file("missing.pem"));
    std::fs::write(&empty, "").unwrap();
    let cases = [
        (
            tls::server(&missing, &key, None, &[]),
            "missing.pem cannot be read",
        ),
        (
            tls::server(&empty, &key, None, &[]),
            "empty.pem: holds no certificate",
        ),
        (
            tls::server(&key, &key, None, &[]),
            "gw1.moon.example.key: holds no certificate",
        ),
        (
            tls::server(&chain, &chain, None, &[]),
            "gw1.moon.example.pem: holds no private key",
        ),
        (
            tls::server(&chain, &other_key, None, &[]),
            "relay.earth.example.key: is not the key of the certificate in",
        ),
        (
            tls::server(&chain, &key, Some(&empty), &[]),
            "empty.pem: holds no certificate",
        ),
    ];
    for (result, expected) in cases {
        let said = text(result);
        assert!(said.contains(expected), "{said}, not {expected}");
    }
    let said = tls::client(Some(&papers.ca()), Some((&chain, &other_key)), &[])
        .unwrap_err()
        .to_string();
    assert!(said.contains("is not the key"), "{said}");
    assert!(tls::client(Some(&papers.ca()), Some((&chain, &key)), &[b"h3"]).is_ok());
}

#[test]
fn names_are_lower_case() {
    use rustls_pki_types::pem::PemObject;
    let papers = Papers::new();
    let (chain, _) = papers.issue("Relay.EARTH.example");
    let certificate = rustls_pki_types::CertificateDer::from_pem_file(chain).unwrap();
    assert_eq!(tls::dns_names(&certificate), ["relay.earth.example"]);
}
