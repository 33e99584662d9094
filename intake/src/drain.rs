//! The rest of a request's body, once the request is answered.
//!
//! An answer that comes before the body was read (a refusal, or the stored answer to a repeat) makes an HTTP/2 server reset
//! the stream and an HTTP/1.1 server close the connection, and some clients lose the answer with it. A small rest is
//! therefore read and dropped first. Over HTTP/3 an early answer reaches everybody, and waiting there would cost light time.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use futures_util::StreamExt;
use http::{StatusCode, Version, header};
use http_body::{Frame, SizeHint};
use lightpost_clock::Clock;

/// The largest rest that is read, in octets: with more to come, resetting the stream is cheaper for both sides.
const MOST: u64 = 1024 * 1024;
/// The longest wait for it.
const LONGEST: Duration = Duration::from_secs(5);

/// Makes `router` read a small rest of each request's body before the answer leaves, unless it came over HTTP/3.
pub fn drained(router: Router, clock: Clock) -> Router {
    router.layer(from_fn_with_state(clock, drain))
}

async fn drain(State(clock): State<Clock>, request: Request, next: Next) -> Response {
    if request.version() > Version::HTTP_2 || request.body().is_end_stream() {
        return next.run(request).await;
    }
    // A caller that asked first sends nothing before the body is polled.
    let waits = request.headers().contains_key(header::EXPECT);
    let rest = Rest::default();
    let request = request.map(|body| {
        Body::new(Lent {
            body: Some(body),
            touched: !waits,
            rest: rest.clone(),
        })
    });
    let response = next.run(request).await;
    // Who was silent for too long already is not waited for again.
    if response.status() != StatusCode::REQUEST_TIMEOUT
        && let Some(body) = rest.take()
    {
        // Too slow or broken: the answer leaves as it would have before.
        let _ = clock.timeout(LONGEST, discard(body)).await;
    }
    response
}

async fn discard(body: Body) {
    let mut stream = body.into_data_stream();
    let mut seen = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        seen += chunk.len() as u64;
        if seen > MOST {
            break;
        }
    }
}

/// Where a body ends up that was not read to its end.
#[derive(Clone, Default)]
struct Rest(Arc<Mutex<Option<Body>>>);

impl Rest {
    fn put(&self, body: Body) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }

    fn take(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A body that comes back when the handler drops it.
struct Lent {
    /// `None` after its end or an error.
    body: Option<Body>,
    touched: bool,
    rest: Rest,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.touched = true;
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && self.touched
            && !body.is_end_stream()
            && body.size_hint().lower() <= MOST
        {
            self.rest.put(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::{Stream, stream};
    use tower::ServiceExt;

    use super::*;

    /// Octets that were taken from a body.
    type Taken = Arc<AtomicU64>;

    /// A router that refuses without a look at the body.
    fn refusing() -> Router {
        drained(
            Router::new().fallback(|| async { StatusCode::FORBIDDEN }),
            Clock::system(),
        )
    }

    fn chunks(number: usize, size: usize) -> (impl Stream<Item = Result<Bytes, std::io::Error>>, Taken) {
        let taken = Taken::default();
        let count = taken.clone();
        let stream = stream::iter((0..number).map(move |_| {
            count.fetch_add(size as u64, Ordering::Relaxed);
            Ok(Bytes::from(vec![b'x'; size]))
        }));
        (stream, taken)
    }

    async fn status(router: Router, version: Version, field: Option<(&str, &str)>, body: Body) -> StatusCode {
        let mut request = http::Request::post("/").version(version);
        if let Some((name, value)) = field {
            request = request.header(name, value);
        }
        let response = router.oneshot(request.body(body).unwrap()).await.unwrap();
        response.status()
    }

    #[tokio::test]
    async fn a_small_rest_is_read_before_the_answer() {
        for (version, field, expected) in [
            (Version::HTTP_2, None, 30_000),
            (Version::HTTP_11, None, 30_000),
            (Version::HTTP_3, None, 0),
            (Version::HTTP_11, Some(("expect", "100-continue")), 0),
        ] {
            let (body, taken) = chunks(3, 10_000);
            let refused = status(refusing(), version, field, Body::from_stream(body)).await;
            assert_eq!(refused, StatusCode::FORBIDDEN);
            assert_eq!(taken.load(Ordering::Relaxed), expected, "{version:?}");
        }
    }

    #[tokio::test]
    async fn the_rest_is_read_after_a_handler_gave_up_in_the_middle() {
        let handler = |body: Body| async move {
            let mut stream = body.into_data_stream();
            stream.next().await.unwrap().unwrap();
            StatusCode::PAYLOAD_TOO_LARGE
        };
        let router = drained(Router::new().fallback(handler), Clock::system());
        let (body, taken) = chunks(5, 10_000);
        let expect = Some(("expect", "100-continue"));
        status(router, Version::HTTP_11, expect, Body::from_stream(body)).await;
        assert_eq!(taken.load(Ordering::Relaxed), 50_000);
    }

    #[tokio::test]
    async fn a_large_rest_is_left() {
        let (body, taken) = chunks(1000, 100_000);
        status(refusing(), Version::HTTP_2, None, Body::from_stream(body)).await;
        assert!(taken.load(Ordering::Relaxed) <= MOST + 200_000);
        // Its size is known beforehand: nothing is read at all.
        let rest = Rest::default();
        let body = Some(Body::from(vec![0; 2_000_000]));
        drop(Lent {
            body,
            touched: true,
            rest: rest.clone(),
        });
        assert!(rest.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_caller_is_answered_after_a_while() {
        let begun = Clock::system().instant();
        let silent = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        status(refusing(), Version::HTTP_2, None, silent).await;
        let took = Clock::system().instant().duration_since(begun);
        assert!(took >= LONGEST && took < LONGEST * 2, "{took:?}");
    }
}
