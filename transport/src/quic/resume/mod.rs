//! Sessions: what lets a request leave in the first flight, across losses of the connection and restarts of this process.
//!
//! A gateway gives *tickets* after each handshake. A connection that is opened with one can send its request at once (0-RTT,
//! RFC 8446 section 2.3), which over distance is the difference between one and three light times. A ticket serves once, and for
//! a day. With it goes a secret that rustls keeps to itself: its sessions cannot be written out. But rustls is deterministic, so
//! what is kept instead is the handshake: all that it drew by chance and all that the gateway said. After a restart the record is
//! played to a fresh rustls connection, which verifies the gateway's certificate again and arrives at the same sessions.
//!
//! - [`stage`]: where a handshake meets chance and time, when live and on replay; [`provider`]: a rustls configuration on it.
//! - [`recorder`]: writes live handshakes down; [`replay`]: plays them.
//! - [`sessions`]: the tickets at hand, and what else is known of each gateway.
//! - [`record`], [`book`], [`journal`]: what is kept, what it all comes to, and the file.
//! - [`tokens`]: address-validation tokens, which save large certificate chains a round trip.
//!
//! The server compares the age that we give a ticket with its own idea of it, and over distance these differ by the light time
//! there and back: the ticket was issued half a round trip before we got it, and our first flight arrives another half later. So
//! the TLS time of a first flight is set ahead by the best known round trip ([`Sessions::dial`]).

mod book;
mod journal;
mod provider;
mod record;
mod recorder;
mod rehydrate;
mod replay;
mod sessions;
mod stage;
#[cfg(test)]
mod tests;
mod tokens;

pub(crate) use provider::{prepare, provider, signing};
use sessions::Ticket;
pub(crate) use sessions::{Sessions, Wear};
