use std::path::PathBuf;

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A folder with the files that the sample names, and the sample with its paths moved there.
fn sample() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    for file in ["gw1.pem", "gw1.key", "ca.pem"] {
        std::fs::write(folder.path().join(file), "x").unwrap();
    }
    let text = include_str!("../../../deploy/server.toml")
        .replace("/etc/lightpost/", "")
        .replace("/var/lib/lightpost/", "");
    (folder, text)
}

fn load(folder: &tempfile::TempDir, text: &str) -> Result<Config, String> {
    Config::from_text(&folder.path().join("server.toml"), text).map_err(|problems| problems.to_string())
}

#[test]
fn the_sample_is_true() {
    let (folder, text) = sample();
    let config = load(&folder, &text).unwrap();
    assert_eq!(config.listen.endpoint, "/inboundmail");
    assert_eq!(config.peers[0].name, "relay.earth.example");
    assert!(config.accept.domains.contain("far.moon.example"));
    assert!(!config.accept.domains.contain("mars.example"));
    assert!(
        config.accept.idle > Duration::from_secs(7200),
        "longer than an outage"
    );
    assert_eq!(config.database, folder.path().join("inbox.db"));
    assert_eq!(config.onward.choose("moon.example"), 0);
    // A round trip, the outage, ten minutes.
    let tolerance = Duration::from_millis(2 * 1_400) + Duration::from_secs(7_200 + 600);
    assert_eq!(config.session_age_tolerance, tolerance);
}

#[test]
fn the_sample_is_true_with_everything_uncommented() {
    let (folder, text) = sample();
    for file in ["relay.token", "admin-tokens", "bundle.pem", "bundle.key"] {
        std::fs::write(folder.path().join(file), "admin averylongtoken\n").unwrap();
    }
    let key = folder.path().join("earth-1.key");
    std::fs::write(&key, "00".repeat(32)).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let key = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let seals = format!("relay1._domainkey.earth.example {key}\n");
    std::fs::write(folder.path().join("seals"), seals).unwrap();
    // A comment that is a section or a key with a value, not prose.
    let is_setting = |text: &str| {
        let key = text.split(" = ").next().unwrap_or_default();
        text.starts_with('[') || (text.contains(" = ") && !key.contains(' '))
    };
    let text: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_setting(rest) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = load(&folder, &text).unwrap();
    assert_eq!(config.onward.choose("far.moon.example"), 1);
    assert_eq!(config.onward.choose("moon.example"), 0);
    assert_eq!(config.onward.choose(lightpost_queue::LOCAL), 2);
    assert!(config.peers[0].token.is_some());
    assert_eq!(config.session_age_tolerance, Duration::from_secs(3 * 3_600));
    assert_eq!(config.peers[0].endpoints, ["ipn:1.26"]);
    assert_eq!(config.bundle.unwrap().settings.endpoint.to_string(), "ipn:2.25");
    assert!(config.seals.unwrap().require);
    let admin = config.admin.unwrap();
    assert!(admin.tokens.is_some() && admin.socket == Some(PathBuf::from("/run/lightpost/admin.sock")));
}

#[test]
fn all_problems_come_at_once() {
    let (folder, _) = sample();
    let report = load(
        &folder,
        "name = \"not a name\"\ndatabase = \"nowhere/inbox.db\"\n[listen]\nhttps = \"here\"\nendpoint = \"in\"\ncertificate = \"no.pem\"\n\
         [accept]\ndomains = [\"a b\"]\nmax_message = \"0B\"\n[[peer]]\nname = \"relay.example\"\n[local]\naddress = \"host\"\nprotocol = \"uucp\"\n\
         [admin]\nlisten = \"0.0.0.0:1\"\n",
    )
    .unwrap_err();
    for expected in [
        "server.toml:1: name: \"not a name\" is not a host name",
        "database: the folder",
        ":4: listen.https",
        ":5: listen.endpoint",
        "no.pem cannot be read",
        "listen.key: is missing",
        "accept.domains: \"a b\" is not a domain",
        "accept.max_message: is zero",
        "peer[0].token: is missing, and without listen.client_trust",
        "local.address: \"host\": has no port",
        "local.protocol: \"uucp\"",
        "admin.listen: 0.0.0.0:1 can be reached",
    ] {
        assert!(report.contains(expected), "{expected}\n--\n{report}");
    }
}

#[test]
fn the_longest_match_wins() {
    let (folder, mut text) = sample();
    for (domain, port) in [
        ("*", 1),
        ("*.moon.example", 2),
        ("*.far.moon.example", 3),
        ("a.far.moon.example", 4),
    ] {
        text.push_str(&format!(
            "\n[[onward]]\ndomain = \"{domain}\"\naddress = \"mx.example:{port}\"\n"
        ));
    }
    let config = load(&folder, &text).unwrap();
    for (destination, index) in [
        ("earth.example", 1),
        ("b.moon.example", 2),
        ("b.far.moon.example", 3),
        ("a.far.moon.example", 4),
        (lightpost_queue::LOCAL, 0),
    ] {
        assert_eq!(config.onward.choose(destination), index, "{destination}");
    }
    assert_eq!(config.onward.relays().len(), 5);
}

#[test]
fn a_file_that_is_named_without_a_folder_has_its_database_beside_it() {
    let (_folder, text) = sample();
    let report = match Config::from_text(Path::new("server.toml"), &text) {
        Ok(_) => String::new(),
        // The sample's certificates are not here.
        Err(problems) => problems.to_string(),
    };
    assert!(!report.contains("database"), "{report}");
}
