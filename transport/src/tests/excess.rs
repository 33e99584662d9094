//! Frames that are announced larger than they may be never fill the memory.

use std::{future::Future, time::Duration};

use futures_util::FutureExt;
use lightpost_clock::Clock;

use super::{
    support::{Papers, Pieces, exchange, gateway, send},
    truncated::{headers, headers_to, raw},
};
use crate::{
    Failure, Outcome,
    quic::{client::NO_ERROR, unidirectional::EXCESSIVE_LOAD},
};

/// The head of a frame of `kind` (one octet) with a length of 1 GiB.
fn giant(kind: u8) -> Vec<u8> {
    vec![kind, 0xc0, 0, 0, 0, 0x40, 0, 0, 0]
}

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let waited = Clock::system().timeout(Duration::from_secs(20), future).await;
    waited.unwrap_or_else(|_| panic!("{what}: nothing in time"))
}

/// Sends `beginning` and then more until the peer has had enough; how many octets the connection took.
async fn write_on(mut stream: quinn::SendStream, beginning: &[u8]) -> (usize, quinn::WriteError) {
    let mut written = beginning.len();
    if let Err(error) = stream.write_all(beginning).await {
        return (0, error);
    }
    let more = [7; 16 << 10];
    loop {
        match stream.write(&more).await {
            Ok(octets) => written += octets,
            Err(error) => return (written, error),
        }
        assert!(written < 1 << 29, "half a GiB was taken");
    }
}

#[tokio::test]
async fn a_request_stream_is_stopped() {
    let papers = Papers::new();
    let running = gateway(&papers);
    let connection = raw(&papers, running.port).await;
    let trailers = [headers(None), vec![0, 1, 7], giant(1)].concat();
    // HEADERS, a reserved type, SETTINGS where they do not belong, trailers.
    for beginning in [giant(1), giant(0x21), giant(4), trailers] {
        let (stream, _answer) = connection.open_bi().await.unwrap();
        let (written, error) = soon("request", write_on(stream, &beginning)).await;
        assert!(
            matches!(error, quinn::WriteError::Stopped(code) if code == EXCESSIVE_LOAD),
            "{beginning:?}: {error:?}"
        );
        // What is on its way when the stop arrives depends on loopback, not on the head's length.
        assert!(written < 64 << 20, "{written}");
    }
    assert!(connection.close_reason().is_none());
}

/// Who sends what is not read has the whole answer when it hears so (RFC 9114 section 4.1).
#[tokio::test]
async fn an_early_answer_is_there_before_the_stop() {
    let papers = Papers::new();
    let running = gateway(&papers);
    let connection = raw(&papers, running.port).await;
    for _ in 0..50 {
        let (mut stream, mut answer) = connection.open_bi().await.unwrap();
        stream.write_all(&headers_to("/refuse", None)).await.unwrap();
        let stopped = soon("stop", stream.stopped()).await.unwrap();
        assert_eq!(stopped, Some(NO_ERROR));
        let answer = answer.read_to_end(10_000).now_or_never();
        assert!(!answer.expect("it is there").unwrap().is_empty());
    }
}

#[tokio::test]
async fn control_and_encoder_streams_close_the_connection() {
    let papers = Papers::new();
    let running = gateway(&papers);
    let settings = [vec![0], giant(4)].concat();
    let reserved = [vec![0, 4, 0], giant(0x21)].concat();
    for beginning in [settings, reserved, vec![2]] {
        let connection = raw(&papers, running.port).await;
        let stream = connection.open_uni().await.unwrap();
        soon("stream", write_on(stream, &beginning)).await;
        let reason = soon("close", connection.closed()).await;
        assert!(
            matches!(&reason, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == EXCESSIVE_LOAD),
            "{beginning:?}: {reason:?}"
        );
    }
}

/// A type in two octets, its parts in packets of their own, and what a peer may say on QPACK streams.
#[tokio::test]
async fn usual_streams_are_read() {
    let papers = Papers::new();
    let running = gateway(&papers);
    let connection = raw(&papers, running.port).await;
    for beginning in [&[0x40, 0, 4, 0][..], &[2, 0x20], &[3, 0x40], &[0x40, 0x54, 9, 9]] {
        let mut stream = connection.open_uni().await.unwrap();
        for octet in beginning {
            stream.write_all(&[*octet]).await.unwrap();
            tokio::task::yield_now().await;
        }
        std::mem::forget(stream);
    }
    let (mut stream, mut answer) = connection.open_bi().await.unwrap();
    stream.write_all(&headers(None)).await.unwrap();
    stream.write_all(&[0, 3, b'a', b'b', b'c']).await.unwrap();
    stream.finish().unwrap();
    let answer = soon("answer", answer.read_to_end(10_000)).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("\"octets\":3"));
}

/// A body in frames of one octet: each is read by itself, and nothing piles up behind them.
#[tokio::test]
async fn short_frames_are_read_one_by_one() {
    let papers = Papers::new();
    let running = gateway(&papers);
    let connection = raw(&papers, running.port).await;
    let (mut stream, mut answer) = connection.open_bi().await.unwrap();
    stream.write_all(&headers(None)).await.unwrap();
    stream.write_all(&[0, 0, 0, 1, 7].repeat(10_000)).await.unwrap();
    stream.finish().unwrap();
    let answer = soon("answer", answer.read_to_end(10_000)).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("\"octets\":10000"));
}

#[tokio::test]
async fn a_hostile_gateway_is_stopped() {
    let papers = Papers::new();
    for beginning in [giant(1), giant(0x21), giant(5)] {
        let (endpoint, port) = hostile(&papers);
        let client = papers.client(false);
        let attack = async {
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            let (stream, _request) = connection.accept_bi().await.unwrap();
            soon("reply", write_on(stream, &beginning)).await
        };
        let ((_, error), outcome) =
            tokio::join!(attack, send(&client, exchange(port, "/echo", Pieces::of("x"))));
        assert!(
            matches!(error, quinn::WriteError::Stopped(code) if code == EXCESSIVE_LOAD),
            "{error:?}"
        );
        assert!(
            matches!(outcome, Outcome::Failed(Failure::Interrupted { .. })),
            "{outcome:?}"
        );
    }
    let (endpoint, port) = hostile(&papers);
    let client = papers.client(false);
    let attack = async {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let stream = connection.open_uni().await.unwrap();
        soon("control", write_on(stream, &[vec![0], giant(4)].concat())).await;
        connection.closed().await
    };
    let (reason, outcome) = tokio::join!(attack, send(&client, exchange(port, "/echo", Pieces::of("x"))));
    assert!(
        matches!(&reason, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == EXCESSIVE_LOAD),
        "{reason:?}"
    );
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
}

/// A gateway with the right certificate and nothing behind it.
fn hostile(papers: &Papers) -> (quinn::Endpoint, u16) {
    let tickets = crate::quic::tickets::Tickets::default();
    let (config, _) = tickets
        .server_config(&papers.server_tls(), Default::default(), &[])
        .unwrap();
    let endpoint = quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap();
    let port = endpoint.local_addr().unwrap().port();
    (endpoint, port)
}
