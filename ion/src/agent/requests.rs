//! Requests to the helper and their answers.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lightpost_clock::Clock;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use crate::{
    protocol::{self, Outcome, Request, Trouble},
    words,
};

/// Requests under way at once; their payloads are in memory twice.
const AT_ONCE: usize = 64;
/// How much longer than the helper's own limit an answer is waited for.
const MARGIN: Duration = Duration::from_secs(2);

/// What is asked and not answered.
#[derive(Debug)]
pub(super) struct Requests {
    patience: Duration,
    clock: Clock,
    slots: Semaphore,
    next: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// To the helper; none while there is none that serves.
    serving: Option<Serving>,
    answers: HashMap<u64, oneshot::Sender<Outcome>>,
}

/// A helper that serves. Each has a silence of its own, so that requests which time out together end one helper, not the next one too.
#[derive(Clone, Debug)]
struct Serving {
    frames: mpsc::Sender<Vec<u8>>,
    silent: Arc<Notify>,
}

impl Requests {
    pub(super) fn new(patience: Duration, clock: Clock) -> Self {
        Self {
            patience,
            clock,
            slots: Semaphore::new(AT_ONCE),
            next: AtomicU64::new(1),
            open: Mutex::default(),
        }
    }

    /// Asks, and waits for the answer. Silence is [`Outcome::Down`], and the end of the helper that kept it.
    pub(super) async fn ask(&self, request: impl FnOnce(u64) -> Request, payload: &[u8]) -> Outcome {
        let limit = self.patience + MARGIN;
        let Ok(Ok(_slot)) = self.clock.timeout(limit, self.slots.acquire()).await else {
            return Outcome::NoRoom {
                why: format!("{AT_ONCE} requests wait for ION already"),
            };
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = match protocol::encode(&request(id), payload) {
            Ok(frame) => frame,
            Err(error) => {
                return Outcome::Refused {
                    why: error.to_string(),
                };
            }
        };
        let (answer, answered) = oneshot::channel();
        let serving = {
            let mut open = self.lock();
            let Some(serving) = open.serving.clone() else {
                return Outcome::Down(words::ended("it is not there"));
            };
            open.answers.insert(id, answer);
            serving
        };
        let outcome = self.clock.timeout(limit, async {
            if serving.frames.send(frame).await.is_err() {
                return None;
            }
            answered.await.ok()
        });
        match outcome.await {
            Ok(outcome) => outcome.unwrap_or_else(|| Outcome::Down(words::ended("before it answered"))),
            Err(_) => {
                self.lock().answers.remove(&id);
                serving.silent.notify_one();
                Outcome::Down(words::locked())
            }
        }
    }

    /// A helper serves: what is asked goes there. `silent` is told when it does not answer.
    pub(super) fn open(&self, frames: mpsc::Sender<Vec<u8>>, silent: Arc<Notify>) {
        self.lock().serving = Some(Serving { frames, silent });
    }

    /// No helper serves any more: what is asked is answered so.
    pub(super) fn close(&self, trouble: &Trouble) {
        let answers = {
            let mut open = self.lock();
            open.serving = None;
            std::mem::take(&mut open.answers)
        };
        for answer in answers.into_values() {
            let _ = answer.send(Outcome::Down(trouble.clone()));
        }
    }

    /// The helper answers; an answer that nobody waits for came too late.
    pub(super) fn answer(&self, id: u64, outcome: Outcome) {
        let answer = self.lock().answers.remove(&id);
        if let Some(answer) = answer {
            let _ = answer.send(outcome);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_that_time_out_together_end_one_helper() {
        let requests = Requests::new(Duration::from_secs(5), Clock::runtime(Timestamp::UNIX_EPOCH));
        let (frames, mut waiting) = mpsc::channel(4);
        let first = Arc::new(Notify::new());
        requests.open(frames, Arc::clone(&first));
        let ping = || requests.ask(|id| Request::Ping { id }, &[]);
        let (one, other) = tokio::join!(ping(), ping());
        for outcome in [one, other] {
            assert!(matches!(outcome, Outcome::Down(trouble) if trouble == words::locked()));
        }
        assert!(waiting.try_recv().is_ok() && waiting.try_recv().is_ok());
        let told = |silent: Arc<Notify>| async move {
            let limit = Duration::from_secs(1);
            tokio::time::timeout(limit, silent.notified()).await.is_ok()
        };
        assert!(told(Arc::clone(&first)).await, "the session hears of it");
        requests.close(&words::locked());

        let (frames, mut waiting) = mpsc::channel(4);
        let second = Arc::new(Notify::new());
        requests.open(frames, Arc::clone(&second));
        assert!(!told(second).await, "the next one did nothing wrong");
        let (outcome, ()) = tokio::join!(ping(), async {
            waiting.recv().await.unwrap();
            requests.answer(3, Outcome::NoRoute);
        });
        assert_eq!(outcome, Outcome::NoRoute);
    }
}
