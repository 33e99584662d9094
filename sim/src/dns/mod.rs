//! An authoritative name server for one zone, over UDP and TCP.

mod answer;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often a port that UDP has and TCP does not is given up for another.
const PORTS: usize = 16;

/// What a name has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Type 256 (RFC 7553).
    Uri {
        /// The lowest is tried first.
        priority: u16,
        /// Share among equal priorities.
        weight: u16,
        /// The URI.
        target: String,
    },
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
}

/// A zone, all of whose records share one TTL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its apex, such as `moon.example`.
    pub origin: String,
    /// Time to live in seconds, for negative answers too (RFC 2308).
    pub ttl: u32,
    /// Full names and what they have.
    pub records: Vec<(String, Data)>,
}

/// The zone holds something that DNS cannot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZoneError {
    /// Not a domain name.
    #[error("{0}: not a domain name")]
    Name(String),
    /// Outside of the zone.
    #[error("{0}: not in the zone")]
    Outside(String),
    /// A URI record without a target (RFC 7553 section 4.4), or one that is too long.
    #[error("{0}: a URI of 1 to 60000 octets is wanted")]
    Target(String),
}

/// A running name server; dropping it stops it.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    zone: RwLock<Arc<answer::Names>>,
    silent: AtomicBool,
    queries: AtomicU64,
}

impl Dns {
    /// Serves `zone` on `listen`; port 0 takes one that is free for both UDP and TCP.
    ///
    /// # Errors
    /// The address cannot be bound, or the zone does not do ([`ZoneError`], inside).
    pub async fn start(listen: SocketAddr, zone: &Zone) -> io::Result<Self> {
        let names =
            answer::Names::new(zone).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let (udp, tcp) = bind(listen).await?;
        let address = udp.local_addr()?;
        let shared = Arc::new(Shared {
            zone: RwLock::new(Arc::new(names)),
            silent: AtomicBool::new(false),
            queries: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(serve_udp(udp, Arc::clone(&shared))),
        );
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(serve_tcp(tcp, Arc::clone(&shared))),
        );
        Ok(Self {
            address,
            shared,
            _stop: stop.drop_guard(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves another zone from now on.
    ///
    /// # Errors
    /// The zone does not do; the old one stays.
    pub fn set(&self, zone: &Zone) -> Result<(), ZoneError> {
        let names = Arc::new(answer::Names::new(zone)?);
        *self.shared.zone.write().unwrap_or_else(PoisonError::into_inner) = names;
        Ok(())
    }

    /// Whether queries stay without an answer.
    pub fn silence(&self, silent: bool) {
        self.shared.silent.store(silent, Relaxed);
    }

    /// How many queries came in, answered or not.
    pub fn queries(&self) -> u64 {
        self.shared.queries.load(Relaxed)
    }
}

impl Shared {
    /// The answer to a query, if there is to be one.
    fn answer(&self, query: &[u8], udp: bool) -> Option<Vec<u8>> {
        self.queries.fetch_add(1, Relaxed);
        if self.silent.load(Relaxed) {
            return None;
        }
        let names = Arc::clone(&self.zone.read().unwrap_or_else(PoisonError::into_inner));
        names.answer(query, udp)
    }
}

async fn bind(listen: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut failure = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORTS {
        let tcp = TcpListener::bind(listen).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) {
    let mut query = vec![0; 4096];
    loop {
        // An error belongs to an answer sent earlier.
        if let Ok((size, client)) = socket.recv_from(&mut query).await
            && let Some(answer) = shared.answer(query.get(..size).unwrap_or_default(), true)
            && let Err(error) = socket.send_to(&answer, client).await
        {
            tracing::debug!(%client, %error, "answer not sent");
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(converse(stream, Arc::clone(&shared)));
            }
            Err(error) => {
                tracing::warn!(%error, "the name server cannot accept a connection");
                connections.join_next().await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Queries and answers behind their lengths (RFC 1035 section 4.2.2).
async fn converse(mut stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    loop {
        let mut query = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut query).await?;
        let Some(answer) = shared.answer(&query, false) else {
            continue;
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream
            .write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())
            .await?;
    }
}
