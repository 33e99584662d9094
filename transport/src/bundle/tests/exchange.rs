use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{Router, extract::State, routing::post};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    PeerIdentity,
    bundle::listener::{Complaints, Settings, serve},
};

/// A gateway's router that says how it was asked, and answers with the statuses in turn, the last one for ever.
#[derive(Clone)]
struct Gateway {
    asked: Arc<AtomicUsize>,
    statuses: Arc<Vec<u16>>,
    seen: mpsc::UnboundedSender<(PeerIdentity, HeaderMap, Bytes)>,
}

async fn take(State(gateway): State<Gateway>, request: axum::extract::Request) -> axum::response::Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let identity = parts.extensions.get::<PeerIdentity>().unwrap().clone();
    let turn = gateway.asked.fetch_add(1, Ordering::SeqCst);
    let status = gateway.statuses[turn.min(gateway.statuses.len() - 1)];
    gateway.seen.send((identity, parts.headers, body)).unwrap();
    let mut response = axum::response::Response::new(axum::body::Body::from("{}"));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

struct Told(mpsc::UnboundedSender<String>);

#[async_trait::async_trait]
impl Complaints for Told {
    async fn refused(&self, from: &str, _: &str, status: StatusCode, said: &Bytes) -> bool {
        self.0
            .send(format!("{from} {status} {}", String::from_utf8_lossy(said)))
            .unwrap();
        true
    }
}

struct Served {
    stop: CancellationToken,
    seen: mpsc::UnboundedReceiver<(PeerIdentity, HeaderMap, Bytes)>,
    told: mpsc::UnboundedReceiver<String>,
    task: tokio::task::JoinHandle<()>,
}

fn serving(node: &Arc<Node>, statuses: &[u16]) -> Served {
    let (send, seen) = mpsc::unbounded_channel();
    let (tell, told) = mpsc::unbounded_channel();
    let gateway = Gateway {
        asked: Arc::default(),
        statuses: Arc::new(statuses.to_vec()),
        seen: send,
    };
    let router = Router::new().route("/in", post(take)).with_state(gateway);
    let settings = Settings {
        path: "/in".into(),
        sources: HashSet::from(["ipn:1.26".to_owned()]),
        concurrency: 4,
        memory: 1 << 20,
        reply_lifetime: Duration::from_secs(3600),
        longest: Duration::from_secs(3600),
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(
        node.agent("ipn:2.25"),
        router,
        Arc::new(Told(tell)),
        settings,
        Clock::system(),
        stop.clone(),
    ));
    Served {
        stop,
        seen,
        told,
        task,
    }
}

impl Served {
    async fn end(self) {
        self.stop.cancel();
        patient(self.task).await.unwrap();
    }
}

