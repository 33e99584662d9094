//! Half a body must never look like a whole one.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::io::AsyncWriteExt;

use super::{
    http::{connect, post, web},
    support::{End, GATEWAY, Gated, Papers, Pieces, Running, deadline, exchange, gateway, send},
};
use crate::{Failure, Object, Outcome, Transport, tls};

#[tokio::test]
async fn http3_object_that_cannot_be_read() {
    let papers = Papers::new();
    let mut running = gateway(&papers);
    let client = papers.client(false);
    let (gate, object) = Gated::new();
    let mut failing = exchange(running.port, "/echo", Pieces::of(""));
    failing.object = Arc::new(object);
    let reading = async {
        assert_eq!(running.seen.recv().await, Some(End::Begun));
        gate.send(Err(std::io::Error::other("disk on fire"))).unwrap();
        assert_broken(&mut running).await;
    };
    match tokio::join!(send(&client, failing), reading).0 {
        Outcome::Failed(Failure::Object(cause)) => assert_eq!(cause, "disk on fire"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn http3_object_of_another_size() {
    struct Longer(Pieces);
    impl Object for Longer {
        fn open(&self) -> BoxStream<'static, std::io::Result<Bytes>> {
            self.0.open()
        }
        fn size(&self) -> Option<u64> {
            Some(11)
        }
    }
    let papers = Papers::new();
    let running = gateway(&papers);
    let mut short = exchange(running.port, "/echo", Pieces::of(""));
    short.object = Arc::new(Longer(Pieces::of("ten octets")));
    match send(&papers.client(false), short).await {
        Outcome::Failed(Failure::Object(cause)) => assert_eq!(cause, "it has 10 octets, 11 were announced"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn http3_request_given_up_at_its_deadline() {
    let papers = Papers::new();
    let mut running = gateway(&papers);
    let client = papers.client(false);
    let object = Pieces {
        pieces: vec![Bytes::from(vec![0; 2 << 20])],
        sized: false,
        stuck: true,
    };
    let span = std::time::Duration::from_millis(700);
    let outcome = client
        .send(exchange(running.port, "/echo", object), deadline(span))
        .await;
    assert!(
        matches!(outcome, Outcome::Failed(Failure::NoReply { .. })),
        "{outcome:?}"
    );
    assert_broken(&mut running).await;
}

async fn assert_broken(running: &mut Running) {
    loop {
        match running.seen.recv().await.unwrap() {
            End::Begun => {}
            End::Broken(_) => return,
            End::Whole(octets) => panic!("{octets} octets taken for whole"),
        }
    }
}

/// A connection without an HTTP/3 library on it, to say what no library says.
pub(super) async fn raw(papers: &Papers, port: u16) -> quinn::Connection {
    raw_with(papers, port, quinn::TransportConfig::default()).await
}

/// The same with other promises to the gateway.
pub(super) async fn raw_with(
    papers: &Papers,
    port: u16,
    transport: quinn::TransportConfig,
) -> quinn::Connection {
    let tls = tls::quic_client(tls::client(Some(&papers.ca()), None, &[b"h3"]).unwrap());
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    let mut config = quinn::ClientConfig::new(std::sync::Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let connecting = endpoint.connect_with(config, ([127, 0, 0, 1], port).into(), GATEWAY);
    connecting.unwrap().await.unwrap()
}

/// A HEADERS frame for a POST to `/echo` (RFC 9204: static table, literal values).
pub(super) fn headers(length: Option<&str>) -> Vec<u8> {
    headers_to("/echo", length)
}

/// The same to another place.
pub(super) fn headers_to(path: &str, length: Option<&str>) -> Vec<u8> {
    let mut block = vec![0, 0, 0xc0 | 20, 0xc0 | 23];
    let mut literal = |index: u8, value: &str| {
        block.extend([0x50 | index, value.len() as u8]);
        block.extend(value.as_bytes());
    };
    literal(0, GATEWAY);
    literal(1, path);
    if let Some(length) = length {
        literal(4, length);
    }
    let mut frame = vec![1, block.len() as u8];
    frame.extend(block);
    frame
}

#[tokio::test]
async fn http3_streams_that_end_wrongly() {
    let papers = Papers::new();
    let mut running = gateway(&papers);
    let connection = raw(&papers, running.port).await;
    // DATA of 100 octets, of which 40 come before the stream ends: at once, and after the 40 were read.
    let mut half = headers(None);
    half.extend([0, 0x40, 100]);
    half.extend([7; 40]);
    for later in [false, true] {
        let (mut stream, _answer) = connection.open_bi().await.unwrap();
        stream.write_all(&half).await.unwrap();
        if later {
            assert_eq!(running.seen.recv().await, Some(End::Begun));
        }
        stream.finish().unwrap();
        assert_broken(&mut running).await;
    }
    // Whole frames, but fewer octets than announced.
    let mut short = headers(Some("100"));
    short.extend([0, 40]);
    short.extend([7; 40]);
    let (mut stream, _answer) = connection.open_bi().await.unwrap();
    stream.write_all(&short).await.unwrap();
    stream.finish().unwrap();
    assert_broken(&mut running).await;
    // Reset between two frames.
    let mut parts = headers(None);
    parts.extend([0, 40]);
    parts.extend([7; 40]);
    let (mut stream, _answer) = connection.open_bi().await.unwrap();
    stream.write_all(&parts).await.unwrap();
    assert_eq!(running.seen.recv().await, Some(End::Begun));
    stream.reset(0u32.into()).unwrap();
    assert_broken(&mut running).await;
    // The connection goes.
    let (mut stream, _answer) = connection.open_bi().await.unwrap();
    stream.write_all(&parts).await.unwrap();
    assert_eq!(running.seen.recv().await, Some(End::Begun));
    connection.close(0u32.into(), b"");
    assert_broken(&mut running).await;
}

#[tokio::test]
async fn http2_stream_reset() {
    let papers = Papers::new();
    let mut web = web(&papers).await;
    let stream = TokioIo::new(connect(&papers, web.port, b"h2", false).await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let (gate, object) = Gated::new();
    let reading = async {
        assert_eq!(web.seen.recv().await, Some(End::Begun));
        gate.send(Err(std::io::Error::other("disk on fire"))).unwrap();
        while let Some(end) = web.seen.recv().await {
            assert!(!matches!(end, End::Whole(_)), "{end:?}");
            if let End::Broken(_) = end {
                break;
            }
        }
    };
    let (answer, ()) = tokio::join!(
        sender.send_request(post(Body::from_stream(object.open()))),
        reading
    );
    // The router answers 400 when it still can.
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 400));
}

#[tokio::test]
async fn http1_connections_that_end_early() {
    let papers = Papers::new();
    let mut web = web(&papers).await;
    let sized = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf";
    let chunked = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for request in [sized, chunked] {
        for goodbye in [true, false] {
            let mut stream = connect(&papers, web.port, b"http/1.1", false).await;
            stream.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(web.seen.recv().await, Some(End::Begun));
            if goodbye {
                stream.shutdown().await.unwrap();
            }
            drop(stream);
            assert_eq!(web.seen.recv().await, Some(End::Broken(4)));
        }
    }
}
