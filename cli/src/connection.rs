//! One HTTP/1.1 connection to a REST interface: as little as is needed, because `submit` is started for every mail.

use std::{convert::Infallible, fmt, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited, combinators::UnsyncBoxBody};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use lightpost_clock::Clock;
use tokio::net::{TcpStream, UnixStream};

use crate::{
    endpoint::{Address, Endpoint},
    failure::{Failure, code},
};

/// A request's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// How long a listener on this host may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long an answer may take: a busy disk, not light time. Below the 1000 s after which Postfix gives a command up.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
/// The largest answer that is read.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Nobody listens; nothing was sent.
    Connect(String),
    /// The connection broke after something was sent: whether the request counted is unknown.
    Lost(String),
    /// The request's own body could not be read.
    Body(String),
    /// No answer in time.
    Silent,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(cause) => write!(f, "cannot be reached: {cause}"),
            Self::Lost(cause) => write!(f, "the connection was lost before the answer: {cause}"),
            Self::Body(cause) => write!(f, "the mail cannot be read: {cause}"),
            Self::Silent => write!(f, "no answer within {} s", ANSWER_WITHIN.as_secs()),
        }
    }
}

impl Trouble {
    /// The same for the operator.
    pub(crate) fn failure(&self, endpoint: &Endpoint) -> Failure {
        let (code, remedy) = match self {
            Self::Connect(_) => (
                code::UNAVAILABLE,
                "see whether the program runs and listens there",
            ),
            Self::Lost(_) | Self::Silent => (code::UNAVAILABLE, "see its log, then try again"),
            Self::Body(_) => (code::IOERR, "try again"),
        };
        Failure::new(code, format!("{endpoint}: {self}"), remedy)
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// The whole body.
    pub(crate) body: Bytes,
}

/// An empty body.
pub(crate) fn empty() -> Body {
    http_body_util::Empty::new().map_err(never).boxed_unsync()
}

/// A body that is known in full.
pub(crate) fn full(octets: Bytes) -> Body {
    http_body_util::Full::new(octets).map_err(never).boxed_unsync()
}

fn never(never: Infallible) -> std::io::Error {
    match never {}
}

/// Starts a request to `endpoint`; `path` begins with `/v1`.
pub(crate) fn request(endpoint: &Endpoint, method: http::Method, path: &str) -> http::request::Builder {
    let mut builder = Request::builder()
        .method(method)
        .uri(format!("{}{path}", endpoint.prefix))
        .header(http::header::HOST, endpoint.host())
        .header(
            http::header::USER_AGENT,
            concat!("lightpost/", env!("CARGO_PKG_VERSION")),
        );
    if let Some(token) = &endpoint.token {
        builder = builder.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
    }
    builder
}

/// Sends one request on a connection of its own.
///
/// # Errors
/// [`Trouble`] when there is no complete answer.
pub(crate) async fn exchange(
    endpoint: &Endpoint,
    request: Request<Body>,
    clock: &Clock,
) -> Result<Answer, Trouble> {
    let connecting = async {
        match &endpoint.address {
            Address::Tcp(authority) => {
                let stream = TcpStream::connect(authority).await?;
                stream.set_nodelay(true)?;
                Ok(tokio_util::either::Either::Left(stream))
            }
            Address::Unix(path) => UnixStream::connect(path)
                .await
                .map(tokio_util::either::Either::Right),
        }
    };
    let stream = clock
        .timeout(CONNECT_WITHIN, connecting)
        .await
        .map_err(|_| Trouble::Connect("no connection within 10 s".into()))?
        .map_err(|error: std::io::Error| Trouble::Connect(error.to_string()))?;
    let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(|error| Trouble::Connect(error.to_string()))?;
    let driver = tokio::spawn(connection);
    let answered = async {
        let response = sender.send_request(request).await.map_err(trouble)?;
        read(response).await
    };
    let answer = clock.timeout(ANSWER_WITHIN, answered).await;
    driver.abort();
    answer.map_err(|_| Trouble::Silent)?
}

async fn read(response: Response<hyper::body::Incoming>) -> Result<Answer, Trouble> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|error| Trouble::Lost(error.to_string()))?;
    Ok(Answer {
        status,
        body: body.to_bytes(),
    })
}

fn trouble(error: hyper::Error) -> Trouble {
    use std::error::Error;
    let cause = error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string);
    if error.is_user() {
        Trouble::Body(cause)
    } else {
        Trouble::Lost(cause)
    }
}
