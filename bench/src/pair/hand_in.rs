//! Mail, and how it is handed over.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::net::TcpStream;

use crate::Result;

/// A mail of which `size` octets are text that no encoding makes much shorter; the same seed, the same text.
pub fn mail(size: usize, seed: u64) -> Bytes {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut rng = StdRng::seed_from_u64(seed);
    let mut mail =
        b"From: <alice@earth.example>\r\nTo: <bob@moon.example>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n\
                     Message-Id: <1@earth.example>\r\n\r\n"
            .to_vec();
    let end = mail.len() + size;
    while mail.len() < end {
        let line = (end - mail.len()).min(78);
        let text = line.saturating_sub(2);
        let letters = (0..text).map(|_| LETTERS.get(rng.random_range(0..64)).copied().unwrap_or(b'A'));
        mail.extend(letters);
        mail.extend_from_slice(b"\r\n");
    }
    mail.into()
}

/// Hands a mail over by REST and waits for the acknowledgement. Said again for the same sender it is the same mail.
pub(crate) async fn post(to: SocketAddr, sender: &str, mail: Bytes) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| format!("{to}: {error}");
    let stream = TcpStream::connect(to).await.map_err(|error| failed(&error))?;
    let (mut connection, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let driver = tokio::spawn(driver);
    let target = format!(
        "/v1/messages?from={}&to=bob%40moon.example",
        sender.replace('@', "%40")
    );
    let request = Request::post(target)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "message/rfc822")
        .header(header::CONNECTION, "close")
        .header("idempotency-key", format!("\"{sender}\""))
        .body(Full::new(mail))
        .map_err(|error| failed(&error))?;
    let response = connection
        .send_request(request)
        .await
        .map_err(|error| failed(&error))?;
    let status = response.status();
    let answer = response
        .into_body()
        .collect()
        .await
        .map_err(|error| failed(&error))?
        .to_bytes();
    drop(connection);
    // Its errors came out of the request.
    let _ = driver.await;
    if status == StatusCode::ACCEPTED {
        return Ok(());
    }
    Err(format!(
        "{to} answers {status}: {}",
        String::from_utf8_lossy(&answer)
    ))
}
