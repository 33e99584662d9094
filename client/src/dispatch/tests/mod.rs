//! The dispatcher with a real store and a transport that does as it is told.

mod exchanges;
mod fates;
mod gateways;
mod held;
mod notices;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{HeaderMap, StatusCode};
use lightpost_mail::{
    Recipient, Sender,
    lines::{BareLineEnds, Canonicaliser},
};
use lightpost_queue::{
    Filter, MessageView, NewBody, NewMessage, NewRecipient, Status, StoredReply, Submission,
};
use lightpost_sim::sink::{Sink, SinkOptions};
use lightpost_transport::{Exchange, Failure, Outcome, Reply};
use ulid::Ulid;

use super::*;
use crate::Client;

/// What a transport was asked to send.
#[derive(Clone, Debug)]
struct Sent {
    id: Ulid,
    gateway: String,
    headers: HeaderMap,
    object: Vec<u8>,
}

type Script = dyn Fn(&Sent) -> Outcome + Send + Sync;

/// A transport that does as it is told.
struct Scripted {
    script: Box<Script>,
    sent: Mutex<Vec<Sent>>,
    news: Notify,
    /// How long a failure to connect takes.
    connecting: Duration,
    /// What is heard later.
    late: tokio::sync::Mutex<mpsc::UnboundedReceiver<Late>>,
    tell: mpsc::UnboundedSender<Late>,
}

impl Scripted {
    fn slow(connecting: Duration, script: impl Fn(&Sent) -> Outcome + Send + Sync + 'static) -> Arc<Self> {
        let (tell, late) = mpsc::unbounded_channel();
        Arc::new(Self {
            script: Box::new(script),
            sent: Mutex::default(),
            news: Notify::new(),
            connecting,
            late: late.into(),
            tell,
        })
    }

    fn new(script: impl Fn(&Sent) -> Outcome + Send + Sync + 'static) -> Arc<Self> {
        Self::slow(Duration::ZERO, script)
    }

    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn wait_for(&self, count: usize) -> Vec<Sent> {
        let clock = Clock::system();
        clock
            .timeout(Duration::from_secs(20), async {
                loop {
                    let news = self.news.notified();
                    let sent = self.sent();
                    if sent.len() >= count {
                        return sent;
                    }
                    news.await;
                }
            })
            .await
            .unwrap_or_else(|_| panic!("only {} of {count} exchanges left", self.sent().len()))
    }
}

#[async_trait::async_trait]
impl Transport for Scripted {
    async fn send(&self, exchange: Exchange, _: Timestamp) -> Outcome {
        let octets: Vec<Bytes> = exchange.object.open().try_collect().await.unwrap();
        let octets = octets.concat();
        let encoded = exchange.headers.contains_key("content-encoding");
        let sent = Sent {
            id: exchange.id,
            gateway: exchange.gateway.to_string(),
            headers: exchange.headers,
            object: if encoded {
                zstd::decode_all(&octets[..]).unwrap()
            } else {
                octets
            },
        };
        let outcome = (self.script)(&sent);
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sent);
        self.news.notify_one();
        match outcome {
            Outcome::Failed(Failure::Unreachable { .. }) => {
                Clock::system().sleep(self.connecting).await;
                outcome
            }
            // Stands for "no reply, ever".
            Outcome::Failed(Failure::NoReply { waited, .. }) if waited == Duration::MAX => {
                std::future::pending().await
            }
            outcome => outcome,
        }
    }

    async fn late(&self) -> Late {
        match self.late.lock().await.recv().await {
            Some(late) => late,
            None => std::future::pending().await,
        }
    }
}

fn replied(status: u16, body: &str) -> Outcome {
    Outcome::Replied(Reply {
        exchange: Ulid::nil(),
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    })
}

fn unreachable() -> Outcome {
    Outcome::Failed(Failure::Unreachable {
        gateway: "gw".into(),
        cause: "connection refused".into(),
    })
}

fn never() -> Outcome {
    Outcome::Failed(Failure::NoReply {
        gateway: "gw".into(),
        waited: Duration::MAX,
    })
}

/// A client over a scripted transport, with a sink as its local MTA.
struct Bench {
    folder: tempfile::TempDir,
    sink: Sink,
    name: &'static str,
    extra: String,
    /// More paths and routes.
    more: String,
}

