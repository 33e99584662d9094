//! TLS between nodes: required where it is configured, with certificates of both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};

use lightpost_bundle_node::{ListenerTls, NeighbourState, NeighbourTls, Node};
use lightpost_clock::Clock;
use lightpost_transport::bundle::agent::Agent;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use support::*;

/// A CA and certificates of it, in files.
struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    trust: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let trust = folder.join(format!("{name}.ca.pem"));
        std::fs::write(&trust, certificate.pem()).unwrap();
        Self {
            folder: folder.to_owned(),
            issuer: Issuer::new(params, key),
            trust,
        }
    }

    fn certificate(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = (
            self.folder.join(format!("{name}.pem")),
            self.folder.join(format!("{name}.key")),
        );
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }
}

#[tokio::test]
async fn certificates_of_both_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "ours");
    let (certificate, key) = authority.certificate("moon.example");
    let mut moon = config(2, folder.path());
    moon.listeners = vec![listener()];
    moon.listeners[0].tls = Some(ListenerTls {
        certificate,
        key,
        clients: Some(authority.trust.clone()),
    });
    let (moon_node, moon) = open(&moon).await;
    let address = moon_node.addresses()[0];
    let tls = NeighbourTls {
        name: "moon.example".to_owned(),
        trust: Some(authority.trust.clone()),
        identity: Some(authority.certificate("earth.example")),
    };

    let others = Authority::new(folder.path(), "others");
    let refused = [
        ("no TLS", None),
        (
            "no certificate",
            Some(NeighbourTls {
                identity: None,
                ..tls.clone()
            }),
        ),
        (
            "a certificate of somebody else",
            Some(NeighbourTls {
                identity: Some(others.certificate("stranger.example")),
                ..tls.clone()
            }),
        ),
        (
            "another name",
            Some(NeighbourTls {
                name: "mars.example".to_owned(),
                ..tls.clone()
            }),
        ),
        (
            "another CA",
            Some(NeighbourTls {
                trust: Some(others.trust.clone()),
                ..tls.clone()
            }),
        ),
    ];
    for (index, (what, tls)) in refused.into_iter().enumerate() {
        let mut earth = config(10 + u32::try_from(index).unwrap(), folder.path());
        neighbour(&mut earth, "moon", address, &[2]);
        earth.neighbours[0].tls = tls;
        let (node, agent) = open(&earth).await;
        agent.send(outgoing("ipn:2.25", what)).await.unwrap();
        until(what, async || {
            let state = node.status().await.neighbours[0].state.clone();
            matches!(state, NeighbourState::Down { why } if !why.contains("not called yet"))
        })
        .await;
        assert_eq!(node.status().await.neighbours[0].waiting, Some(1), "{what}");
    }

    let mut earth = config(1, folder.path());
    neighbour(&mut earth, "moon", address, &[2]);
    earth.neighbours[0].tls = Some(tls);
    let (_node, earth) = open(&earth).await;
    let id = earth.send(outgoing("ipn:2.25", vec![1; 200_000])).await.unwrap();
    assert_eq!(bundle(&moon).await.id, id);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_all_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(1, folder.path());
    config.listeners = vec![listener()];
    config.listeners[0].tls = Some(ListenerTls {
        certificate: folder.path().join("certificate"),
        key: folder.path().join("key"),
        clients: None,
    });
    neighbour(&mut config, "moon", free_address(), &[2]);
    config.neighbours[0].tls = Some(NeighbourTls {
        name: "not a name".to_owned(),
        trust: Some(folder.path().join("trust")),
        identity: None,
    });
    let error = Node::open(config, Clock::system())
        .await
        .err()
        .unwrap()
        .to_string();
    for part in ["certificate", "trust", "not a name"] {
        assert!(error.contains(part), "{part} is missing in {error}");
    }
}
