//! Load on REST: keep-alive connections on one thread and a body that was built before, because it shares the machine with
//! what it measures.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use lightpost_clock::Clock;
use tokio::{net::TcpStream, task::LocalSet};

use crate::Result;

/// Where a mail of the load goes.
const TARGET: &str = "/v1/messages?from=alice%40earth.example&to=bob%40moon.example";

/// A mail of which `size` octets are text, as smtp-source makes it.
pub(crate) fn mail(size: usize) -> Bytes {
    let mut mail = String::from(
        "From: <alice@earth.example>\r\nTo: <bob@moon.example>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n\
         Message-Id: <0001.0001@earth.example>\r\n\r\n",
    );
    let line = "La de da de da 1.\r\n".repeat(4);
    let end = mail.len() + size;
    while mail.len() < end {
        mail.push_str(&line);
    }
    mail.truncate(end - 2);
    mail.push_str("\r\n");
    mail.into()
}

/// How connections are used, on both sides of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connections {
    /// Opened once and kept.
    Kept,
    /// Opened anew for each mail.
    PerMail,
}

/// Pushes `mails` mails through `connections` connections at a time, and tells how long it took until the last was acknowledged.
pub(crate) async fn push(
    to: SocketAddr,
    (connections, kind): (usize, Connections),
    body: &Bytes,
    mails: usize,
    clock: &Clock,
) -> Result<Duration> {
    let left = Rc::new(Cell::new(mails));
    let local = LocalSet::new();
    let started = clock.instant();
    let workers: Vec<_> = (0..connections)
        .map(|_| local.spawn_local(worker(to, kind, body.clone(), left.clone())))
        .collect();
    local.await;
    let took = started.elapsed();
    for worker in workers {
        worker.await.map_err(|error| error.to_string())??;
    }
    Ok(took)
}

async fn worker(to: SocketAddr, kind: Connections, body: Bytes, left: Rc<Cell<usize>>) -> Result<()> {
    let mut connection = connect(to).await?;
    let mut used = false;
    while left.get() > 0 {
        left.set(left.get() - 1);
        if used && kind == Connections::PerMail {
            connection = connect(to).await?;
        }
        used = true;
        let request = Request::post(TARGET)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "message/rfc822")
            .body(Full::new(body.clone()))
            .map_err(|error| error.to_string())?;
        let failed = |error: hyper::Error| format!("{to}: {error}");
        let response = connection.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let answer = response.into_body().collect().await.map_err(failed)?.to_bytes();
        if status != StatusCode::ACCEPTED {
            return Err(format!(
                "{to} answers {status}: {}",
                String::from_utf8_lossy(&answer)
            ));
        }
        connection.ready().await.map_err(failed)?;
    }
    Ok(())
}

async fn connect(to: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(to)
        .await
        .map_err(|error| format!("{to}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        // Its errors come out of the requests.
        let _ = connection.await;
    });
    Ok(sender)
}

/// One GET, as JSON.
pub(crate) async fn get(from: SocketAddr, path: &str) -> Result<serde_json::Value> {
    let mut connection = connect(from).await?;
    let request = Request::get(path)
        .header(header::HOST, "localhost")
        .body(Full::default())
        .map_err(|error| error.to_string())?;
    let failed = |error: hyper::Error| format!("{from}: {error}");
    let response = connection.send_request(request).await.map_err(failed)?;
    let status = response.status();
    let answer = response.into_body().collect().await.map_err(failed)?.to_bytes();
    if !status.is_success() {
        return Err(format!(
            "{from}{path} answers {status}: {}",
            String::from_utf8_lossy(&answer)
        ));
    }
    serde_json::from_slice(&answer).map_err(|error| format!("{from}{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_has_its_size_and_canonical_line_ends() {
        let mail = mail(4096);
        let text = std::str::from_utf8(&mail).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len(), 4096);
        assert!(text.ends_with("\r\n") && !text.replace("\r\n", "").contains(['\r', '\n']));
    }
}
