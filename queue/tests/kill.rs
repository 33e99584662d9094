//! A process that is killed while it writes loses nothing that it acknowledged.
//!
//! The test starts itself again as the process that is killed; that one prints each id once its mail is stored.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use lightpost_clock::{Clock, add};
use lightpost_mail::{Address, Recipient, ReversePath, Sender, lines::BodyFacts};
use lightpost_queue::{
    NewBody, NewMessage, NewRecipient, Store, StoredReply, Submission, sqlite::SqliteStore,
};
use ulid::Ulid;

const FOLDER: &str = "LIGHTPOST_TEST_KILL";

fn message(id: Ulid, now: Timestamp) -> NewMessage {
    NewMessage {
        id,
        sender: Sender::new(ReversePath::Null),
        recipients: vec![NewRecipient {
            recipient: Recipient::new(Address::parse("b@moon.example").unwrap()),
            destination: "moon.example".to_owned(),
            due: now,
            expires: add(now, Duration::from_secs(1000)),
            notice: None,
        }],
        body: NewBody::Inline(Bytes::from(id.to_string().repeat(200))),
        facts: BodyFacts::default(),
        priority: 0,
        origin: "test".to_owned(),
        origin_id: None,
        upstream: None,
        accepted: now,
        hold: None,
        notes: Vec::new(),
    }
}

/// Writes until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let clock = Clock::system();
    let store = SqliteStore::open(&PathBuf::from(folder).join("queue.db"), clock.clone())
        .await
        .unwrap();
    let store = Arc::new(store);
    let round = u64::from(std::process::id());
    let tasks: Vec<_> = (0..8_u128)
        .map(|task| {
            let (store, clock) = (Arc::clone(&store), clock.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    let id = Ulid::from_parts(round, task << 64 | number);
                    let messages = vec![message(id, clock.now())];
                    let submission = Submission {
                        key: None,
                        reply: StoredReply::default(),
                        messages,
                        charges: Vec::new(),
                    };
                    store.enqueue(submission).await.unwrap();
                    println!("stored {id}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

fn kill_after(folder: &Path, count: usize) -> Vec<Ulid> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let stored = |line: String| {
        line.split_once("stored ")
            .and_then(|(_, id)| Ulid::from_string(id).ok())
    };
    let mut ids: Vec<Ulid> = lines
        .by_ref()
        .map_while(Result::ok)
        .filter_map(stored)
        .take(count)
        .collect();
    child.kill().unwrap();
    // What it said before it died counts too.
    ids.extend(lines.map_while(Result::ok).filter_map(stored));
    child.wait().unwrap();
    ids
}

#[tokio::test]
async fn nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut stored = Vec::new();
    for count in [1, 7, 50, 200, 333] {
        let ids = kill_after(folder.path(), count);
        assert!(ids.len() >= count, "the victim stored only {}", ids.len());
        stored.extend(ids);
    }
    let store = SqliteStore::open(&folder.path().join("queue.db"), Clock::system())
        .await
        .unwrap();
    for id in &stored {
        assert!(store.message(*id).await.unwrap().is_some(), "{id}");
    }
    let claimed = store
        .claim(lightpost_queue::Claim {
            owner: "w",
            destination: "moon.example",
            now: add(Clock::system().now(), Duration::from_secs(10)),
            until: add(Clock::system().now(), Duration::from_secs(100)),
            limit: 100_000,
        })
        .await
        .unwrap();
    assert!(claimed.len() >= stored.len());
    for message in claimed {
        let body = store.read_body(message.body, 0).await.unwrap();
        assert!(body == message.id.to_string().repeat(200), "{}", message.id);
    }
    store.close().await;
}
