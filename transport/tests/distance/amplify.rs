//! A forged address is sent no more than three times what came from it (RFC 9000 section 8.1).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lightpost_sim::net::{Filter, Way};
use lightpost_transport::{Path, quic::datagram::Policy};

use super::world::{Papers, World, link, mars, send, virtually};

/// Only the first datagrams of a client arrive, as from somebody who writes another's address on them; copies and what QUIC sends again count.
#[test]
fn who_never_answers_is_sent_three_times_what_came() {
    let papers = Papers::new();
    for (policy, arrive) in [
        (None, 1),
        (None, 2),
        (Some(Policy::All), 1),
        (Some(Policy::All), 2),
    ] {
        virtually(async || {
            let path = Path {
                redundancy: policy,
                ..mars()
            };
            let line = link(&path);
            let world = World::new(&papers, path, line, 1);
            let came = Arc::new(AtomicUsize::new(0));
            let sent = Arc::new(AtomicUsize::new(0));
            let (counted, count) = (came.clone(), sent.clone());
            let mut datagrams = 0;
            let filter: Filter = Box::new(move |way, datagram| {
                if way == Way::Down {
                    count.fetch_add(datagram.len(), Ordering::Relaxed);
                    return true;
                }
                datagrams += 1;
                if datagrams <= arrive {
                    counted.fetch_add(datagram.len(), Ordering::Relaxed);
                }
                datagrams <= arrive
            });
            world.space.filter(Some(filter));
            let outcome = world.clock.timeout(
                Duration::from_secs(86_400),
                send(&world.client, &world.clock, 4096),
            );
            assert!(outcome.await.is_err(), "nobody answered");
            let (came, sent) = (came.load(Ordering::Relaxed), sent.load(Ordering::Relaxed));
            assert!(sent > came, "{sent} octets for {came}: nothing was answered");
            assert!(
                sent <= 3 * came,
                "{sent} octets for {came}: {:.2}",
                sent as f64 / came as f64
            );
        });
    }
}
