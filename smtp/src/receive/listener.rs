//! Accepting connections, up to the limits.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lightpost_clock::Clock;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Connection, Peer, Receiver, Settings, converse};

/// How long running connections may take after the stop.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait after a failed accept, which usually means that the process has no more file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a refusal may take to leave.
const REFUSAL: Duration = Duration::from_secs(5);

/// Where connections come in.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// Serves `listener` until `stop`. Connections that are open then may end what they are doing for a few seconds.
pub async fn serve<R: Receiver>(
    listener: Listener,
    receiver: Arc<R>,
    settings: Arc<Settings>,
    clock: Clock,
    stop: CancellationToken,
) {
    let house = House {
        receiver,
        places: Arc::new(Places::new(&settings)),
        settings,
        clock,
        stop,
        tasks: TaskTracker::new(),
    };
    loop {
        let accepted = async {
            match &listener {
                Listener::Tcp(tcp) => tcp.accept().await.map(|(stream, address)| {
                    // Replies are written whole.
                    let _ = stream.set_nodelay(true);
                    house.welcome(stream, Some(address.ip().to_canonical()));
                }),
                Listener::Unix(unix) => unix.accept().await.map(|(stream, _)| house.welcome(stream, None)),
            }
        };
        let accepted = tokio::select! {
            () = house.stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "a connection could not be accepted");
            house.clock.sleep(PAUSE).await;
        }
    }
    drop(listener);
    house.tasks.close();
    let _ = house.clock.timeout(GRACE, house.tasks.wait()).await;
}

struct House<R: Receiver> {
    receiver: Arc<R>,
    settings: Arc<Settings>,
    places: Arc<Places>,
    clock: Clock,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl<R: Receiver> House<R> {
    fn welcome(&self, stream: impl Connection + 'static, address: Option<IpAddr>) {
        let Some(place) = self.places.take(address) else {
            tracing::debug!(?address, "too many connections");
            // Refusals are bounded, too: beyond as many again the connection is dropped without a word.
            if let Some(place) = self.places.refuse() {
                let clock = self.clock.clone();
                self.tasks.spawn(async move {
                    let _place = place;
                    refuse(stream, &clock).await;
                });
            }
            return;
        };
        let (receiver, settings) = (self.receiver.clone(), self.settings.clone());
        let (clock, stop) = (self.clock.clone(), self.stop.clone());
        let peer = Peer {
            address,
            ..Peer::default()
        };
        self.tasks.spawn(async move {
            let _place = place;
            let ending = stop.clone();
            let late = async {
                ending.cancelled().await;
                clock.sleep(GRACE).await;
            };
            tokio::select! {
                () = converse(stream, peer, receiver, settings, clock.clone(), stop) => {}
                () = late => {}
            }
        });
    }
}

async fn refuse(mut stream: impl AsyncWrite + Unpin, clock: &Clock) {
    let last = async {
        stream.write_all(b"421 4.3.2 too many connections\r\n").await?;
        stream.shutdown().await
    };
    let _ = clock.timeout(REFUSAL, last).await;
}

/// Who is here.
struct Places {
    most: usize,
    most_of_one: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    refusals: usize,
    of: HashMap<IpAddr, usize>,
}

/// A connection's place; free again when dropped.
struct Place {
    places: Arc<Places>,
    kind: Kind,
}

enum Kind {
    Served(Option<IpAddr>),
    Refused,
}

impl Places {
    fn new(settings: &Settings) -> Self {
        Self {
            most: settings.connections,
            most_of_one: settings.connections_per_address,
            taken: Mutex::default(),
        }
    }

    fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Place> {
        let mut taken = self.lock();
        if taken.all >= self.most {
            return None;
        }
        if let Some(address) = address {
            let of_one = taken.of.entry(address).or_default();
            if *of_one >= self.most_of_one {
                return None;
            }
            *of_one += 1;
        }
        taken.all += 1;
        drop(taken);
        Some(self.place(Kind::Served(address)))
    }

    fn refuse(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.lock();
        if taken.refusals >= self.most {
            return None;
        }
        taken.refusals += 1;
        drop(taken);
        Some(self.place(Kind::Refused))
    }

    fn place(self: &Arc<Self>, kind: Kind) -> Place {
        Place {
            places: self.clone(),
            kind,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        match self.kind {
            Kind::Refused => taken.refusals -= 1,
            Kind::Served(address) => {
                taken.all -= 1;
                if let Some(address) = address
                    && let Some(of_one) = taken.of.get_mut(&address)
                {
                    *of_one -= 1;
                    if *of_one == 0 {
                        taken.of.remove(&address);
                    }
                }
            }
        }
    }
}
