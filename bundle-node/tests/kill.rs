//! `kill -9`: whatever was told to be in custody is there afterwards, and goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    collections::HashSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use lightpost_transport::bundle::agent::Agent;

use support::*;

/// Says to the test below that it is the child, and where its folder is.
const FOLDER: &str = "LIGHTPOST_KILL_FOLDER";

/// Sends without end and says what was taken; killed by the test below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "is run by the test in this file"]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let mut earth = config(1, Path::new(&folder));
    neighbour(&mut earth, "moon", free_address(), &[2]);
    let (_node, agent) = open(&earth).await;
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..16 {
        let agent = Arc::clone(&agent);
        senders.spawn(async move {
            loop {
                // Some are in files of their own.
                let size = if sender == 0 { 300_000 } else { 500 };
                let id = agent.send(outgoing("ipn:2.25", vec![7; size])).await.unwrap();
                println!("taken {id}");
            }
        });
    }
    senders.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_outlives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut taken = HashSet::new();
    for lines in [1, 40, 300] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let before = taken.len();
        while taken.len() < before + lines {
            let line = said.next().expect("the child ended by itself").unwrap();
            taken.extend(line.strip_prefix("taken ").map(str::to_owned));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before the signal came, whole lines only.
        let rest: Vec<String> = said.map_while(Result::ok).collect();
        let whole = rest.iter().filter_map(|line| line.strip_prefix("taken "));
        taken.extend(whole.filter(|id| id.split('/').count() == 3).map(str::to_owned));
    }
    let mut moon = config(2, folder.path());
    moon.listeners = vec![listener()];
    let (moon_node, moon) = open(&moon).await;
    let mut earth = config(1, folder.path());
    neighbour(&mut earth, "moon", moon_node.addresses()[0], &[2]);
    let (earth_node, _earth) = open(&earth).await;
    let mut came = HashSet::new();
    while !taken.is_subset(&came) {
        let id = bundle(&moon).await.id.to_string();
        assert!(came.insert(id.clone()), "{id} came twice");
    }
    until("nothing is left", async || earth_node.status().await.stored == 0).await;
    let folder = folder.path().join("1");
    let is_bundle = |it: std::io::Result<std::fs::DirEntry>| {
        it.unwrap().file_name().to_string_lossy().ends_with(".bundle")
    };
    until("no file is left", async || {
        !std::fs::read_dir(&folder).unwrap().any(is_bundle)
    })
    .await;
}
