//! One program works on a database: a second one ends and says who has it, one that comes while the first is ending waits for that, and
//! a kill leaves no lock behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use lightpost_tests::{
    Site, corpus, peer,
    pki::Authority,
    process::{self, Signal},
    programs::{self, Program},
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

#[test]
fn check_looks_at_a_database_that_is_worked_on_and_at_one_that_was_killed() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let mut client = client(&site, &authority);
    client.start(&site);
    // It listens before it has opened the database; an answer says that it has.
    let id = client.submit(
        "alice@earth.example",
        &["bob@moon.example"],
        &corpus::message("still", b"x\r\n"),
    );
    let configuration = client.configuration.display().to_string();
    let check = || programs::lightpost(&["check", "--json", "--config", &configuration], b"");
    let holder = format!("process {}", client.process().id());
    let seen = |finished: process::Finished| -> serde_json::Value {
        assert!(
            finished.status.success(),
            "{}{}",
            finished.stdout,
            finished.stderr
        );
        serde_json::from_str(&finished.stdout).unwrap()
    };
    let found = seen(check());
    assert!(found["schema"].as_i64() >= Some(8), "{found}");
    assert_eq!(found["holder"], holder);

    client.kill();
    let found = seen(check());
    assert!(found["schema"].as_i64() >= Some(8), "{found}");
    assert!(found["holder"].is_null(), "{found}");
    client.start(&site);
    assert_eq!(client.statuses(&id).len(), 1);
}

#[test]
fn check_names_a_folder_and_files_that_the_user_cannot_write() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let mut client = client(&site, &authority);
    let binary = programs::public_binary(&site);
    let configuration = client.configuration.display().to_string();
    peer::require_root("checking as another user");
    // The configuration and the certificates can be read, the folder of root's cannot be written.
    let as_nobody = || {
        let setpriv = peer::program("/usr/bin/setpriv", "util-linux");
        let mut command = Command::new(setpriv);
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&binary)
            .args(["check", "--config", &configuration]);
        process::run(&mut command, b"")
    };
    make_readable(site.folder());
    let refused = as_nobody();
    println!("{}", refused.stderr);
    assert_eq!(refused.status.code(), Some(78), "{}", refused.stderr);
    for expected in [
        ": database: ",
        "/client cannot be written by this user (",
        "check as that user",
    ] {
        assert!(
            refused.stderr.contains(expected),
            "{expected}: {}",
            refused.stderr
        );
    }
    client.start(&site);
    client.stop();
    fs::set_permissions(site.path("client"), fs::Permissions::from_mode(0o777)).unwrap();
    let refused = as_nobody();
    assert!(
        refused
            .stderr
            .contains("client/outbox.db cannot be written by this user ("),
        "{}",
        refused.stderr
    );
}

/// Lets everybody read what is in a folder.
fn make_readable(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            make_readable(&path);
        } else {
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o044)).unwrap();
        }
    }
}
