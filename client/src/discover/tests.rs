//! Discovery with a real name server.

use std::{path::Path, time::Duration};

use lightpost_clock::add;
use lightpost_sim::dns::{Data, Dns, Zone};

use super::*;

struct Bench {
    dns: Dns,
    folder: tempfile::TempDir,
}

fn zone(records: &[(&str, u16, &str)]) -> Zone {
    let mut all: Vec<(String, Data)> = records
        .iter()
        .map(|(domain, priority, target)| {
            let data = Data::Uri {
                priority: *priority,
                weight: 1,
                target: (*target).to_owned(),
            };
            (format!("_bsmtp._https.{domain}"), data)
        })
        .collect();
    all.push(("gw1.moon.example".into(), Data::A([192, 0, 2, 1].into())));
    all.push((
        "gw1.moon.example".into(),
        Data::Aaaa("2001:db8::1".parse().unwrap()),
    ));
    all.push(("plain.moon.example".into(), Data::A([192, 0, 2, 2].into())));
    Zone {
        origin: "moon.example".into(),
        ttl: 1,
        records: all,
    }
}

const GW1: &str = "https://gw1.moon.example/inboundmail";
const GW2: &str = "https://gw2.moon.example/inboundmail";

impl Bench {
    async fn new(zone: &Zone) -> Self {
        Self {
            dns: Dns::start("127.0.0.1:0".parse().unwrap(), zone).await.unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn discovery(&self, clock: Clock) -> Discovery {
        let root = self.folder.path().display();
        let text = format!(
            r#"
            name = "relay.earth.example"
            database = "{root}/outbox.db"
            [ingest]
            listen = "127.0.0.1:0"
            [resolver]
            servers = ["{}"]
            timeout = "500ms"
            cache = "{root}/dns.json"
            [local]
            address = "127.0.0.1:25"
            [path.moon]
            one_way_min = "1ms"
            one_way_max = "1ms"
            outage_max = "0s"
            rate_up = "1Gbit/s"
            rate_down = "1Gbit/s"
            [[route]]
            domain = "moon.example"
            path = "moon"
            targets = ["moon.example"]
            [[route]]
            domain = "*.moon.example"
            path = "moon"
            [[route]]
            domain = "fixed.example"
            path = "moon"
            gateways = ["{GW2}", "{GW1}"]
            "#,
            self.dns.address()
        );
        let config = Config::from_text(Path::new("client.toml"), &text).unwrap();
        Discovery::new(&config, clock).unwrap()
    }
}

fn urls(found: &NextHops) -> Vec<&str> {
    found.hops.iter().map(|hop| hop.url.as_str()).collect()
}

#[tokio::test]
async fn records_are_found_in_order_and_foreign_targets_passed_over() {
    let records = [
        ("moon.example", 20, GW2),
        ("moon.example", 10, GW1),
        ("moon.example", 5, "https://gw.evil.example/"),
        ("moon.example", 1, "http://gw1.moon.example/"),
        ("bad.moon.example", 1, "http://gw1.moon.example/"),
    ];
    let bench = Bench::new(&zone(&records)).await;
    let discovery = bench.discovery(Clock::system());
    let found = discovery.next_hops("moon.example").await.unwrap();
    assert_eq!((found.source, urls(&found)), (Source::Dns, vec![GW1, GW2]));
    let asked = bench.dns.queries();
    discovery.next_hops("moon.example").await.unwrap();
    assert_eq!(bench.dns.queries(), asked, "answered from the cache");
    let fixed = discovery.next_hops("fixed.example").await.unwrap();
    assert_eq!((fixed.source, urls(&fixed)), (Source::Static, vec![GW2, GW1]));
    for (domain, code) in [
        ("bad.moon.example", Some("5.4.4")),
        ("absent.moon.example", Some("5.1.2")),
        ("plain.moon.example", Some("5.1.2")),
        ("elsewhere.example", None),
    ] {
        let error = discovery.next_hops(domain).await.unwrap_err();
        let permanent = error.permanent().map(|code| code.to_string());
        assert_eq!(permanent.as_deref(), code, "{domain}: {error}");
    }
}

#[tokio::test]
async fn a_silent_resolver_leaves_the_last_answer_and_a_fresh_no_ends_it() {
    let bench = Bench::new(&zone(&[("moon.example", 10, GW1)])).await;
    let now = Clock::system().now();
    let discovery = bench.discovery(Clock::runtime(now));
    discovery.next_hops("moon.example").await.unwrap();
    assert_eq!(discovery.addresses("gw1.moon.example").await.unwrap().len(), 2);
    discovery.save().await;
    bench.dns.silence(true);
    // Another life, an hour later: only the file is left.
    let later = bench.discovery(Clock::runtime(add(now, Duration::from_secs(3600))));
    let found = later.next_hops("moon.example").await.unwrap();
    assert_eq!((found.source, urls(&found)), (Source::Stale, vec![GW1]));
    assert_eq!(later.addresses("gw1.moon.example").await.unwrap().len(), 2);
    let unknown = later.next_hops("other.moon.example").await.unwrap_err();
    assert!(matches!(unknown, DiscoveryError::Silent { .. }) && unknown.permanent().is_none());
    bench.dns.silence(false);
    bench.dns.set(&zone(&[])).unwrap();
    let last = bench.discovery(Clock::runtime(add(now, Duration::from_secs(7200))));
    let error = last.next_hops("moon.example").await.unwrap_err();
    assert_eq!(
        error.permanent().map(|code| code.to_string()).as_deref(),
        Some("5.1.2")
    );
}

#[tokio::test]
async fn hosts_may_be_names_or_addresses() {
    let bench = Bench::new(&zone(&[])).await;
    let discovery = bench.discovery(Clock::system());
    for (host, expected) in [
        ("gw1.moon.example", Some("192.0.2.1")),
        ("GW1.Moon.Example.", Some("192.0.2.1")),
        ("plain.moon.example", Some("192.0.2.2")),
        ("192.0.2.9", Some("192.0.2.9")),
        ("[2001:db8::9]", Some("2001:db8::9")),
        ("absent.moon.example", None),
    ] {
        let found = discovery.addresses(host).await.ok();
        let first = found.and_then(|all| Some(all.first()?.to_string()));
        assert_eq!(first.as_deref(), expected, "{host}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_begun_anew() {
    let bench = Bench::new(&zone(&[("moon.example", 10, GW1)])).await;
    std::fs::write(bench.folder.path().join("dns.json"), "{\"uri\": 3").unwrap();
    let discovery = bench.discovery(Clock::system());
    assert!(discovery.next_hops("moon.example").await.is_ok());
    discovery.save().await;
    let text = std::fs::read_to_string(bench.folder.path().join("dns.json")).unwrap();
    assert!(serde_json::from_str::<File>(&text).is_ok());
}
