//! One program works on a database: a second one ends and says who has it, one that comes while the first is ending waits for that, and
//! a kill leaves no lock behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{fs, time::Duration};

use lightpost_tests::{
    Site, corpus,
    pki::Authority,
    process::Signal,
    programs::Program,
    wait,
    world::{self, ClientSettings, Gateway, GatewaySettings},
};

const SOON: Duration = Duration::from_secs(60);

/// A client whose gateway does not exist.
fn client(site: &Site, authority: &Authority) -> Program {
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    let nowhere = format!("https://{}/inboundmail", site.socket());
    settings.routes.push(("moon.example".into(), vec![nowhere]));
    world::client(site, authority, &settings)
}

/// Another one on the same database, with a listener of its own.
fn another(site: &Site, first: &Program, role: &'static str) -> Program {
    let api = site.socket();
    let text = fs::read_to_string(&first.configuration).unwrap();
    let text = text.replace(&first.api.to_string(), &api.to_string());
    Program::new(site, role, "another", api, &[], &text)
}

/// It ends by itself, with one line that names database and process.
#[track_caller]
fn assert_refused(mut second: Program, first: &mut Program, database: &str) {
    let status = second.process().wait_end(SOON);
    let output = second.process().output();
    assert_eq!(status.code(), Some(69), "{output}");
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| line.starts_with("lightpost: "))
        .collect();
    let [line] = lines.as_slice() else {
        panic!("not one line:\n{output}")
    };
    println!("{line}");
    let holder = format!("is in use by process {}", first.process().id());
    for expected in [database, &holder, "stop that process"] {
        assert!(line.contains(expected), "{expected}: {line}");
    }
}

#[test]
fn a_second_client_on_the_same_outbox_ends_and_names_the_first() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let mut first = client(&site, &authority);
    first.start(&site);
    let mut second = another(&site, &first, "client");
    second.start_unready(&site);
    assert_refused(second, &mut first, "client/outbox.db");
    let id = first.submit(
        "alice@earth.example",
        &["bob@moon.example"],
        &corpus::message("on", b"x\r\n"),
    );
    assert_eq!(first.statuses(&id).len(), 1, "the first one goes on");
}

#[test]
fn a_second_gateway_on_the_same_inbox_ends_and_names_the_first() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let settings = GatewaySettings::new("gw1.moon.example", &["moon.example"], site.socket());
    let mut first = Gateway::start(&site, &authority, &settings);
    // The same configuration: the database is told before ports that are taken.
    let mut second = another(&site, &first.program, "server");
    second.start_unready(&site);
    assert_refused(second, &mut first.program, "gw1.moon.example/inbox.db");
}

#[test]
fn a_start_waits_for_one_that_is_ending_and_a_kill_leaves_no_lock() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let mut first = client(&site, &authority);
    first.start(&site);
    let id = first.submit(
        "alice@earth.example",
        &["bob@moon.example"],
        &corpus::message("kept", b"x\r\n"),
    );
    // Its successor has the same listener, too.
    let text = fs::read_to_string(&first.configuration).unwrap();
    let mut second = Program::new(&site, "client", "second", first.api, &[], &text);
    first.process().signal(Signal::Stop);
    second.start_unready(&site);
    wait::until("the second one waits", SOON, || {
        second.process().output().contains("waiting for its end")
    });
    first.kill();
    second.wait_ready();
    assert_eq!(second.statuses(&id).len(), 1, "it has taken over what was queued");

    // What the dead have written into the lock's file is nothing to the next one.
    second.kill();
    second.start(&site);
    let lock = fs::read_to_string(site.path("client/outbox.db.lock")).unwrap();
    assert_eq!(lock.trim(), second.process().id().to_string());
}
