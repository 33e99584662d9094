//! A mail whose reply is overdue goes again on a fresh connection.
//!
//! quinn repairs the lost end of a mail after five light times, and after a hold of hours much later: what it takes for the round
//! trip is then ruined, for twenty mails to come, and it cannot be told otherwise. So an exchange whose reply should be here by now is
//! sent a second time, on another connection, with the same exchange id: the gateway takes it for the repeat that it is. The first
//! reply wins. And a connection whose round trip is ruined is replaced by a fresh one, once that one is known to work.
//!
//! During an outage every reply is overdue. Then no more than one exchange of a path goes again; the others wait for a sign of life.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::BoxStream};
use http::StatusCode;
use tokio::sync::Notify;
use url::Url;

use super::{
    client::{Connecting, Lane, QuicTransport, Target, UnderWay, authority, lock},
    profile::HedgeFigures,
    session::Session,
};
use crate::{Exchange, Failure, Object, Outcome, Path, Reply};

/// What a gateway may take to store a mail and answer, with its delay before it acknowledges.
const ANSWERING: Duration = Duration::from_secs(2);
/// What a reply may be late by, in parts of a round trip.
const LATE: f64 = 0.05;
/// Octets on the line for each of a mail, headers and acknowledgements included; twice that where all is repeated.
const OVERHEAD: f64 = 1.1;

/// How often exchanges went again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HedgeCounters {
    /// Exchanges that were sent a second time.
    pub repeated: u64,
    /// Those whose second reply came first.
    pub won: u64,
    /// Connections that were replaced because of their round trip.
    pub renewed: u64,
}

/// What is known of a path's exchanges.
pub(super) struct Hedge {
    figures: HedgeFigures,
    /// Copies of each datagram.
    copies: u64,
    /// The last round trip that light and figures allow.
    round_trip: Mutex<Option<Duration>>,
    /// Octets of exchanges under way.
    octets: AtomicU64,
    /// Whether an exchange went again into silence.
    probing: AtomicBool,
    /// Connections that wait for a sign of life.
    spares: Mutex<HashMap<Target, Connecting>>,
    repeated: AtomicU64,
    won: AtomicU64,
    renewed: AtomicU64,
}

impl Hedge {
    pub(super) fn new(figures: HedgeFigures, copies: u8) -> Self {
        Self {
            figures,
            copies: u64::from(copies.max(1)),
            round_trip: Mutex::default(),
            octets: AtomicU64::new(0),
            probing: AtomicBool::new(false),
            spares: Mutex::default(),
            repeated: AtomicU64::new(0),
            won: AtomicU64::new(0),
            renewed: AtomicU64::new(0),
        }
    }

    pub(super) fn counters(&self) -> HedgeCounters {
        let [repeated, won, renewed] =
            [&self.repeated, &self.won, &self.renewed].map(|count| count.load(Ordering::Relaxed));
        HedgeCounters {
            repeated,
            won,
            renewed,
        }
    }

    fn round_trip(&self, path: &Path) -> Duration {
        lock(&self.round_trip).unwrap_or_else(|| path.round_trip_max())
    }

    /// When a reply may come at the earliest, counted as [`Hedge::patience`] is.
    fn earliest(&self, path: &Path) -> Duration {
        self.round_trip(path).mul_f64(1.0 - LATE)
    }

    /// When a reply is overdue, counted from when the mail was handed to the connection.
    fn patience(&self, path: &Path) -> Duration {
        let octets = self.octets.load(Ordering::Relaxed) * self.copies;
        let sending = path.rate_up.time_for((octets as f64 * OVERHEAD) as u64);
        self.round_trip(path)
            .mul_f64(1.0 + LATE)
            .saturating_add(sending)
            .saturating_add(ANSWERING)
    }

    fn won(&self, reply: Reply) -> Outcome {
        self.won.fetch_add(1, Ordering::Relaxed);
        Outcome::Replied(reply)
    }

