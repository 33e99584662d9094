//! `kill -9` of the client around the 250 of an SMTP mail: what was answered 250 is in the outbox after the restart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{collections::BTreeSet, net::SocketAddr, sync::Mutex, time::Duration};

use lightpost_tests::{
    Site, corpus,
    pki::Authority,
    process::was_killed,
    programs::Fault,
    smtp, wait,
    world::{self, ClientSettings},
};

const SENDERS: usize = 3;
/// The calls on which it dies: the sync of a commit, a write to the database, a reply; and which of them. The first ones belong to the start.
const POINTS: &[(&str, &[u32])] = &[
    ("fdatasync", &[4, 6, 9, 15, 25]),
    ("pwrite64", &[45, 90, 150, 260]),
    ("sendto", &[5, 6, 7, 11, 12, 18, 30, 45]),
];

#[test]
fn what_was_answered_250_survives() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    let nobody = format!("https://{}/inboundmail", site.socket());
    settings.routes.push(("moon.example".into(), vec![nobody]));
    let address = site.socket();
    settings.more = format!("\n[smtp]\nlisten = \"{address}\"\n");
    let mut client = world::client(&site, &authority, &settings);
    let acknowledged = Mutex::new(BTreeSet::new());
    let mut killed = 0;
    for (calls, steps) in POINTS {
        for nth in *steps {
            client.start_with_fault(&site, Fault::new(calls, *nth), None);
            wait::until("it listens or has died", Duration::from_secs(60), || {
                wait::listens(address) || client.process().ended().is_some()
            });
            std::thread::scope(|scope| {
                for number in 0..SENDERS {
                    let acknowledged = &acknowledged;
                    scope.spawn(move || {
                        send_until_it_dies(address, &format!("{calls}-{nth}-{number}"), acknowledged)
                    });
                }
            });
            let end = client.process().wait_end(Duration::from_secs(60));
            assert!(
                was_killed(end),
                "before {calls} {nth}: {end}\n{}",
                client.process().output()
            );
            killed += 1;
            client.kill();
        }
    }
    client.start(&site);
    let kept: BTreeSet<String> = client
        .messages()
        .iter()
        .map(|message| message["id"].as_str().unwrap().to_owned())
        .collect();
    let acknowledged = acknowledged.into_inner().unwrap();
    let lost: Vec<&String> = acknowledged.difference(&kept).collect();
    println!(
        "killed {killed} times; {} mails answered 250, {} in the outbox, {} lost",
        acknowledged.len(),
        kept.len(),
        lost.len()
    );
    assert!(lost.is_empty(), "{lost:?}");
    assert!(acknowledged.len() >= 10, "hardly any mail");
}

fn send_until_it_dies(address: SocketAddr, name: &str, acknowledged: &Mutex<BTreeSet<String>>) {
    for count in 0.. {
        // Every fourth is too large to be stored in one step.
        let size = if count % 4 == 3 { 400_000 } else { 2_000 };
        let message = corpus::attachment(&format!("{name}-{count}"), size);
        let offered = smtp::offer(
            address,
            "<alice@earth.example>",
            &["<bob@moon.example>"],
            &message,
        );
        let Ok(reply) = offered else { break };
        assert!(reply.starts_with("250 "), "{reply}");
        let id = reply.trim_end().rsplit(' ').next().unwrap();
        acknowledged.lock().unwrap().insert(id.to_owned());
        assert!(count < 2_000, "it does not die");
    }
    // A connection that is cut is seen before the process is gone.
    let _ = wait::holds_within(Duration::from_secs(10), || !wait::listens(address));
}
