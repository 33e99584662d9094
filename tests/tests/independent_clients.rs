//! Peers that we did not write hand mail to the gateway: aioquic over HTTP/3, curl over HTTP/2 and HTTP/1.1.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{path::Path, process::Command};

use lightpost_tests::{
    Site, bsmtp, corpus,
    dovecot::Dovecot,
    peer,
    pki::{Authority, Identity},
    process,
    world::{self, Gateway, GatewaySettings},
};
use serde_json::Value;

const BOB: &str = "bob@moon.example";
const NAME: &str = "gw1.moon.example";
const VERSIONS: [&str; 3] = ["3", "2", "1.1"];

struct Peers {
    gateway: Gateway,
    dovecot: Dovecot,
    authority: Authority,
    known: Identity,
    site: Site,
}

fn peers() -> Peers {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &[BOB]);
    let gateway = Gateway::start(
        &site,
        &authority,
        &GatewaySettings::new(NAME, &["moon.example"], dovecot.lmtp),
    );
    let known = world::relay_identity(&site, &authority);
    Peers {
        gateway,
        dovecot,
        authority,
        known,
        site,
    }
}

impl Peers {
    /// POSTs over an HTTP version; the status (`None`: no answer, as when TLS refuses) and the body.
    fn post(
        &self,
        version: &str,
        identity: Option<&Identity>,
        headers: &[&str],
        body: &[u8],
    ) -> (Option<u64>, String) {
        if version == "3" {
            self.aioquic(identity, headers, body)
        } else {
            self.curl(version, identity, headers, body)
        }
    }

    fn aioquic(&self, identity: Option<&Identity>, headers: &[&str], body: &[u8]) -> (Option<u64>, String) {
        let none = Path::new("-");
        let mut command = Command::new(peer::python("python"));
        command
            .arg(peer::root().join("tests/peers/h3_post.py"))
            .args([
                self.gateway.https.ip().to_string(),
                self.gateway.https.port().to_string(),
                NAME.into(),
            ])
            .arg(&self.authority.file)
            .arg(identity.map_or(none, |identity| &identity.certificate))
            .arg(identity.map_or(none, |identity| &identity.key))
            .arg("/inboundmail")
            .args(headers);
        let finished = process::run(&mut command, body);
        let answer: Value =
            serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{}", finished.stderr));
        (
            answer["status"].as_u64(),
            answer["body"].as_str().unwrap_or_default().to_owned(),
        )
    }

    fn curl(
        &self,
        version: &str,
        identity: Option<&Identity>,
        headers: &[&str],
        body: &[u8],
    ) -> (Option<u64>, String) {
        let mut command = Command::new(peer::program("/usr/bin/curl", "curl"));
        let port = self.gateway.https.port();
        command
            .args([
                "-sS",
                "--max-time",
                "30",
                &format!("--http{version}"),
                "--data-binary",
                "@-",
            ])
            .args(["--resolve", &format!("{NAME}:{port}:{}", self.gateway.https.ip())])
            .arg("--cacert")
            .arg(&self.authority.file)
            .args(["-w", "\n%{http_code} %{http_version}"]);
        if let Some(identity) = identity {
            command
                .arg("--cert")
                .arg(&identity.certificate)
                .arg("--key")
                .arg(&identity.key);
        }
        for header in headers {
            command.args(["-H", header]);
        }
        command.arg(self.gateway.uri());
        let finished = process::run(&mut command, body);
        if !finished.status.success() {
            return (None, finished.stderr);
        }
        let (body, last) = finished.stdout.rsplit_once('\n').unwrap();
        let (status, used) = last.split_once(' ').unwrap();
        assert_eq!(used, version, "the HTTP version");
        (status.parse().ok(), body.to_owned())
    }
}

fn object(subject: &str) -> (Vec<u8>, Vec<u8>) {
    let message = corpus::message(subject, &corpus::lone_dots());
    let to = format!("<{BOB}>");
    (
        bsmtp::object("<alice@earth.example> BODY=8BITMIME", &[&to], &message),
        message,
    )
}

#[test]
fn each_version_of_http_delivers_once_and_repeats_its_answer() {
    let peers = peers();
    for (number, version) in VERSIONS.iter().enumerate() {
        let (object, message) = object(version);
        let key = format!("Idempotency-Key: \"01JD2XVQ6Y0G3T6T1N9YFJ7K{number:02}\"");
        let headers = ["Content-Type: application/batch-SMTP", &key];
        let first = peers.post(version, Some(&peers.known), &headers, &object);
        assert_eq!(first.0, Some(202), "HTTP/{version}: {}", first.1);
        // The repeat comes another way: what counts is the exchange.
        for repeat in VERSIONS {
            assert_eq!(
                peers.post(repeat, Some(&peers.known), &headers, &object),
                first,
                "HTTP/{version}, then {repeat}"
            );
        }
        let mails = peers.dovecot.wait_mails(BOB, number + 1);
        corpus::assert_only_trace_added(corpus::find(&mails, version), &message);
        let other = bsmtp::object(
            "<alice@earth.example>",
            &["<bob@moon.example>"],
            b"Subject: another\r\n\r\n",
        );
        let conflict = peers.post(version, Some(&peers.known), &headers, &other);
        assert_eq!(conflict.0, Some(409), "HTTP/{version}: {}", conflict.1);
    }
}

#[test]
fn strangers_and_damaged_objects_are_refused() {
    let peers = peers();
    let stranger = peers.authority.issue(&peers.site, "stranger.earth.example");
    let foreign = Authority::new(&peers.site, "other-ca").issue(&peers.site, world::RELAY);
    let (object, _) = object("refused");
    let plain = ["Content-Type: application/batch-SMTP"];
    for version in VERSIONS {
        let (status, body) = peers.post(version, Some(&stranger), &plain, &object);
        assert!(
            matches!(status, Some(401 | 403)),
            "HTTP/{version}, unknown name: {status:?} {body}"
        );
        let (status, body) = peers.post(version, Some(&foreign), &plain, &object);
        assert!(
            matches!(status, None | Some(401 | 403)),
            "HTTP/{version}, foreign CA: {status:?} {body}"
        );
        let (status, body) = peers.post(version, None, &plain, &object);
        assert!(
            matches!(status, None | Some(401 | 403)),
            "HTTP/{version}, no certificate: {status:?} {body}"
        );

        let digest = "Unencoded-Digest: sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
        let (status, body) = peers.post(version, Some(&peers.known), &[plain[0], digest], &object);
        assert_eq!(status, Some(408), "HTTP/{version}, wrong digest: {body}");
        let (status, body) = peers.post(
            version,
            Some(&peers.known),
            &["Content-Type: message/rfc822"],
            &object,
        );
        assert_eq!(status, Some(415), "HTTP/{version}, wrong type: {body}");
        let cut = &object[..object.len() - 20];
        let (status, body) = peers.post(version, Some(&peers.known), &plain, cut);
        assert!(
            matches!(status, Some(400 | 422)),
            "HTTP/{version}, cut: {status:?} {body}"
        );
        assert!(body.contains("\"line\""), "HTTP/{version}, cut: {body}");
        let elsewhere = bsmtp::object(
            "<alice@earth.example>",
            &["<bob@venus.example>"],
            b"Subject: x\r\n\r\n",
        );
        let (status, body) = peers.post(version, Some(&peers.known), &plain, &elsewhere);
        assert!(
            body.contains("venus.example"),
            "HTTP/{version}, foreign domain: {status:?} {body}"
        );
    }
    assert!(peers.dovecot.on_disk(BOB).is_empty());
    assert_eq!(peers.gateway.program.unfinished(), Some(0));
}
