//! Convergence layers: how bundles cross to a neighbour, and come from one.
//!
//! Each framing has two functions: one that serves a connection that somebody made to us, one that keeps a connection to a neighbour
//! while it holds. Bundles that come go to [`Core::accept`]; bundles that leave come from the neighbour's feed.

mod frame;
mod heard;
mod oneway;
pub(crate) mod peer;
mod tcpcl;
pub(crate) mod tls;

use std::{sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpStream};

use self::peer::{NeighbourState, Peer};
use crate::{config::Framing, count::Count, custody::Core};

/// How long to wait when the system has no descriptor left.
const STARVED: Duration = Duration::from_millis(500);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// The socket.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The other node broke the rules.
    #[error("{0}")]
    Violation(String),
    /// The other node was silent for too long.
    #[error("it was silent for too long")]
    Silent,
    /// In order.
    #[error("the connection ended in order")]
    Over,
}

/// A listening socket.
pub(crate) struct Port {
    pub(crate) socket: TcpListener,
    pub(crate) framing: Framing,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Whether callers have to show a certificate.
    pub(crate) clients: bool,
}

/// Takes connections until the node stops.
pub(crate) async fn listen(core: Arc<Core>, port: Port) {
    let port = Arc::new(port);
    let stop = core.stop.clone();
    let taking = async {
        loop {
            let Ok(permit) = Arc::clone(&core.sessions).acquire_owned().await else {
                return;
            };
            match port.socket.accept().await {
                Ok((stream, from)) => {
                    let (core, port) = (Arc::clone(&core), Arc::clone(&port));
                    core.tasks.clone().spawn(async move {
                        let _permit = permit;
                        let peer = from.to_string();
                        let end = serve(&core, &port, stream, &peer).await;
                        note(&core, &peer, &end);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    core.clock.sleep(STARVED).await;
                }
            }
        }
    };
    stop.run_until_cancelled(taking).await;
}

async fn serve(core: &Arc<Core>, port: &Port, stream: TcpStream, peer: &str) -> End {
    if let Err(error) = stream.set_nodelay(true) {
        return error.into();
    }
    match port.framing {
        Framing::Tcpcl => tcpcl::serve(core, port, stream, peer).await,
        framing => oneway::serve(core, framing, stream, peer).await,
    }
}

/// Keeps a neighbour connected until the node stops.
pub(crate) async fn dial(core: Arc<Core>, peer: Arc<Peer>) {
    let limits = &core.config.limits;
    let mut wait = limits.redial_first;
    while !core.stop.is_cancelled() {
        let end = match connect(&core, &peer).await {
            Ok(stream) => match peer.neighbour.framing {
                Framing::Tcpcl => tcpcl::keep(&core, stream, &peer).await,
                framing => oneway::keep(&core, framing, stream, &peer).await,
            },
            Err(error) => End::Io(error),
        };
        if peer.state() == NeighbourState::Up {
            wait = limits.redial_first;
        }
        note(&core, &peer.neighbour.name, &end);
        peer.set(NeighbourState::Down { why: end.to_string() });
        let stop = core.stop.clone();
        stop.run_until_cancelled(core.clock.sleep(wait)).await;
        wait = (wait * 2).min(limits.redial_most);
    }
}

async fn connect(core: &Core, peer: &Peer) -> std::io::Result<TcpStream> {
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    let connecting = core.clock.timeout(
        core.config.limits.handshake,
        TcpStream::connect(&peer.neighbour.address),
    );
    let stream = core
        .stop
        .run_until_cancelled(connecting)
        .await
        .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::Interrupted))?
        .map_err(late)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn note(core: &Core, peer: &str, end: &End) {
    if let End::Violation(what) = end {
        core.counters.fault(Count::Violations, &core.clock, peer, what);
    } else {
        tracing::debug!(peer, %end, "connection ended");
    }
}