    /// Takes a measured round trip, unless a hold is in it.
    fn learn(&self, path: &Path, round_trip: Duration) {
        let least = path.one_way_min.mul_f64(2.0 * (1.0 - LATE));
        if round_trip >= least && round_trip <= path.round_trip_max().mul_f64(1.0 + LATE) {
            *lock(&self.round_trip) = Some(round_trip);
        }
    }
}

/// Counts what is read of an object.
struct Counted {
    object: Arc<dyn Object>,
    reading: Arc<Reading>,
}

/// How far the reading of an object is.
struct Reading {
    hedge: Arc<Hedge>,
    octets: AtomicU64,
    /// How often its end was read: more than once when early data was rejected.
    ends: AtomicU64,
    whole: Notify,
}

impl Object for Counted {
    fn open(&self) -> BoxStream<'static, std::io::Result<Bytes>> {
        let reading = self.reading.clone();
        let pieces = self.object.open().inspect({
            let reading = reading.clone();
            move |piece| {
                let octets = piece.as_ref().map_or(0, |piece| piece.len() as u64);
                reading.octets.fetch_add(octets, Ordering::Relaxed);
                reading.hedge.octets.fetch_add(octets, Ordering::Relaxed);
            }
        });
        let end = futures_util::stream::poll_fn(move |_| {
            reading.ends.fetch_add(1, Ordering::Relaxed);
            reading.whole.notify_one();
            std::task::Poll::Ready(None)
        });
        pieces.chain(end).boxed()
    }

    fn size(&self) -> Option<u64> {
        self.object.size()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let octets = self.octets.load(Ordering::Relaxed);
        self.hedge.octets.fetch_sub(octets, Ordering::Relaxed);
    }
}

/// The one exchange that went again into silence.
struct Probing(Arc<Hedge>);

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.probing.store(false, Ordering::Relaxed);
    }
}

/// An exchange whose reply is overdue.
struct Overdue {
    session: Arc<Session>,
    _probing: Option<Probing>,
}

impl QuicTransport {
    /// How often exchanges went again, on all paths.
    pub fn hedges(&self) -> HedgeCounters {
        let all = self.lanes.values().map(|lane| lane.hedge.counters());
        all.fold(HedgeCounters::default(), |sum, counters| HedgeCounters {
            repeated: sum.repeated + counters.repeated,
            won: sum.won + counters.won,
            renewed: sum.renewed + counters.renewed,
        })
    }

    /// One exchange, a second time when its reply is overdue.
    pub(super) async fn hedged(
        &self,
        exchange: &Exchange,
        target: &Target,
        lane: &Lane,
        under_way: &UnderWay,
    ) -> Outcome {
        if !lane.hedge.figures.on {
            return self.attempt(exchange, target, lane, under_way).await;
        }
        let reading = Arc::new(Reading {
            hedge: lane.hedge.clone(),
            octets: AtomicU64::new(0),
            ends: AtomicU64::new(0),
            whole: Notify::new(),
        });
        let counted = Exchange {
            object: Arc::new(Counted {
                object: exchange.object.clone(),
                reading: reading.clone(),
            }),
            ..exchange.clone()
        };
        let mut first = std::pin::pin!(self.attempt(&counted, target, lane, under_way));
        let overdue = tokio::select! {
            outcome = &mut first => return self.learned(outcome, target, lane, under_way),
            overdue = self.overdue(lane, &reading, under_way) => overdue,
        };
        lane.hedge.repeated.fetch_add(1, Ordering::Relaxed);
        tracing::info!(exchange = %exchange.id, path = lane.path.name, "no reply yet; sent again on another connection");
        let mut again = std::pin::pin!(self.again(exchange, target, lane, &overdue.session, under_way));
        tokio::select! {
            outcome = &mut first => {
                let outcome = self.learned(outcome, target, lane, under_way);
                if let Outcome::Replied(reply) = &outcome
                    && (is_final(reply.status) || !under_way.repeated.load(Ordering::Relaxed))
                {
                    return outcome;
                }
                match again.await {
                    Some(reply) => lane.hedge.won(reply),
                    None => unsettled(outcome, &exchange.gateway, under_way),
                }
            }
            reply = &mut again => match reply {
                Some(reply) => lane.hedge.won(reply),
                None => {
                    let outcome = self.learned(first.await, target, lane, under_way);
                    unsettled(outcome, &exchange.gateway, under_way)
                }
            },
        }
    }

