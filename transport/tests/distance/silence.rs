//! Whether a connection outlives a large mail that got no reply in time.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use lightpost_config::Rate;
use lightpost_sim::net::Way;
use lightpost_transport::{Failure, Outcome, Path};

use super::world::*;

/// More than the connection to it holds.
const LARGE: usize = 40_000_000;
/// The reply to [`LARGE`] would be here after 19 s.
const LIMIT: Duration = Duration::from_secs(30);

fn moon() -> Path {
    Path {
        one_way_min: Duration::from_millis(1_300),
        one_way_max: Duration::from_millis(1_300),
        rate_up: Rate(2e7),
        rate_down: Rate(2e7),
        ..mars()
    }
}

/// What is seen of the datagrams that leave Earth.
#[derive(Clone, Default)]
struct Seen {
    /// Those of handshakes and early data: with long headers (RFC 9000 section 17.2).
    handshakes: Arc<AtomicUsize>,
    /// From when on nothing of the connections so far gets through.
    forgotten: Arc<AtomicBool>,
}

impl Seen {
    fn watch(world: &World) -> Self {
        let seen = Self::default();
        let (watching, mut old) = (seen.clone(), HashSet::new());
        world.space.filter(Some(Box::new(move |way, datagram| {
            if way == Way::Down {
                return true;
            }
            if datagram.first().is_some_and(|first| first & 0x80 != 0) {
                watching.handshakes.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            // The gateway's connection ids have eight octets.
            let id = datagram.get(1..9).unwrap_or_default().to_vec();
            if watching.forgotten.load(Ordering::Relaxed) {
                return !old.contains(&id);
            }
            old.insert(id);
            true
        })));
        seen
    }

    fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }
}

async fn large(world: &World) -> Outcome {
    send_within(&world.client, &world.clock, LARGE, 0, LIMIT).await
}

#[test]
fn a_gateway_that_is_silent_under_a_large_mail_is_dialled_anew() {
    let papers = Papers::new();
    virtually(async || {
        let mut world = World::new(&papers, moon(), link(&moon()), 1);
        let seen = Seen::watch(&world);
        world.mail(4096).await;
        seen.forgotten.store(true, Ordering::Relaxed);
        let before = seen.handshakes();
        let lost = large(&world).await;
        assert!(
            matches!(lost, Outcome::Failed(Failure::NoReply { .. })),
            "{lost:?}"
        );
        let (arrived, _) = world.mail(LARGE).await;
        eprintln!(
            "{arrived} light times, {} datagrams with long headers",
            seen.handshakes() - before
        );
        assert!(seen.handshakes() > before);
    });
}

#[test]
fn a_line_that_is_slower_than_thought_keeps_its_connection() {
    let papers = Papers::new();
    virtually(async || {
        let mut slow = link(&moon());
        slow.rate = Some(4_000_000);
        let mut path = moon();
        // The next mail stands behind the large one's octets, and is not to look for a way of its own.
        path.quic.hedge = Some(false);
        let mut world = World::new(&papers, path, slow, 1);
        let seen = Seen::watch(&world);
        world.mail(4096).await;
        let before = seen.handshakes();
        let late = large(&world).await;
        assert!(
            matches!(late, Outcome::Failed(Failure::NoReply { .. })),
            "{late:?}"
        );
        world.mail(4096).await;
        assert_eq!(seen.handshakes(), before, "it was heard of all the time");
    });
}
