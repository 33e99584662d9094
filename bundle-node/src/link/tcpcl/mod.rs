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

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::{
    End, Port,
    peer::{NeighbourState, Peer},
};
use crate::custody::Core;

/// Serves a connection that another node made.
pub(super) async fn serve(core: &Arc<Core>, port: &Port, mut stream: TcpStream, peer: &str) -> End {
    if let Err(end) = contact::answer(core, &mut stream, port.tls.is_some()).await {
        return end;
    }
    let Some(config) = &port.tls else {
        return served(core, stream, peer).await;
    };
    let accepting = async { Ok(TlsAcceptor::from(Arc::clone(config)).accept(stream).await?) };
    match contact::within(core, accepting).await {
        Ok(stream) if port.clients && stream.get_ref().1.peer_certificates().is_none() => {
            End::Violation("it shows no certificate, which is required".to_owned())
        }
        Ok(stream) => served(core, stream, peer).await,
        Err(end) => end,
    }
}

async fn served<S: AsyncRead + AsyncWrite + Unpin>(core: &Arc<Core>, mut stream: S, peer: &str) -> End {
    match contact::passive(core, &mut stream).await {
        Ok(terms) => session::run(core, stream, &terms, None, peer).await,
        Err(end) => end,
    }
}

/// Keeps a connection to a neighbour.
pub(super) async fn keep(core: &Arc<Core>, mut stream: TcpStream, peer: &Arc<Peer>) -> End {
    if let Err(end) = contact::call(core, &mut stream, peer.tls.is_some()).await {
        return end;
    }
    let Some((name, connector)) = &peer.tls else {
        return kept(core, stream, peer).await;
    };
    let connecting = async { Ok(connector.connect(name.clone(), stream).await?) };
    match contact::within(core, connecting).await {
        Ok(stream) => kept(core, stream, peer).await,
        Err(end) => end,
    }
}

async fn kept<S: AsyncRead + AsyncWrite + Unpin>(core: &Arc<Core>, mut stream: S, peer: &Arc<Peer>) -> End {
    match contact::active(core, &mut stream).await {
        Ok(terms) => {
            peer.set(NeighbourState::Up);
            session::run(core, stream, &terms, Some(peer), &peer.neighbour.name).await
        }
        Err(end) => end,
    }
}
