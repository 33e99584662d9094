//! The running programs against `openapi.yaml`: schemathesis makes up requests and holds the answers against it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::process::Command;

use lightpost_tests::{
    Site, corpus,
    dovecot::Dovecot,
    peer,
    pki::Authority,
    process,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance";

/// Runs schemathesis against `url`.
#[track_caller]
fn conforms(url: &str, selection: &[&str], more: &[&str]) {
    let mut command = Command::new(peer::python("schemathesis"));
    command
        .env("SCHEMATHESIS_HOOKS", "openapi_hooks")
        .env("PYTHONPATH", peer::root().join("tests/peers"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg("run")
        .arg(peer::root().join("openapi.yaml"))
        .args([
            "--url",
            url,
            "--checks",
            CHECKS,
            "--seed",
            "1",
            "--max-examples",
            "30",
        ])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--generation-database",
            "none",
            "--no-color",
            "--suppress-health-check",
            "all",
        ])
        .args(selection)
        .args(more);
    let finished = process::run(&mut command, b"");
    println!("{}", finished.stdout);
    assert!(
        finished.status.success(),
        "schemathesis: {}\n{}",
        finished.status,
        finished.stderr
    );
}

#[test]
fn the_client_answers_as_openapi_yaml_says() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    let nobody = format!("https://{}/inboundmail", site.socket());
    settings.routes.push(("moon.example".into(), vec![nobody]));
    let mut client = world::client(&site, &authority, &settings);
    client.start(&site);
    client.submit(
        "alice@earth.example",
        &["bob@moon.example"],
        &corpus::message("one", b"Hello\r\n"),
    );
    conforms(
        &format!("http://{}", client.api),
        &["--include-path-regex", "^/(v1/|metrics)"],
        &[],
    );
}

#[test]
fn the_gateway_answers_as_openapi_yaml_says() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let dovecot = Dovecot::start(&site, "dovecot", &["bob@moon.example"]);
    let settings = GatewaySettings::new("gw1.moon.example", &["moon.example"], dovecot.lmtp);
    let gateway = Gateway::start(&site, &authority, &settings);
    let identity = world::relay_identity(&site, &authority);
    conforms(
        &format!("https://{}", gateway.https),
        &["--include-path", "/inboundmail"],
        &[
            "--tls-verify",
            &authority.file.display().to_string(),
            "--request-cert",
            &identity.certificate.display().to_string(),
            "--request-cert-key",
            &identity.key.display().to_string(),
        ],
    );
    let operations = ["--include-tag", "operation"];
    conforms(&format!("http://{}", gateway.program.api), &operations, &[]);
}
