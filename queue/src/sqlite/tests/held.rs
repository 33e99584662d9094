//! Virtual time and a database that takes real time.

use std::time::Duration;

use lightpost_clock::{Clock, add};
use tempfile::TempDir;

use super::super::{SqliteStore, open};
use crate::{
    Store,
    contract::{at, id, simple, submission},
};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test(start_paused = true)]
async fn a_day_never_passes_during_a_query() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("queue.db");
    let clock = Clock::runtime(at(0));
    let later = tokio::spawn({
        let clock = clock.clone();
        async move { clock.sleep(DAY).await }
    });
    let store = SqliteStore::open(&path, clock.clone()).await.unwrap();
    for number in 0..20 {
        store.enqueue(submission(vec![simple(number)])).await.unwrap();
        assert!(store.message(id(number)).await.unwrap().is_some());
        assert_eq!(store.due(clock.now()).await.unwrap().len(), 1);
    }
    // Somebody else's lock makes a write slow.
    let mut other = {
        let _hold = clock.hold();
        open::writing(&path).await.unwrap()
    };
    let locked = {
        let _hold = clock.hold();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        std::thread::spawn(move || {
            std::thread::park_timeout(Duration::from_millis(80));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async { sqlx::query("ROLLBACK").execute(&mut other).await.unwrap() });
        })
    };
    store.enqueue(submission(vec![simple(20)])).await.unwrap();
    locked.join().unwrap();
    store.close().await;
    assert_eq!(clock.now(), at(0));
    later.await.unwrap();
    assert_eq!(clock.now(), add(at(0), DAY));
}
