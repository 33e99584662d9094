//! From the file back to sessions.

use std::{collections::HashMap, sync::Arc};

use super::{
    book::Book,
    record::{Origin, Record},
    replay::replay,
    sessions::{Gateway, Sessions, Ticket, place},
};

impl Sessions {
    /// Plays the kept handshakes, so that `config`, and no other, can resume what they began. Takes about a millisecond for each.
    pub(crate) fn rehydrate(&self, config: &Arc<rustls::ClientConfig>) {
        let Some(journal) = &self.journal else { return };
        let now = self.now();
        let mut gateways = self.gateways();
        journal.look(|book| {
            let mut playing = Playing {
                config,
                now,
                tickets: HashMap::new(),
                depths: HashMap::new(),
            };
            // Parents are older than their children.
            for record in book.records.values() {
                playing.play(record, place(&mut gateways, &record.gateway, now));
            }
            for (origin, ticket) in playing.tickets {
                let usable = Book::fresh(ticket.at, now) && !book.used.contains(&origin);
                if let Some(record) = book.records.get(&origin.record).filter(|_| usable) {
                    place(&mut gateways, &record.gateway, now).tickets.push(ticket);
                }
            }
            for (name, (at, millis)) in &book.round_trips {
                let span = std::time::Duration::from_millis(*millis);
                place(&mut gateways, name, now).round_trip = Some((*at, span));
            }
            for token in &book.tokens {
                let octets = token.octets.clone();
                place(&mut gateways, &token.gateway, now).tokens.push(octets);
            }
        });
        let (mut tickets, mut known) = (0, 0);
        for gateway in gateways.values_mut() {
            gateway
                .tickets
                .sort_by_key(|ticket| (ticket.at, ticket.origin.map(|(origin, _)| origin)));
            self.limit(gateway);
            tickets += gateway.tickets.len();
            known += usize::from(!gateway.tickets.is_empty());
        }
        if tickets > 0 {
            tracing::info!(tickets, gateways = known, "sessions from before can be resumed");
        }
    }
}

struct Playing<'a> {
    config: &'a Arc<rustls::ClientConfig>,
    now: u64,
    tickets: HashMap<Origin, Ticket>,
    /// How many handshakes each record hangs on.
    depths: HashMap<u64, u16>,
}

impl Playing<'_> {
    fn play(&mut self, record: &Record, gateway: &mut Gateway) {
        let (parent, depth) = match record.parent {
            None => (None, 0),
            Some(origin) => {
                let above = self.depths.get(&origin.record);
                let ticket = self.tickets.remove(&origin);
                // Without its parent, of which something has been said already, it cannot be played.
                let (Some(above), Some(ticket)) = (above, ticket) else {
                    return;
                };
                (Some(ticket.value), above.saturating_add(1))
            }
        };
        match replay(record, self.config, parent, self.now) {
            Ok(played) => {
                gateway.group = played.group.or(gateway.group);
                self.depths.insert(record.id, depth);
                for (value, (origin, at)) in played.tickets.into_iter().zip(record.tickets()) {
                    let place = Some((origin, depth));
                    self.tickets.insert(
                        origin,
                        Ticket {
                            value,
                            at,
                            origin: place,
                        },
                    );
                }
            }
            Err(cause) => {
                tracing::info!(gateway = record.gateway, %cause, "a kept session cannot be resumed any more");
            }
        }
    }
}
