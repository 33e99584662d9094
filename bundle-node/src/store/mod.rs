//! Where bundles are kept: one SQLite database with one writer, and a file for each large bundle.
//!
//! Whoever is told that a bundle was stored can rely on it: the answer comes after the sync. Everything else about a bundle follows
//! from its row, so that a node which is started again goes on from there.

mod files;
mod open;
mod read;
mod writer;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use lightpost_clock::Clock;
use tokio::sync::{Notify, mpsc, oneshot};

pub(crate) use self::open::open;
use self::{
    read::Reader,
    writer::{Answer, Command, Job},
};

/// What a row costs beside the bundle's own octets, about.
const ROW: u64 = 256;
/// From this many octets on a bundle is in a file of its own.
const INLINE: usize = 256 * 1024;

/// Where a bundle waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// For a neighbour.
    Neighbour(String),
    /// For one of our services.
    Service(u32),
    /// For the other fragments of the bundle with this key.
    Parts(String),
    /// For a route that the configuration does not have any more.
    Nowhere,
}

impl Place {
    /// How it stands in the database.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Neighbour(name) => format!("n:{name}"),
            Self::Service(number) => format!("s:{number}"),
            Self::Parts(key) => format!("f:{key}"),
            Self::Nowhere => "-".to_owned(),
        }
    }
}

/// A bundle to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) key: String,
    pub(crate) place: Place,
    /// Higher leaves first; 0 to 2.
    pub(crate) rank: u8,
    pub(crate) destination: String,
    /// Milliseconds since 1970.
    pub(crate) received: i64,
    pub(crate) expires: i64,
    pub(crate) verified: Option<String>,
    pub(crate) data: Bytes,
    /// The creation time, where the bundle is one of ours.
    pub(crate) stamp: Option<u64>,
    /// Of a fragment of a bundle for us: where its payload begins, and how long it is.
    pub(crate) part: Option<(u64, u64)>,
}

/// A fragment in the store.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) stored: Stored,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Record {
    fn octets(&self) -> u64 {
        self.data.len() as u64 + ROW
    }
}

/// A bundle in the store.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) id: i64,
    pub(crate) key: String,
    pub(crate) received: i64,
    pub(crate) expires: i64,
    pub(crate) octets: u64,
    pub(crate) verified: Option<String>,
    file: Option<String>,
    data: Option<Bytes>,
}

/// Why the store did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The bound that was configured.
    #[error("the bundle store may hold {most} octets and holds {used}")]
    Bound { used: u64, most: u64 },
    /// The disk.
    #[error("no room on the disk of {path}")]
    Full { path: String },
    /// Anything else.
    #[error("{path}: {cause}")]
    Fault { path: String, cause: String },
    /// The node ends.
    #[error("the bundle node is ending")]
    Closed,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {cause}; {remedy}")]
pub(crate) struct OpenStoreError {
    pub(crate) path: String,
    pub(crate) cause: String,
    pub(crate) remedy: &'static str,
}

/// What the handle and the writer both look at.
pub(crate) struct Shared {
    directory: PathBuf,
    clock: Clock,
    used: AtomicU64,
    most: u64,
    remembered: AtomicU64,
    most_remembered: u64,
    /// When the next bundle expires, as far as anybody looked.
    next_expiry: AtomicI64,
    expiry_changed: Notify,
    /// Who waits for bundles, by place.
    waiting: Mutex<HashMap<String, Arc<Notify>>>,
    /// What keeps it from writing.
    failing: Mutex<Option<String>>,
}

impl Shared {
    fn path(&self) -> PathBuf {
        self.directory.join("bundles.db")
    }

    fn wake(&self, place: &str) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = waiting.get(place) {
            notify.notify_one();
        }
    }

    /// Room for `octets`, if there is.
    fn reserve(&self, octets: u64) -> Result<(), StoreError> {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(octets).filter(|it| *it <= self.most)
            })
            .map(drop)
            .map_err(|used| StoreError::Bound {
                used,
                most: self.most,
            })
    }

    fn release(&self, octets: u64) {
        self.used.fetch_sub(octets, Ordering::AcqRel);
    }
}

/// The store.
pub(crate) struct Store {
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedSender<Job>,
    reader: tokio::sync::Mutex<Reader>,
    /// Keeps a second node out of the folder until this one has ended.
    lock: Mutex<Option<std::fs::File>>,
}

/// The answer to a [`Store::put`] that is on its way.
pub(crate) struct Putting {
    answer: oneshot::Receiver<Result<bool, StoreError>>,
    clock: Clock,
}

