//! Looking at a database.

use std::{collections::BTreeMap, path::Path, time::SystemTime};

use lightpost_clock::Clock;
use tempfile::TempDir;

use super::{
    super::{
        DatabaseLock,
        inspect::{Inspection, Schema, Unfit, inspect},
    },
    faults::run,
    store,
};
use crate::{
    Store,
    contract::{put, simple},
};

/// Each file with its size, time and content.
fn files(folder: &Path) -> BTreeMap<String, (u64, SystemTime, Vec<u8>)> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let found = entry.metadata().unwrap();
            let content = std::fs::read(entry.path()).unwrap_or_default();
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, (found.len(), found.modified().unwrap(), content))
        })
        .collect()
}

/// Looks, and sees that nothing is changed by it.
#[track_caller]
fn look(path: &Path) -> impl Future<Output = Result<Inspection, Unfit>> {
    let path = path.to_owned();
    async move {
        let folder = path.parent().unwrap().to_owned();
        let before = files(&folder);
        let found = inspect(&path).await;
        assert!(files(&folder) == before, "the look has changed something");
        found
    }
}

fn newest() -> Schema {
    let known = super::super::open::MIGRATIONS
        .iter()
        .map(|step| step.version)
        .max()
        .unwrap();
    Schema::Version { found: known, known }
}

#[tokio::test]
async fn none_one_that_rests_and_one_that_was_killed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("queue.db");
    assert_eq!(look(&path).await.unwrap().schema, Schema::None);
    std::fs::write(&path, "").unwrap();
    assert_eq!(look(&path).await.unwrap().schema, Schema::None);

    let open = store(&folder).await;
    put(&(open.clone() as _), vec![simple(1)]).await;
    // As a kill leaves it: with a log and its index.
    let killed = TempDir::new().unwrap();
    for name in ["queue.db", "queue.db-wal", "queue.db-shm"] {
        std::fs::copy(folder.path().join(name), killed.path().join(name)).unwrap();
    }
    open.close().await;
    assert_eq!(look(&path).await.unwrap().schema, newest());
    let path = killed.path().join("queue.db");
    assert_eq!(look(&path).await.unwrap().schema, newest());
    std::fs::remove_file(killed.path().join("queue.db-shm")).unwrap();
    assert!(matches!(look(&path).await.unwrap().schema, Schema::Unseen(_)));
}

#[tokio::test]
async fn one_that_is_worked_on_and_by_whom() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("queue ?%#.db");
    let clock = Clock::system();
    let lock = DatabaseLock::take(&path, &clock).await.unwrap();
    let open = super::super::SqliteStore::open(&path, clock).await.unwrap();
    open.check().await.unwrap();
    let found = inspect(&path).await.unwrap();
    assert_eq!(found.schema, newest());
    assert_eq!(found.holder, Some(format!("process {}", std::process::id())));
    open.check().await.unwrap();
    open.close().await;
    drop(lock);
    assert_eq!(look(&path).await.unwrap().holder, None);
}

#[tokio::test]
async fn what_is_not_ours_and_what_is_newer() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("queue.db");
    store(&folder).await.close().await;
    run(
        &path,
        "UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 3",
    )
    .await;
    let unfit = look(&path).await.unwrap_err();
    assert!(
        unfit.to_string().contains("step 3 of its schema"),
        "{unfit}; {}",
        unfit.remedy()
    );
    let row = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        VALUES (99, 'later', 1, x'00', 0)";
    run(&path, row).await;
    let unfit = look(&path).await.unwrap_err();
    assert!(matches!(unfit, Unfit::Newer { found: 99, .. }), "{unfit}");

    let other = folder.path().join("other.db");
    std::fs::write(&other, "").unwrap();
    run(&other, "CREATE TABLE song (title TEXT)").await;
    let unfit = look(&other).await.unwrap_err();
    assert!(unfit.to_string().ends_with("with the table song"), "{unfit}");

    let text = folder.path().join("text");
    std::fs::write(&text, vec![b'x'; 20_000]).unwrap();
    let unfit = look(&text).await.unwrap_err();
    assert!(unfit.to_string().ends_with("no SQLite database"), "{unfit}");

    let mut torn = std::fs::read(&path).unwrap();
    torn[100..].fill(0xA5);
    std::fs::write(&path, torn).unwrap();
    let unfit = look(&path).await.unwrap_err();
    assert!(matches!(unfit, Unfit::Damaged { .. }), "{unfit}");

    let nowhere = inspect(Path::new("/nonexistent/queue.db")).await;
    assert_eq!(nowhere, Err(Unfit::NoFolder("/nonexistent".into())));
}
