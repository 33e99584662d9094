//! A mail whose reply is overdue goes again on a fresh connection.
//!
//! quinn repairs the lost end of a mail after five light times, and after a hold of hours much later: what it takes for the round
//! trip is then ruined, for twenty mails to come, and it cannot be told otherwise. So an exchange whose reply should be here by now is
//! sent a second time, on another connection, with the same exchange id: the gateway takes it for the repeat that it is. The first
//! reply wins. And a connection whose round trip is ruined is replaced by a fresh one, once that one is known to work.
//!
//! During an outage every reply is overdue. Then no more than one exchange of a path goes again; the others wait for a sign of life.

mod reading;
mod spare;
mod state;

use std::sync::{Arc, atomic::Ordering};

use http::StatusCode;
use url::Url;

use self::reading::{Counted, Reading};
pub(super) use self::state::Hedge;
pub use self::state::HedgeCounters;
use super::{
    client::{Lane, QuicTransport, Target, UnderWay, authority, lock},
    session::Session,
};
use crate::{Exchange, Failure, Outcome, Reply};

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
        let reading = Reading::new(lane.hedge.clone());
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
        let mark = |_| under_way.repeated.store(true, Ordering::Relaxed);
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
