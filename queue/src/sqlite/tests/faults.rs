//! Disks and files that are not as they should be.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use bytes::Bytes;
use lightpost_clock::Clock;
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use super::{
    super::{SqliteStore, open},
    reopen, store,
};
use crate::{
    Disposition, NewBody, NewMessage, Store, StoreError,
    contract::{self, Shared, at, claim, ids, put, settlement, simple, submission},
};

pub(super) async fn run(path: &Path, statement: &str) {
    let mut connection = open::writing(path).await.unwrap();
    sqlx::query(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::Connection::close(connection).await.unwrap();
}

/// A store whose writing connection suffers from `pragma` until it is made anew.
async fn ailing(folder: &TempDir, pragma: &'static str) -> Shared {
    let path = folder.path().join("queue.db");
    let (mut connection, orphans) = open::open(&path).await.unwrap();
    sqlx::query(pragma).execute(&mut connection).await.unwrap();
    Arc::new(SqliteStore::start(
        &path,
        Clock::runtime(at(0)),
        connection,
        orphans,
    ))
}

fn large(number: u128) -> NewMessage {
    NewMessage {
        body: NewBody::Inline(Bytes::from(vec![b'x'; 2_000_000])),
        ..simple(number)
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let folder = TempDir::new().unwrap();
    let store = ailing(&folder, "PRAGMA max_page_count = 200").await;
    put(&store, vec![simple(1)]).await;
    let refused = store.enqueue(submission(vec![large(2)])).await;
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    put(&store, vec![large(3)]).await;
    let claimed = claim(&store, "w", at(0), 10).await;
    assert_eq!(ids(&claimed), [contract::id(1), contract::id(3)]);
    contract::audit(&store).await;
}

#[tokio::test]
async fn outcomes_are_stored_while_new_mail_finds_no_room() {
    let folder = TempDir::new().unwrap();
    let store = ailing(&folder, "PRAGMA max_page_count = 200").await;
    put(&store, vec![simple(1)]).await;
    let claimed = claim(&store, "w", at(0), 1).await.remove(0);
    let outcome = settlement(claimed.recipients[0].id, Disposition::Delivered, at(1));
    let (refused, settled) = tokio::join!(
        store.enqueue(submission(vec![large(2)])),
        store.settle(vec![outcome], Vec::new()),
    );
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    settled.unwrap();
    assert_eq!(
        contract::kinds(&contract::view(&store, 1).await),
        ["accepted", "delivered"]
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_named() {
    let folder = TempDir::new().unwrap();
    let store = ailing(&folder, "PRAGMA query_only = ON").await;
    let refused = store.check().await;
    assert!(matches!(refused, Err(StoreError::ReadOnly { .. })), "{refused:?}");
    store.check().await.unwrap();
    for path in [folder.path().join("missing/queue.db"), folder.path().to_owned()] {
        let refused = SqliteStore::open(&path, Clock::system()).await.err();
        assert!(
            matches!(refused, Some(StoreError::ReadOnly { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_damaged_file_is_named_and_nothing_panics() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("queue.db");
    let sound: Shared = store(&folder).await;
    put(&sound, (0..50).map(simple).collect()).await;
    sound.close().await;
    let octets = std::fs::read(&path).unwrap();
    let refused = async || SqliteStore::open(&path, Clock::system()).await.err();

    std::fs::write(&path, [b"garbage".as_slice(), &octets[7..]].concat()).unwrap();
    assert!(matches!(refused().await, Some(StoreError::Damaged { .. })));

    let mut torn = octets.clone();
    torn[4096..].fill(0xA5);
    std::fs::write(&path, torn).unwrap();
    match SqliteStore::open(&path, Clock::system()).await {
        Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{error}"),
        Ok(store) => {
            let error = store.enqueue(submission(vec![simple(99)])).await.unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            let error = store
                .list(crate::Filter {
                    limit: 10,
                    ..Default::default()
                })
                .await
                .unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        }
    }
}

#[tokio::test]
async fn a_row_that_makes_no_sense_stands_aside() {
    let folder = TempDir::new().unwrap();
    let store: Shared = store(&folder).await;
    put(&store, (1..=3).map(simple).collect()).await;
    let path = folder.path().join("queue.db");
    run(&path, "UPDATE recipient SET argument = 'no address' WHERE id = 1").await;
    run(&path, "UPDATE message SET sender = 'no path' WHERE seq = 2").await;
    let claimed = claim(&store, "w", at(0), 10).await;
    assert_eq!(ids(&claimed), [contract::id(3)]);
    let view = store.message(contract::id(1)).await.unwrap().unwrap();
    assert_eq!(view.recipients[0].address, "no address");
    assert_eq!(view.recipients[0].status, crate::Status::Held);
    assert!(
        view.history
            .last()
            .is_some_and(|event| event.kind == "held" && event.detail.contains("no address"))
    );
    assert_eq!(store.totals().await.unwrap().recipients["held"], 2);
    contract::audit(&store).await;
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("queue.db");
    store(&folder).await.close().await;
    let row = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        VALUES (99, 'later', 1, x'00', 0)";
    run(&path, row).await;
    let refused = SqliteStore::open(&path, Clock::system()).await.err();
    assert!(
        matches!(refused, Some(StoreError::Newer { found: 99, .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_crash() {
    let folder = TempDir::new().unwrap();
    let (path, copy) = (folder.path().join("queue.db"), folder.path().join("copy.db"));
    let store: Shared = store(&folder).await;
    put(&store, (0..10).map(simple).collect()).await;
    let leased = claim(&store, "w", at(0), 3).await;
    // What a killed process leaves behind: nothing was closed or checkpointed.
    for suffix in ["", "-wal"] {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        std::fs::copy(name(&path), name(&copy)).unwrap();
    }
    let after: Shared = reopen(&copy).await;
    assert_eq!(after.recover("w", at(1)).await.unwrap(), leased.len() as u64);
    assert_eq!(claim(&after, "w", at(1), 100).await.len(), 10);
    contract::audit(&after).await;
}

#[tokio::test]
async fn bodies_without_a_message_go_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("queue.db");
    let before: Shared = store(&folder).await;
    let spool = before.begin_body().await.unwrap();
    before
        .append_body(spool, Bytes::from(vec![1; 600_000]))
        .await
        .unwrap();
    before.close().await;
    let after: Shared = reopen(&path).await;
    let mut left = usize::MAX;
    for _ in 0..1000 {
        after.check().await.unwrap();
        left = after.read_body(spool, 0).await.unwrap().len();
        if left == 0 {
            break;
        }
    }
    assert_eq!(left, 0);
    let late = NewMessage {
        body: NewBody::Spooled(spool),
        ..simple(1)
    };
    assert!(after.enqueue(submission(vec![late])).await.is_err());
    assert_ne!(
        after.begin_body().await.unwrap(),
        spool,
        "ids are never given twice"
    );
}

#[tokio::test]
async fn the_file_is_for_its_owner_alone() {
    let folder = TempDir::new().unwrap();
    let _store = store(&folder).await;
    for name in ["queue.db", "queue.db-wal", "queue.db-shm"] {
        let mode = std::fs::metadata(folder.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
