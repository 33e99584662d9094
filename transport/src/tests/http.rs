use std::{net::Ipv4Addr, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lightpost_clock::Clock;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::support::{CLIENT, End, GATEWAY, Papers, router};
use crate::{tls, web};

/// A running TLS listener.
pub(super) struct Web {
    pub(super) port: u16,
    pub(super) seen: mpsc::UnboundedReceiver<End>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

pub(super) async fn web(papers: &Papers) -> Web {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (router, seen) = router();
    let stop = CancellationToken::new();
    Web {
        port: listener.local_addr().unwrap().port(),
        seen,
        task: tokio::spawn(web::serve_tls(
            listener,
            papers.server_tls(),
            router,
            Clock::system(),
            stop.clone(),
        )),
        stop,
    }
}

pub(super) async fn connect(papers: &Papers, port: u16, alpn: &[u8], identity: bool) -> TlsStream<TcpStream> {
    let own = identity.then(|| papers.issue(CLIENT));
    let own = own.as_ref().map(|(chain, key)| (chain.as_path(), key.as_path()));
    let config = tls::client(Some(&papers.ca()), own, &[alpn]).unwrap();
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let name = GATEWAY.try_into().unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

pub(super) fn post(body: Body) -> Request<Body> {
    Request::post(format!("https://{GATEWAY}/echo"))
        .header("host", GATEWAY)
        .body(body)
        .unwrap()
}

async fn said<B>(response: http::Response<B>) -> Value
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn http2_carries_the_client_certificate() {
    let papers = Papers::new();
    let web = web(&papers).await;
    let stream = TokioIo::new(connect(&papers, web.port, b"h2", true).await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let answer = said(
        sender
            .send_request(post(Body::from(vec![b'x'; 3_000_000])))
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(answer["octets"], 3_000_000);
    assert_eq!(answer["names"][0], CLIENT);
    assert_eq!(answer["carrier"], "HTTP/2");
    drop(sender);
    web.stop.cancel();
    web.task.await.unwrap();
}

#[tokio::test]
async fn http1_without_a_certificate() {
    let papers = Papers::new();
    let web = web(&papers).await;
    let stream = TokioIo::new(connect(&papers, web.port, b"http/1.1", false).await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let answer = said(sender.send_request(post(Body::from("mail"))).await.unwrap()).await;
    assert_eq!(answer["octets"], 4);
    assert_eq!(answer["names"].as_array().unwrap().len(), 0);
    assert_eq!(answer["carrier"], "HTTP/1.1");
}

#[tokio::test]
async fn plain_http_on_tcp_and_on_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = tcp.local_addr().unwrap();
    let stop = CancellationToken::new();
    let unix = UnixListener::bind(&path).unwrap();
    let mut tasks = Vec::new();
    for listener in [web::Plain::Tcp(tcp), web::Plain::Unix(unix)] {
        let serving = web::serve_plain(listener, router().0, Clock::system(), stop.clone());
        tasks.push(tokio::spawn(serving));
    }
    let question = b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut answers = [String::new(), String::new()];
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(question).await.unwrap();
    stream.read_to_string(&mut answers[0]).await.unwrap();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(question).await.unwrap();
    stream.read_to_string(&mut answers[1]).await.unwrap();
    for answer in answers {
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("HTTP/1.1"),
            "{answer}"
        );
    }
    stop.cancel();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_stop() {
    let papers = Papers::new();
    let web = web(&papers).await;
    let stream = TokioIo::new(connect(&papers, web.port, b"http/1.1", false).await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    said(sender.send_request(post(Body::from("mail"))).await.unwrap()).await;
    web.stop.cancel();
    web.task.await.unwrap();
    connection.await.unwrap().unwrap();
}
