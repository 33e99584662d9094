//! A neighbour, and how it is.

use std::sync::{Arc, Mutex, PoisonError};

use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::{config::Neighbour, feed::Feed};

/// Whether there is a connection to a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// There is.
    Up,
    /// There is none.
    Down {
        /// Why.
        why: String,
    },
}

/// A neighbour.
pub(crate) struct Peer {
    pub(crate) neighbour: Neighbour,
    /// What waits for it.
    pub(crate) feed: Arc<Feed>,
    /// The name that its certificate has to have, and what checks that.
    pub(crate) tls: Option<(ServerName<'static>, TlsConnector)>,
    state: Mutex<NeighbourState>,
}

impl Peer {
    pub(crate) fn new(
        neighbour: Neighbour,
        feed: Arc<Feed>,
        tls: Option<(ServerName<'static>, TlsConnector)>,
    ) -> Self {
        Self {
            neighbour,
            feed,
            tls,
            state: Mutex::new(NeighbourState::Down {
                why: "it was not called yet".to_owned(),
            }),
        }
    }

    pub(crate) fn state(&self) -> NeighbourState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes how it is, and tells the log when that changes.
    pub(crate) fn set(&self, state: NeighbourState) {
        let mut now = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let name = &self.neighbour.name;
        match (&*now, &state) {
            (NeighbourState::Down { .. }, NeighbourState::Up) => tracing::info!(name, "neighbour connected"),
            (NeighbourState::Up, NeighbourState::Down { why }) => {
                tracing::info!(name, why, "neighbour disconnected");
            }
            (NeighbourState::Down { why: before }, NeighbourState::Down { why }) if before != why => {
                tracing::warn!(name, why, "neighbour cannot be reached");
            }
            _ => {}
        }
        *now = state;
    }
}