    /// Ends when the reply is overdue and sending again may help.
    async fn overdue(&self, lane: &Lane, reading: &Reading, under_way: &UnderWay) -> Overdue {
        let hedge = &lane.hedge;
        reading.whole.notified().await;
        let session = lock(&under_way.session).clone();
        let (Some(session), true) = (
            session,
            reading.octets.load(Ordering::Relaxed) <= hedge.figures.up_to,
        ) else {
            return std::future::pending().await;
        };
        loop {
            let ends = reading.ends.load(Ordering::Relaxed);
            let received = self.until_overdue(lane, &session).await;
            if reading.ends.load(Ordering::Relaxed) != ends {
                // It left anew meanwhile.
                continue;
            }
            if session.received() > received {
                return Overdue {
                    session,
                    _probing: None,
                };
            }
            if !hedge.probing.swap(true, Ordering::Relaxed) {
                return Overdue {
                    session,
                    _probing: Some(Probing(hedge.clone())),
                };
            }
            // What was held on its way to us comes a round trip before what was held on its way there is answered.
            while session.received() == received {
                self.clock.sleep(lane.path.one_way_max).await;
            }
        }
    }

    /// Waits until the reply to what is sent now is overdue; what had been received when it became possible.
    async fn until_overdue(&self, lane: &Lane, session: &Session) -> u64 {
        let start = self.clock.instant();
        self.clock.sleep(lane.hedge.earliest(&lane.path)).await;
        let received = session.received();
        loop {
            // Others may have got onto the line meanwhile.
            let passed = self.clock.instant() - start;
            let left = lane.hedge.patience(&lane.path).saturating_sub(passed);
            if left.is_zero() {
                return received;
            }
            self.clock.sleep(left).await;
        }
    }

    /// The exchange once more, on another connection than `than`; `None` when that says nothing about it.
    async fn again(
        &self,
        exchange: &Exchange,
        target: &Target,
        lane: &Lane,
        than: &Arc<Session>,
        under_way: &UnderWay,
    ) -> Option<Reply> {
        let session = match self.other(target, lane, than).await {
            Ok(session) => session,
            Err(cause) => {
                tracing::debug!(%cause, "no other connection");
                return None;
            }
        };
        let mark = || under_way.repeated.store(true, Ordering::Relaxed);
        match session.post(exchange, mark).await {
            Ok(reply) if is_final(reply.status) => Some(reply),
            Ok(reply) => {
                tracing::debug!(status = %reply.status, "the repeat is not taken; waiting on");
                None
            }
            Err(broken) => {
                tracing::debug!(?broken, "the repeat came to nothing");
                None
            }
        }
    }

    /// A connection other than `than`: the current one, or one that is opened for this.
    async fn other(
        &self,
        target: &Target,
        lane: &Lane,
        than: &Arc<Session>,
    ) -> Result<Arc<Session>, Arc<str>> {
        if let Some(Ok(session)) = self.pool().get(target).and_then(|known| known.peek())
            && session.stands()
            && !Arc::ptr_eq(session, than)
        {
            return Ok(session.clone());
        }
        self.spare(target, lane).await
    }

    /// The connection that may replace the current one, opened when there is none.
    fn spare(&self, target: &Target, lane: &Lane) -> Connecting {
        let mut spares = lock(&lane.hedge.spares);
        spares.retain(|_, spare| match spare.peek() {
            Some(Ok(session)) => session.stands(),
            Some(Err(_)) => false,
            None => true,
        });
        spares
            .entry(target.clone())
            .or_insert_with(|| self.dial(target, lane))
            .clone()
    }

