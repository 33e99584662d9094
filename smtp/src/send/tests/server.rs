//! A server that follows a script.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::send::{Address, Protocol, StartTls, Target};

/// One step of a script.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Expects a line that starts with this.
    Expect(String),
    /// Sends this, as it is.
    Send(Vec<u8>),
    /// Reads up to the final dot and expects this body, stuffed.
    Body(Vec<u8>),
    /// Turns TLS on.
    Tls(Arc<rustls::ServerConfig>),
    /// Lets time fly: a client that waits for a reply now finds its timeout over.
    Pause,
    /// Leaves the connection open until the client closes it.
    Hold,
    /// Closes the connection; the next step belongs to the next one.
    Next,
}

/// A script as text: `C: ` what the client says, `S: ` what the server says, `BODY`, `PAUSE`, `HOLD`, `NEXT`.
pub(crate) fn script(text: &str) -> Vec<Step> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| match line.split_once(": ").unwrap_or((line, "")) {
            ("C", line) => Step::Expect(line.to_owned()),
            ("S", line) => Step::Send(format!("{line}\r\n").into_bytes()),
            ("BODY", "") => Step::Body(super::BODY.as_bytes().to_vec()),
            ("PAUSE", "") => Step::Pause,
            ("HOLD", "") => Step::Hold,
            ("NEXT", "") => Step::Next,
            other => panic!("script: {other:?}"),
        })
        .collect()
}

/// A scripted server; [`Server::done`] fails the test where the script was not followed.
pub(crate) struct Server {
    pub(crate) target: Target,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(steps: Vec<Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            protocol: Protocol::Smtp,
            address: Address::Tcp("127.0.0.1".to_owned(), listener.local_addr().unwrap().port()),
            starttls: StartTls::Off,
            tls: None,
            helo: "client.example".to_owned(),
            reply_timeout: Duration::from_secs(5),
        };
        let task = tokio::spawn(async move {
            for steps in steps.split(|step| matches!(step, Step::Next)) {
                let (stream, _) = listener.accept().await.unwrap();
                converse(stream, steps).await;
            }
        });
        Self { target, task }
    }

    /// Waits for the end of the script.
    pub(crate) async fn done(self) {
        self.task.await.unwrap();
    }
}

async fn converse(stream: TcpStream, steps: &[Step]) {
    let tls = steps.iter().position(|step| matches!(step, Step::Tls(_)));
    let (clear, rest) = steps.split_at(tls.unwrap_or(steps.len()));
    let mut stream = BufReader::new(stream);
    follow(&mut stream, clear).await;
    if let Some((Step::Tls(config), rest)) = rest.split_first() {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(config));
        match acceptor.accept(stream.into_inner()).await {
            Ok(stream) => follow(&mut BufReader::new(stream), rest).await,
            Err(error) => assert!(rest.is_empty(), "TLS: {error}"),
        }
    }
}

async fn follow<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Expect(expected) => {
                let line = line(stream).await;
                let line = String::from_utf8_lossy(&line).into_owned();
                assert!(
                    line.starts_with(expected.as_str()),
                    "{line:?} instead of {expected:?}"
                );
            }
            Step::Send(text) => {
                // The client may have seen enough and gone.
                let _ = stream.write_all(text).await;
                let _ = stream.flush().await;
            }
            Step::Body(expected) => {
                let mut body = Vec::new();
                loop {
                    let line = line(stream).await;
                    assert!(!line.is_empty(), "the body ends without its dot");
                    if line == b".\r\n" {
                        break;
                    }
                    body.extend_from_slice(&line);
                }
                assert_eq!(String::from_utf8_lossy(&body), String::from_utf8_lossy(expected));
            }
            Step::Pause => tokio::time::pause(),
            Step::Hold => while !line(stream).await.is_empty() {},
            Step::Tls(_) | Step::Next => unreachable!("split off before"),
        }
    }
}

async fn line<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Vec<u8> {
    let mut line = Vec::new();
    let _ = stream.read_until(b'\n', &mut line).await;
    line
}
