//! One HTTP/3 connection to a gateway, and one exchange on it.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use h3::{
    client::{RequestStream, SendRequest},
    error::{Code, StreamError},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use lightpost_clock::Instant;
use quinn::ZeroRttAccepted;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{
    streams::{Connection, Opener, PRIORITY, Receiving, Sending},
    turns::{CLASS_BITS, Turn, Turns},
};
use crate::{Exchange, Reply, exchange::urgency};

/// Octets that are handed to the connection at once: it scans what it has not sent piece by piece, so large pieces are cheap.
const PIECE: usize = 1 << 20;
/// Octets that are worth sending while the store is still reading.
const READY: usize = 64 << 10;
/// Mails above this wait for their turn.
const LARGE: u64 = 64 << 10;
/// Octets of a reply's body that are kept.
pub(crate) const REPLY_LIMIT: usize = 64 << 10;
/// Octets of header fields that a gateway may send.
const HEADER_LIMIT: u64 = 64 << 10;

/// A connection that stands, or one that carries early data while it is being opened.
pub(crate) struct Session {
    connection: quinn::Connection,
    layer: watch::Receiver<Layer>,
    early: bool,
    /// Who of those with much to send may.
    turns: Turns,
    /// When it was opened.
    pub(super) begun: Instant,
    /// Whether another one is being opened in its place.
    pub(super) renewing: AtomicBool,
}

/// HTTP/3 on the connection. When the gateway rejects early data there is a second one (RFC 9001 section 4.6.2).
#[derive(Clone)]
struct Layer {
    /// Which it is.
    number: u8,
    /// Whether the gateway has spoken.
    sure: bool,
    http: Result<SendRequest<Opener, Bytes>, String>,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The first octets are on their way.
    Begun,
    /// The connection has all of it.
    Whole,
}

/// Why an exchange on a session came to nothing.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The gateway has not seen the request, or has said that it will not process it.
    NotSent(String),
    /// The connection is gone while the request may have been under way.
    Lost(String),
    /// This request came to nothing; the connection lives.
    Stream(String),
    /// The body could not be read from the store.
    Object(String),
}

impl Session {
    /// Opens HTTP/3 on `connection`.
    pub(crate) async fn open(connection: quinn::Connection, begun: Instant) -> Result<Self, String> {
        let (sender, _driver) = build(Connection::new(connection.clone())).await?;
        let layer = Layer {
            number: 0,
            sure: true,
            http: Ok(sender),
        };
        Ok(Self {
            connection,
            layer: watch::channel(layer).1,
            early: false,
            turns: Turns::default(),
            begun,
            renewing: AtomicBool::new(false),
        })
    }

    /// Opens HTTP/3 on `connection` before the gateway has answered at all. The second part is to be run until it ends: it waits
    /// for the answer, opens HTTP/3 once more when early data was rejected, and says how the handshake ended.
    pub(crate) async fn early(
        connection: quinn::Connection,
        accepted: ZeroRttAccepted,
        begun: Instant,
    ) -> Result<(Self, impl Future<Output = Result<(), String>> + Send), String> {
        let (tell, told) = oneshot::channel();
        let (sender, driver) = build(Connection::early(connection.clone(), told)).await?;
        let (layers, layer) = watch::channel(Layer {
            number: 0,
            sure: false,
            http: Ok(sender),
        });
        let verdict = {
            let connection = connection.clone();
            async move {
                if accepted.await {
                    let _ = tell.send(());
                    layers.send_modify(|layer| layer.sure = true);
                    return Ok(());
                }
                // In this order: the last sender takes the connection with it while there is a driver to hear of it.
                driver.abort();
                let _ = driver.await;
                let again = match connection.close_reason() {
                    Some(reason) => Err(reason.to_string()),
                    None => build(Connection::new(connection)).await,
                };
                let ended = again.as_ref().map(drop).map_err(Clone::clone);
                layers.send_replace(Layer {
                    number: 1,
                    sure: true,
                    http: again.map(|(sender, _)| sender),
                });
                ended
            }
        };
        let session = Self {
            connection,
            layer,
            early: true,
            turns: Turns::default(),
            begun,
            renewing: AtomicBool::new(false),
        };
        Ok((session, verdict))
    }

    #[cfg(test)]
    pub(crate) fn early_accepted(&self) -> bool {
        let layer = self.layer.borrow();
        self.early && layer.sure && layer.number == 0 && layer.http.is_ok()
    }