async fn reply_of(late: &Late) -> (&str, &Reply) {
    match &late.news {
        News::Reply { from, reply } => (from, reply),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_and_its_reply_cross_and_are_kept_until_they_are_dealt_with() {
    let node = Arc::new(Node::default());
    let client = transport(
        &node,
        Options {
            reports: true,
            ..Options::default()
        },
    );
    let sent = exchange("https://gw1.moon.example/inboundmail#ipn:2.25");
    let id = sent.id;
    let outcome = client.send(sent, soon(60)).await;
    let Outcome::InCustody { custody, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(custody, "ipn:1.26/1/1");
    let first = &node.log()[0];
    assert!(first.reports.deleted && !first.reports.delivered);
    assert_eq!(first.report_to, Some(eid("ipn:1.26")));
    assert!(first.lifetime > Duration::from_secs(3500));

    let mut gateway = serving(&node, &[202]);
    let (identity, headers, body) = patient(gateway.seen.recv()).await.unwrap();
    assert_eq!(identity.endpoint.as_deref(), Some("ipn:1.26"));
    assert_eq!(identity.carrier.protocol(), "BPv7");
    assert_eq!(headers["idempotency-key"].to_str().unwrap(), format!("\"{id}\""));
    assert_eq!(&body[..], OBJECT);

    // The reply comes to the next life as well, as long as it is not done with.
    let late = patient(client.late()).await;
    let (from, reply) = reply_of(&late).await;
    assert_eq!(
        (from, reply.exchange, reply.status),
        ("ipn:2.25", id, StatusCode::ACCEPTED)
    );
    drop(late);
    let client = transport(&node, Options::default());
    let late = patient(client.late()).await;
    assert_eq!(reply_of(&late).await.1.exchange, id);
    late.done();
    assert_eq!(node.left("ipn:1.26"), 0);
    gateway.end().await;
    assert_eq!(node.left("ipn:2.25"), 0);
}

#[tokio::test]
async fn what_a_gateway_cannot_take_now_is_not_answered_across_space() {
    let node = Arc::new(Node::default());
    let client = transport(&node, Options::default());
    client.send(exchange("ipn:2.25"), soon(60)).await;
    let mut gateway = serving(&node, &[503, 507, 202]);
    for _ in 0..3 {
        patient(gateway.seen.recv()).await.unwrap();
    }
    let late = patient(client.late()).await;
    assert_eq!(reply_of(&late).await.1.status, StatusCode::ACCEPTED);
    assert_eq!(node.log().len(), 2, "one request, one reply");
    gateway.end().await;
}

#[tokio::test]
async fn strangers_are_dropped() {
    let node = Arc::new(Node::default());
    let stranger = BundleTransport::new(node.agent("ipn:9.1"), [], Clock::system());
    stranger.send(exchange("ipn:2.25"), soon(60)).await;
    let gateway = serving(&node, &[202]);
    patient(async {
        while node.left("ipn:2.25") > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(node.log().len(), 1, "nobody is answered");
    gateway.end().await;
}

#[tokio::test]
async fn a_bare_object_is_a_request_whose_key_is_its_bundle() {
    let node = Arc::new(Node::default());
    let options = Options {
        form: Form::BatchSmtp,
        reports: false,
        ..Options::default()
    };
    let client = transport(&node, options);
    let outcome = client.send(exchange("ipn:2.25"), soon(60)).await;
    assert!(
        matches!(&outcome, Outcome::HandedOver { said } if said.contains("ipn:1.26/1/1")),
        "{outcome:?}"
    );
    assert_eq!(&node.log()[0].payload[..], OBJECT);
    let mut gateway = serving(&node, &[422]);
    let (_, headers, body) = patient(gateway.seen.recv()).await.unwrap();
    assert_eq!(headers["idempotency-key"], "\"bundle ipn:1.26/1/1\"");
    assert_eq!(headers["content-type"], "application/batch-SMTP");
    assert_eq!(&body[..], OBJECT);
    let told = patient(gateway.told.recv()).await.unwrap();
    assert_eq!(told, "ipn:1.26 422 Unprocessable Entity {}");
    gateway.end().await;
    assert_eq!(
        (node.log().len(), node.left("ipn:2.25")),
        (1, 0),
        "no reply, nothing left"
    );
}

#[tokio::test]
async fn reports_and_garbage_at_the_endpoint_for_replies() {
    let node = Arc::new(Node::default());
    let options = Options {
        form: Form::BatchSmtp,
        reports: true,
        ..Options::default()
    };
    let client = transport(&node, options);
    let outcome = client.send(exchange("ipn:2.25"), soon(60)).await;
    let Outcome::InCustody { custody, .. } = outcome else {
        panic!("{outcome:?}")
    };
    let about = BundleId {
        source: eid("ipn:1.26"),
        time: 1,
        sequence: 1,
    };
    let incoming = |payload: &'static [u8]| {
        Content::Bundle(Incoming {
            id: BundleId {
                source: eid("ipn:2.25"),
                time: 5,
                sequence: 5,
            },
            payload: Bytes::from_static(payload),
            verified: None,
            expires: None,
        })
    };
    node.put("ipn:1.26", incoming(b"\xff\xff"));
    node.put("ipn:1.26", incoming(b"EHLO x\r\n"));
    node.put("ipn:1.26", incoming(b"\x01\x40\xca\x00"));
    for (event, reason) in [
        (ReportEvent::Received, 0),
        (ReportEvent::Deleted, 1),
        (ReportEvent::Delivered, 0),
    ] {
        let report = Report {
            about: about.clone(),
            from: eid("ipn:2.0"),
            event,
            reason,
            at: None,
        };
        node.put("ipn:1.26", Content::Report(report));
    }
    let late = patient(client.late()).await;
    assert!(
        matches!(&late.news, News::Deleted { custody: of, by, reason }
            if *of == custody && by == "ipn:2.0" && reason == "lifetime expired"),
        "{late:?}"
    );
    late.done();
    let late = patient(client.late()).await;
    assert!(
        matches!(&late.news, News::Delivered { custody: of, .. } if *of == custody),
        "{late:?}"
    );
    late.done();
    assert_eq!(node.left("ipn:1.26"), 0);
}

#[tokio::test]
async fn what_a_node_refuses_is_told_apart() {
    let node = Arc::new(Node::default());
    let client = transport(&node, Options::default());
    for (error, expected) in [
        (
            SendError::NoRoute {
                destination: eid("ipn:2.25"),
            },
            "unreachable",
        ),
        (
            SendError::NoRoom {
                octets: 1,
                why: "full".into(),
            },
            "later",
        ),
        (SendError::TooLarge { octets: 9, most: 8 }, "too large"),
        (
            SendError::Down {
                why: "gone".into(),
                remedy: "start it".into(),
            },
            "unreachable",
        ),
        (SendError::Refused("policy".into()), "unreachable"),
    ] {
        node.refuse(Some(error.clone()));
        let found = match client.send(exchange("ipn:2.25"), soon(60)).await {
            Outcome::Failed(Failure::Unreachable { .. }) => "unreachable",
            Outcome::Failed(Failure::TooLarge {
                octets: 9, most: 8, ..
            }) => "too large",
            Outcome::NoContact { .. } => "later",
            other => panic!("{error}: {other:?}"),
        };
        assert_eq!(found, expected, "{error}");
    }
    let outcome = client
        .send(exchange("https://gw1.moon.example/in"), soon(60))
        .await;
    assert!(
        matches!(outcome, Outcome::Failed(Failure::Unreachable { .. })),
        "no endpoint: {outcome:?}"
    );
}
