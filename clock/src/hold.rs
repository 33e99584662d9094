//! Holding virtual time while something outside the runtime is waited for.
//!
//! Tokio's paused clock jumps to the next timer as soon as no task can run. A task that waits for a database's thread, or for
//! octets on a loopback socket, cannot run either, and so a query of a millisecond would take until the next retry, which may
//! be a day. Tokio does not jump while a blocking task runs (`runtime/blocking/schedule.rs`): for as long as somebody holds,
//! there is one, which does nothing.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Handle, RuntimeFlavor};

/// Keeps virtual time from being advanced while it lives; nothing where time is real. See [`crate::Clock::hold`].
#[derive(Debug)]
#[must_use = "time is held while this lives"]
pub struct Hold(Option<Arc<Brake>>);

/// Who holds, and whether the blocking task runs.
#[derive(Debug, Default)]
pub(crate) struct Brake {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    holds: usize,
    braking: bool,
}

impl Hold {
    pub(crate) const NONE: Self = Self(None);
}

impl Brake {
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        // Only a runtime of one thread can be paused, and outside of one there is none.
        let paused = Handle::try_current().ok();
        let Some(handle) = paused.filter(|it| it.runtime_flavor() == RuntimeFlavor::CurrentThread) else {
            return Hold::NONE;
        };
        let mut state = self.lock();
        state.holds += 1;
        if !std::mem::replace(&mut state.braking, true) {
            let brake = Arc::clone(self);
            // From here on, before its thread runs, tokio counts it.
            drop(handle.spawn_blocking(move || brake.wait()));
        }
        drop(state);
        Hold(Some(Arc::clone(self)))
    }

    fn wait(&self) {
        let mut state = self.lock();
        while state.holds > 0 {
            state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.braking = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(brake) = &self.0 {
            let mut state = brake.lock();
            state.holds -= 1;
            if state.holds == 0 {
                brake.released.notify_all();
            }
        }
    }
}