    /// Lets a spare connection take over once something came over it.
    pub(super) fn promote(&self, target: &Target, lane: &Lane, pool: &mut HashMap<Target, Connecting>) {
        let mut spares = lock(&lane.hedge.spares);
        let Some(spare) = spares.get(target).cloned() else {
            return;
        };
        // Whoever waited for it may be gone; then nobody has looked yet how it ended.
        spare.clone().now_or_never();
        match spare.peek() {
            None => {}
            Some(Ok(session)) if session.stands() && session.received() == 0 => {}
            Some(Ok(session)) if session.stands() => {
                pool.insert(target.clone(), spare);
                spares.remove(target);
            }
            Some(_) => {
                spares.remove(target);
            }
        }
    }

    /// Takes the round trip of the connection that brought a reply, and replaces a connection whose round trip is ruined.
    fn learned(&self, outcome: Outcome, target: &Target, lane: &Lane, under_way: &UnderWay) -> Outcome {
        let session = lock(&under_way.session).clone();
        if let (Outcome::Replied(_), Some(session)) = (&outcome, session) {
            let round_trip = session.round_trip();
            lane.hedge.learn(&lane.path, round_trip);
            let ruined = lane.path.round_trip_max().mul_f64(lane.hedge.figures.renew_at);
            let current = self.pool().get(target).and_then(|known| known.peek().cloned());
            let current = matches!(current, Some(Ok(current)) if Arc::ptr_eq(&current, &session));
            if round_trip > ruined && current && !lock(&lane.hedge.spares).contains_key(target) {
                lane.hedge.renewed.fetch_add(1, Ordering::Relaxed);
                tracing::info!(
                    path = lane.path.name,
                    round_trip = lightpost_config::duration_text(round_trip),
                    "the connection was held up for long; another one takes its place"
                );
                // It opens by itself.
                drop(self.spare(target, lane));
            }
        }
        outcome
    }
}

/// What is known of an exchange whose repeat brought no final reply, after `outcome` of its first copy. One of two copies may be stored
/// whatever was said of the other: then the exchange stays open, to be repeated under the same id.
fn unsettled(outcome: Outcome, gateway: &Url, under_way: &UnderWay) -> Outcome {
    if !under_way.repeated.load(Ordering::Relaxed) {
        return outcome;
    }
    let cause = match outcome {
        Outcome::Replied(reply) if !is_final(reply.status) => {
            format!("sent twice and answered {}", reply.status)
        }
        Outcome::Failed(Failure::Unreachable { cause, .. }) => cause,
        outcome => return outcome,
    };
    let gateway = authority(gateway);
    Outcome::Failed(Failure::Interrupted { gateway, cause })
}

/// Whether an answer to one of two copies is the answer to the exchange: one that asks to come again may only mean that the other copy is
/// being worked on, and one that asks who we are, or sends us
/// elsewhere, says nothing about the other copy at all.
pub(super) fn is_final(status: StatusCode) -> bool {
    let later = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::CONFLICT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    !status.is_redirection() && !status.is_server_error() && !later.contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_copy_that_did_not_leave_says_nothing_about_the_other() {
        let url = "https://gw1.moon.example/in".parse().unwrap();
        for repeated in [false, true] {
            let under_way = UnderWay::default();
            under_way.repeated.store(repeated, Ordering::Relaxed);
            let (gateway, cause) = ("gw1".to_owned(), "no answer".to_owned());
            let outcome = Outcome::Failed(Failure::Unreachable { gateway, cause });
            match unsettled(outcome, &url, &under_way) {
                Outcome::Failed(Failure::Unreachable { .. }) => assert!(!repeated),
                Outcome::Failed(Failure::Interrupted { .. }) => assert!(repeated),
                other => panic!("{other:?}"),
            }
        }
    }
}