impl Bench {
    async fn new(extra: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = Sink::start(listener, SinkOptions::default(), Clock::system()).unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            sink,
            name: "relay.earth.example",
            extra: extra.to_owned(),
            more: String::new(),
        }
    }

    fn with(mut self, more: &str) -> Self {
        more.clone_into(&mut self.more);
        self
    }

    fn config(&self) -> Config {
        let text = format!(
            r#"
            name = "{}"
            database = "{}/outbox.db"
            [ingest]
            listen = "127.0.0.1:0"
            [resolver]
            servers = ["127.0.0.1:1"]
            timeout = "200ms"
            [local]
            address = "{}"
            [path.moon]
            one_way_min = "1ms"
            one_way_max = "1ms"
            outage_max = "0s"
            rate_up = "1Gbit/s"
            rate_down = "1Gbit/s"
            retry_first = "50ms"
            retry_longest = "200ms"
            reply_within = "20s"
            {}
            [[route]]
            domain = "one.example"
            path = "moon"
            gateways = ["https://gw1.example/in", "https://gw2.example/in"]
            [[route]]
            domain = "two.example"
            path = "moon"
            gateways = ["https://gw1.example/in"]
            [[route]]
            domain = "three.example"
            path = "moon"
            gateways = ["https://gw3.example/in"]
            [[route]]
            domain = "silent.example"
            path = "moon"
            {}
            "#,
            self.name,
            self.folder.path().display(),
            self.sink.address(),
            self.extra,
            self.more,
        );
        Config::from_text(Path::new("client.toml"), &text).unwrap()
    }

    async fn start(&self, transport: &Arc<Scripted>) -> Client {
        Client::start_with(self.config(), Clock::system(), transport.clone())
            .await
            .unwrap()
    }
}

async fn enqueue(
    client: &Client,
    sender: &str,
    recipients: &[&str],
    body: &[u8],
    lifetime: Duration,
) -> Ulid {
    let now = Clock::system().now();
    let mut canonical = Canonicaliser::new(BareLineEnds::Normalise);
    let mut out = Vec::new();
    canonical.push(body, &mut out).unwrap();
    let facts = canonical.finish(&mut out).unwrap();
    let id = crate::ids::new(now);
    let sender: Sender = sender.parse().unwrap();
    let body = if out.len() as u64 > object::SMALL {
        let body = client.store().begin_body().await.unwrap();
        for chunk in out.chunks(100_000) {
            let chunk = Bytes::copy_from_slice(chunk);
            client.store().append_body(body, chunk).await.unwrap();
        }
        NewBody::Spooled(body)
    } else {
        NewBody::Inline(out.into())
    };
    let message = NewMessage {
        id,
        sender,
        recipients: recipients
            .iter()
            .map(|text| {
                let recipient: Recipient = text.parse().unwrap();
                NewRecipient {
                    destination: recipient.address.destination(),
                    recipient,
                    due: now,
                    expires: add(now, lifetime),
                    notice: None,
                }
            })
            .collect(),
        body,
        facts,
        priority: 0,
        origin: "rest".into(),
        origin_id: None,
        upstream: None,
        accepted: now,
        hold: None,
        notes: Vec::new(),
    };
    let submission = Submission {
        key: None,
        reply: StoredReply::default(),
        messages: vec![message],
        charges: Vec::new(),
    };
    client.store().enqueue(submission).await.unwrap();
    id
}

const DAY: Duration = Duration::from_secs(86_400);
const MAIL: &[u8] = b"Subject: hello\n\n.dot\nbody\n";

/// Waits until `fits`.
async fn until(client: &Client, id: Ulid, fits: impl Fn(&MessageView) -> bool) -> MessageView {
    let clock = Clock::system();
    for _ in 0..1000 {
        let view = client.store().message(id).await.unwrap().unwrap();
        if fits(&view) {
            return view;
        }
        clock.sleep(Duration::from_millis(20)).await;
    }
    panic!("never so: {:#?}", client.store().message(id).await.unwrap());
}

fn all(status: Status) -> impl Fn(&MessageView) -> bool {
    move |view| view.recipients.iter().all(|one| one.status == status)
}

fn domains(sent: &Sent) -> Vec<String> {
    String::from_utf8_lossy(&sent.object)
        .lines()
        .filter_map(|line| Some(line.strip_prefix("RCPT TO:<")?.split('>').next()?.to_owned()))
        .collect()
}