impl Putting {
    /// Waits until it is on disk; whether it is new.
    pub(crate) async fn stored(self) -> Result<bool, StoreError> {
        let _hold = self.clock.hold();
        self.answer.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Store {
    /// Whom to wake when a bundle comes to `place`.
    pub(crate) fn waiting_at(&self, place: &Place) -> Arc<Notify> {
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(waiting.entry(place.text()).or_default())
    }

    /// Begins to store `record`, and `also` with it if it is new. `instead`: what goes in the same step.
    ///
    /// # Errors
    /// When there is no room for it, or its file cannot be written.
    pub(crate) async fn put(
        &self,
        record: Record,
        also: Vec<Record>,
        instead: Vec<Stored>,
    ) -> Result<Putting, StoreError> {
        let octets = record.octets();
        self.shared.reserve(octets)?;
        let file = if record.data.len() >= INLINE {
            let _hold = self.shared.clock.hold();
            let written = files::write(&self.shared.directory, record.data.clone()).await;
            Some(written.inspect_err(|_| self.shared.release(octets))?)
        } else {
            None
        };
        let (answer, receiver) = oneshot::channel();
        let job = Job {
            command: Command::Put {
                record: Box::new(record),
                file,
                also,
                instead,
            },
            answer: Answer::Channel(answer),
        };
        self.jobs.send(job).map_err(|_| StoreError::Closed)?;
        Ok(Putting {
            answer: receiver,
            clock: self.shared.clock.clone(),
        })
    }

    /// Stores records of the node itself, for which there is always room.
    pub(crate) fn add(&self, records: Vec<Record>) {
        if !records.is_empty() {
            self.submit(Command::Add(records), Answer::None);
        }
    }

    /// Lets a bundle go once `then` is reached, and stores `also` if it was still there. `remember`: it shall not be taken again.
    pub(crate) fn take(
        &self,
        stored: &Stored,
        remember: bool,
        also: Vec<Record>,
        then: impl FnOnce(bool) + Send + Sync + 'static,
    ) {
        let command = Command::Take {
            id: stored.id,
            octets: stored.octets,
            file: stored.file.clone(),
            remember,
            also,
        };
        self.submit(command, Answer::Call(Box::new(then)));
    }

    /// [`Store::take`], waited for; whether it was still there.
    ///
    /// # Errors
    /// When the store cannot write.
    pub(crate) async fn taken(
        &self,
        stored: &Stored,
        remember: bool,
        also: Vec<Record>,
    ) -> Result<bool, StoreError> {
        let (answer, receiver) = oneshot::channel();
        let command = Command::Take {
            id: stored.id,
            octets: stored.octets,
            file: stored.file.clone(),
            remember,
            also,
        };
        self.submit(command, Answer::Channel(answer));
        let _hold = self.shared.clock.hold();
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Forgets what needs not be remembered any more.
    pub(crate) fn forget(&self, now: i64) {
        self.submit(Command::Forget { now }, Answer::None);
    }

    fn submit(&self, command: Command, answer: Answer) {
        // Without a writer nothing is lost: what was not written is done again at the next start.
        drop(self.jobs.send(Job { command, answer }));
    }

    /// Up to `limit` bundles at `place` of one rank, behind `after`.
    pub(crate) async fn waiting(
        &self,
        place: &Place,
        rank: u8,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Stored>, StoreError> {
        let _hold = self.shared.clock.hold();
        self.reader
            .lock()
            .await
            .waiting(&place.text(), rank, after, limit)
            .await
    }

    /// A bundle by its key, if it waits for a neighbour or a route.
    pub(crate) async fn outgoing(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        let _hold = self.shared.clock.hold();
        self.reader.lock().await.outgoing(key).await
    }

    /// Up to `limit` bundles whose lifetime is over at `now`.
    pub(crate) async fn expired(&self, now: i64, limit: u32) -> Result<Vec<Stored>, StoreError> {
        let _hold = self.shared.clock.hold();
        self.reader.lock().await.expired(now, limit).await
    }

    /// Up to `limit` fragments at `place`, in order.
    pub(crate) async fn parts(&self, place: &Place, limit: u32) -> Result<Vec<Part>, StoreError> {
        let _hold = self.shared.clock.hold();
        self.reader.lock().await.parts(&place.text(), limit).await
    }

    /// The keys of all bundles of which there are fragments.
    pub(crate) async fn fragmented(&self) -> Result<Vec<String>, StoreError> {
        let _hold = self.shared.clock.hold();
        self.reader.lock().await.fragmented().await
    }

    /// How many bundles wait at `place`.
    pub(crate) async fn count(&self, place: &Place) -> Result<u64, StoreError> {
        let _hold = self.shared.clock.hold();
        self.reader.lock().await.count(&place.text()).await
    }

    /// Looks up when the next row's lifetime ends.
    pub(crate) async fn next_expiry(&self) -> Result<i64, StoreError> {
        let _hold = self.shared.clock.hold();
        // Before the look, so that what is stored meanwhile is not overlooked.
        self.shared.next_expiry.store(i64::MAX, Ordering::Release);
        let found = self.reader.lock().await.next_expiry().await?;
        Ok(found.min(self.shared.next_expiry.fetch_min(found, Ordering::AcqRel)))
    }

    /// Pends until something is stored that expires before everything else.
    pub(crate) async fn earlier_expiry(&self) {
        self.shared.expiry_changed.notified().await;
    }

    /// The octets of a bundle.
    pub(crate) async fn load(&self, stored: &Stored) -> Result<Bytes, StoreError> {
        if let Some(data) = &stored.data {
            return Ok(data.clone());
        }
        let _hold = self.shared.clock.hold();
        match &stored.file {
            Some(name) => files::read(&self.shared.directory, name).await,
            None => self.reader.lock().await.data(stored.id).await,
        }
    }

    /// Octets in the store.
    pub(crate) fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Acquire)
    }

    /// What keeps it from writing now.
    pub(crate) fn failing(&self) -> Option<String> {
        self.shared
            .failing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Writes what waits and lets go of the files.
    pub(crate) async fn close(&self) {
        let (answer, receiver) = oneshot::channel();
        self.submit(Command::Close, Answer::Channel(answer));
        let _hold = self.shared.clock.hold();
        drop(receiver.await);
        self.reader.lock().await.close().await;
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
