//! Connections beside the current one: for an exchange that goes again, and in the place of one whose round trip is ruined.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use futures_util::FutureExt;

use crate::{
    Outcome,
    quic::{
        client::{Connecting, Lane, QuicTransport, Target, UnderWay, lock},
        session::Session,
    },
};

impl QuicTransport {
    /// A connection other than `than`: the current one, or one that is opened for this.
    pub(super) async fn other(
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
    pub(in crate::quic) fn promote(
        &self,
        target: &Target,
        lane: &Lane,
        pool: &mut HashMap<Target, Connecting>,
    ) {
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
    pub(super) fn learned(
        &self,
        outcome: Outcome,
        target: &Target,
        lane: &Lane,
        under_way: &UnderWay,
    ) -> Outcome {
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
