//! What a TLS handshake cannot foresee, for the time of one call into it.
//!
//! rustls is deterministic but for five inputs: random octets, key shares and what becomes of them, signatures of our own, the
//! time, and the sessions that it finds. All five are asked for within synchronous calls, so each call is made on a [`Stage`]
//! that this thread holds meanwhile: when live, it writes down what was drawn; on replay, it hands out what was written down.
//! Outside of a stage the same configuration behaves as any other.

use std::{cell::RefCell, collections::VecDeque};

use rustls::{NamedGroup, client::Tls13ClientSessionValue};

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

/// What was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Random octets.
    Random = 0,
    /// Our public share of a key exchange.
    Share = 1,
    /// What the key exchange came to.
    Secret = 2,
    /// A signature of ours.
    Signature = 3,
}

impl Kind {
    pub(super) fn from_octet(octet: u8) -> Option<Self> {
        [Self::Random, Self::Share, Self::Secret, Self::Signature]
            .into_iter()
            .find(|kind| *kind as u8 == octet)
    }
}

/// One thing that was drawn.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Draw {
    pub(super) kind: Kind,
    pub(super) octets: Vec<u8>,
}

/// Where draws come from, or go to.
pub(super) enum Script {
    /// Everything drawn is kept.
    Live(Vec<Draw>),
    /// Nothing is drawn; this is handed out, in order.
    Replay(VecDeque<Draw>),
}

/// What one call into a handshake may draw upon, and what it leaves behind.
pub(super) struct Stage {
    /// TLS time, in seconds since 1970.
    pub(super) now: u64,
    pub(super) script: Script,
    /// The session to be resumed.
    pub(super) ticket: Option<Tls13ClientSessionValue>,
    /// The group to begin with, then the one that the gateway chose.
    pub(super) group: Option<NamedGroup>,
    /// The sessions that the gateway gave.
    pub(super) born: Vec<Tls13ClientSessionValue>,
}

/// Takes the stage away, however the call ends.
struct Curtain;

impl Drop for Curtain {
    fn drop(&mut self) {
        STAGE.take();
    }
}

impl Stage {
    pub(super) fn new(now: u64, script: Script) -> Self {
        Self {
            now,
            script,
            ticket: None,
            group: None,
            born: Vec::new(),
        }
    }

    /// Makes `call` with this in place.
    pub(super) fn run<T>(self, call: impl FnOnce() -> T) -> (T, Option<Self>) {
        let _curtain = Curtain;
        STAGE.set(Some(self));
        let said = call();
        (said, STAGE.take())
    }
}

/// What `kind` of thing comes next: made by `make` when live, handed out on replay. `None` when it could not be made, or when the
/// replay has left the script.
pub(super) fn draw(kind: Kind, make: impl FnOnce() -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let replayed = STAGE.with_borrow_mut(|stage| match stage {
        Some(Stage {
            script: Script::Replay(draws),
            ..
        }) => Some(draws.pop_front().filter(|draw| draw.kind == kind)),
        _ => None,
    });
    if let Some(draw) = replayed {
        return draw.map(|draw| draw.octets);
    }
    let octets = make()?;
    STAGE.with_borrow_mut(|stage| {
        if let Some(Stage {
            script: Script::Live(draws),
            ..
        }) = stage
        {
            let octets = octets.clone();
            draws.push(Draw { kind, octets });
        }
    });
    Some(octets)
}

/// Looks at the stage, if there is one.
pub(super) fn look<T>(look: impl FnOnce(&mut Stage) -> T) -> Option<T> {
    STAGE.with_borrow_mut(|stage| stage.as_mut().map(look))
}