    /// Whether requests may have left before the gateway answered at all.
    pub(crate) fn is_early(&self) -> bool {
        self.early
    }

    /// Whether the connection still stands, as far as is known here.
    pub(crate) fn stands(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Datagrams that came over it so far.
    pub(crate) fn received(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// What QUIC takes for its round trip.
    pub(crate) fn round_trip(&self) -> Duration {
        self.connection.rtt()
    }

    /// Sends the request and reads the reply. `reached` hears how far it has come. A large one waits for its turn first.
    ///
    /// As early data it is sent a second time when the gateway rejects the first, which it has not seen then.
    /// Dropping the future takes the request back: what is unsent is reset, never ended as if it were whole.
    pub(crate) async fn post(&self, exchange: &Exchange, reached: impl Fn(Stage)) -> Result<Reply, Broken> {
        let left = AtomicBool::new(false);
        let reached = |stage| {
            left.store(true, Ordering::Relaxed);
            reached(stage);
        };
        loop {
            let layer = self.layer.borrow().clone();
            let sender = match layer.http {
                Ok(sender) => sender,
                Err(cause) if left.load(Ordering::Relaxed) => return Err(Broken::Lost(cause)),
                Err(cause) => return Err(Broken::NotSent(cause)),
            };
            let attempt = self.attempt(exchange, sender, &reached);
            if layer.sure {
                return attempt.await;
            }
            let broken = tokio::select! {
                outcome = attempt => match outcome {
                    Err(broken @ (Broken::Stream(_) | Broken::NotSent(_) | Broken::Lost(_))) => broken,
                    outcome => return outcome,
                },
                () = self.replaced(layer.number) => continue,
            };
            // What looks like a fault may be the rejection.
            let settled = self.layer.clone().wait_for(|layer| layer.sure).await.is_ok();
            if !settled || self.layer.borrow().number == layer.number {
                return Err(broken);
            }
        }
    }

    /// Returns when the HTTP/3 called `number` has come to an end because early data was rejected.
    async fn replaced(&self, number: u8) {
        let mut layer = self.layer.clone();
        if layer.wait_for(|layer| layer.number != number).await.is_err() {
            std::future::pending().await
        }
    }

    async fn attempt(
        &self,
        exchange: &Exchange,
        mut sender: SendRequest<Opener, Bytes>,
        reached: impl Fn(Stage),
    ) -> Result<Reply, Broken> {
        let request = request(exchange).map_err(Broken::NotSent)?;
        let class = i32::from(exchange.priority);
        let mut turn = match exchange.octets > LARGE {
            true => Some(self.turns.take(class).await),
            false => None,
        };
        let priority = (class << CLASS_BITS) - turn.as_ref().map_or(0, Turn::behind);
        let stream = PRIORITY
            .scope(priority, sender.send_request(request))
            .await
            .map_err(|error| unsent(&error))?;
        reached(Stage::Begun);
        let (outgoing, incoming) = stream.split();
        let mut upload = pin!(upload(exchange, outgoing));
        let mut answer = pin!(answer(exchange, incoming));
        let mut uploaded = false;
        loop {
            tokio::select! {
                // A gateway may answer before it has the whole body, and then stop reading.
                reply = &mut answer => return reply.map_err(|broken| self.judge(broken)),
                end = &mut upload, if !uploaded => match end {
                    Ok(()) | Err(Broken::Stream(_)) => {
                        uploaded = true;
                        drop(turn.take());
                        reached(Stage::Whole);
                    }
                    Err(broken) => return Err(self.judge(broken)),
                },
            }
        }
    }

    /// Whatever a stream says, without its connection the request is lost.
    fn judge(&self, broken: Broken) -> Broken {
        match (broken, self.connection.close_reason()) {
            (Broken::Stream(_) | Broken::Lost(_), Some(reason)) => Broken::Lost(reason.to_string()),
            (broken, _) => broken,
        }
    }
}

/// HTTP/3 and what drives it, which ends with the connection: when the last sender is dropped, or when the peer closes it.
async fn build(connection: Connection) -> Result<(SendRequest<Opener, Bytes>, JoinHandle<()>), String> {
    let mut builder = h3::client::builder();
    builder.max_field_section_size(HEADER_LIMIT).send_grease(false);
    let built = builder.build::<_, _, Bytes>(connection).await;
    let (mut driver, sender) = built.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(async move {
        let end = driver.wait_idle().await;
        tracing::debug!(%end, "connection ended");
    });
    Ok((sender, driver))
}

fn request(exchange: &Exchange) -> Result<Request<()>, String> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(exchange.gateway.as_str())
        .body(())
        .map_err(|error| format!("no request can be made of {}: {error}", exchange.gateway))?;
    *request.headers_mut() = exchange.headers.clone();
    // Fields of one connection only have no place in HTTP/3 (RFC 9114 section 4.2); `:authority` comes from the URI.
    for name in [
        header::HOST,
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        request.headers_mut().remove(name);
    }
    // The default goes without saying (RFC 9218 section 4.1).
    if exchange.priority != 0
        && let Ok(value) = HeaderValue::try_from(format!("u={}", urgency(exchange.priority)))
    {
        request
            .headers_mut()
            .insert(HeaderName::from_static("priority"), value);
    }
    if let Some(size) = exchange.object.size() {
        request
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    }
    Ok(request)
}

async fn upload(
    exchange: &Exchange,
    mut outgoing: RequestStream<Sending<Bytes>, Bytes>,
) -> Result<(), Broken> {
    let mut object = exchange.object.open();
    let (mut total, mut piece) = (0u64, BytesMut::new());
    loop {
        // A small mail waits for its end, so that both leave together; a large one does not wait for a slow store.
        let chunk = match piece.len() >= READY {
            false => object.next().await,
            true => match object.next().now_or_never() {
                Some(chunk) => chunk,
                None => {
                    send(&mut outgoing, &mut piece).await?;
                    continue;
                }
            },
        };
        let Some(chunk) = chunk else { break };
        let mut chunk = chunk.map_err(|error| Broken::Object(error.to_string()))?;
        total += chunk.len() as u64;
        while piece.len() + chunk.len() > PIECE {
            piece.extend_from_slice(&chunk.split_to(PIECE - piece.len()));
            send(&mut outgoing, &mut piece).await?;
        }
        piece.extend_from_slice(&chunk);
    }
    if let Some(size) = exchange.object.size().filter(|size| *size != total) {
        return Err(Broken::Object(format!(
            "it has {total} octets, {size} were announced"
        )));
    }
    if !piece.is_empty() {
        send(&mut outgoing, &mut piece).await?;
    }
    outgoing.finish().await.map_err(|error| broken(&error))
}

async fn send(
    outgoing: &mut RequestStream<Sending<Bytes>, Bytes>,
    piece: &mut BytesMut,
) -> Result<(), Broken> {
    let sent = outgoing.send_data(piece.split().freeze()).await;
    sent.map_err(|error| broken(&error))
}

async fn answer(exchange: &Exchange, mut incoming: RequestStream<Receiving, Bytes>) -> Result<Reply, Broken> {
    let (head, ()) = loop {
        let response = incoming.recv_response().await.map_err(|error| broken(&error))?;
        // Interim responses precede the real one (RFC 9114 section 4.1).
        if !response.status().is_informational() {
            break response.into_parts();
        }
    };
    let (mut body, mut total) = (BytesMut::new(), 0u64);
    while let Some(mut part) = incoming.recv_data().await.map_err(|error| broken(&error))? {
        total += part.remaining() as u64;
        let kept = part.remaining().min(REPLY_LIMIT - body.len());
        body.extend_from_slice(&part.copy_to_bytes(kept));
        if body.len() == REPLY_LIMIT {
            incoming.stop_sending(Code::H3_NO_ERROR);
            return Ok(reply(exchange, head, body));
        }
    }
    if let Some(announced) = content_length(&head.headers).filter(|length| *length != total) {
        return Err(Broken::Stream(format!(
            "the reply has {total} octets, {announced} were announced"
        )));
    }
    Ok(reply(exchange, head, body))
}

fn reply(exchange: &Exchange, head: http::response::Parts, body: BytesMut) -> Reply {
    Reply {
        exchange: exchange.id,
        status: head.status,
        headers: head.headers,
        body: body.freeze(),
    }
}

/// The `Content-Length` of a message, when it has a readable one.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// An error before the request was on its way.
fn unsent(error: &StreamError) -> Broken {
    Broken::NotSent(error.to_string())
}

/// An error after that.
fn broken(error: &StreamError) -> Broken {
    match error {
        StreamError::RemoteTerminate {
            code: Code::H3_REQUEST_REJECTED,
            ..
        } => Broken::NotSent("the gateway is shutting down".into()),
        StreamError::ConnectionError { .. } => Broken::Lost(error.to_string()),
        other => Broken::Stream(other.to_string()),
    }
}
