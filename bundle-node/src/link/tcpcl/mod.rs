//! TCPCLv4 (RFC 9174).
//!
//! A connection is one task that drives four things at once: what is read (`session`), what is written (`outlet`), bundles that come and
//! are acknowledged in order once they are on disk (`inlet`), bundles that leave (`transmit`).

mod contact;
mod inlet;
mod message;
mod outlet;
mod session;
mod transmit;

use std::sync::Arc;

use tokio::net::TcpStream;

use super::{
    End,
    peer::{NeighbourState, Peer},
};
use crate::custody::Core;

/// Serves a connection that another node made.
pub(super) async fn serve(core: &Arc<Core>, mut stream: TcpStream, peer: &str) -> End {
    match contact::passive(core, &mut stream).await {
        Ok(terms) => session::run(core, stream, &terms, None, peer).await,
        Err(end) => end,
    }
}

/// Keeps a connection to a neighbour.
pub(super) async fn keep(core: &Arc<Core>, mut stream: TcpStream, peer: &Arc<Peer>) -> End {
    match contact::active(core, &mut stream).await {
        Ok(terms) => {
            peer.set(NeighbourState::Up);
            session::run(core, stream, &terms, Some(peer), &peer.neighbour.name).await
        }
        Err(end) => end,
    }
}
