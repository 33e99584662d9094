//! An SMTP and LMTP server that takes every mail, counts it and throws it away.

mod conversation;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use jiff::Timestamp;
use lightpost_clock::Clock;
use lightpost_mail::{Envelope, Recipient, Sender};
use lightpost_smtp::send::Protocol;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A mail that the sink took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// When the final dot was read.
    pub at: Timestamp,
    /// The argument of MAIL.
    pub sender: Sender,
    /// The arguments of RCPT that were accepted, in order.
    pub recipients: Vec<Recipient>,
    /// The canonical body; empty where [`SinkOptions::keep_bodies`] is off.
    pub body: Bytes,
}

/// How a sink behaves.
#[derive(Clone, Debug)]
pub struct SinkOptions {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// Its name in greeting and EHLO.
    pub name: String,
    /// Whether bodies are kept for [`Sink::subscribe`]; a bench does without.
    pub keep_bodies: bool,
    /// The largest mail in octets, announced by SIZE; a larger one gets 552.
    pub size_limit: Option<u64>,
    /// Recipients that are refused at RCPT: the local part and the whole reply line, such as `550 5.1.1 no such user`.
    pub refused: Vec<(String, String)>,
    /// Recipients that LMTP refuses behind the final dot, likewise. SMTP ignores them.
    pub refused_late: Vec<(String, String)>,
}

impl Default for SinkOptions {
    /// SMTP, bodies kept, `refuse@` refused for good and `later@` for now.
    fn default() -> Self {
        Self {
            protocol: Protocol::Smtp,
            name: "sink.invalid".to_owned(),
            keep_bodies: true,
            size_limit: None,
            refused: vec![
                ("refuse".to_owned(), "550 5.1.1 no such user here".to_owned()),
                (
                    "later".to_owned(),
                    "451 4.2.1 not now, try again later".to_owned(),
                ),
            ],
            refused_late: Vec::new(),
        }
    }
}

/// A running sink; dropping it closes the listener and every connection.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    options: SinkOptions,
    clock: Clock,
    count: watch::Sender<u64>,
    subscribers: Mutex<Vec<mpsc::Sender<Arc<Received>>>>,
}

impl Sink {
    /// Starts to serve `listener`.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn start(listener: TcpListener, options: SinkOptions, clock: Clock) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            options,
            clock,
            count: watch::Sender::new(0),
            subscribers: Mutex::default(),
        });
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, Arc::clone(&shared), stop.clone()));
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

    /// Mails taken so far.
    pub fn count(&self) -> u64 {
        *self.shared.count.borrow()
    }

    /// Waits until `count` mails were taken.
    pub async fn wait_for(&self, count: u64) {
        // Fails only when the sender is gone, and that is ours.
        let _ = self
            .shared
            .count
            .subscribe()
            .wait_for(|taken| *taken >= count)
            .await;
    }

    /// Every mail taken from now on. A subscriber that leaves `capacity` mails unread makes the sink wait, before it answers
    /// the final dot.
    pub fn subscribe(&self, capacity: usize) -> mpsc::Receiver<Arc<Received>> {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        self.shared.subscribers().push(sender);
        receiver
    }
}

impl Shared {
    fn subscribers(&self) -> std::sync::MutexGuard<'_, Vec<mpsc::Sender<Arc<Received>>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a mail on and counts it.
    async fn take(&self, envelope: Envelope, body: Vec<u8>) {
        let subscribers = self.subscribers().clone();
        if !subscribers.is_empty() {
            let received = Arc::new(Received {
                at: self.clock.now(),
                sender: envelope.sender,
                recipients: envelope.recipients,
                body: body.into(),
            });
            for subscriber in &subscribers {
                if subscriber.send(Arc::clone(&received)).await.is_err() {
                    self.subscribers().retain(|known| !known.is_closed());
                }
            }
        }
        self.count.send_modify(|count| *count += 1);
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        if let Err(error) = conversation::converse(stream, &shared).await {
                            tracing::debug!(%peer, %error, "connection to the sink ended");
                        }
                    });
                }
                // Out of descriptors: the next one to finish makes room.
                Err(error) => {
                    tracing::warn!(%error, "the sink cannot accept a connection");
                    connections.join_next().await;
                }
            },
        }
    }
}
