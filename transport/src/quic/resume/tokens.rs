//! Address-validation tokens (RFC 9000 section 8.1.3), kept with the sessions.
//!
//! A gateway that is shown one may answer with more than three times the octets that it got, so a long certificate chain costs no
//! further round trip.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use quinn::TokenStore;

use super::{
    Sessions,
    book::{Entry, TOKENS, Token},
    sessions::place,
};

/// A longer token is not kept; rustls' and quinn's own have about a hundred octets.
const LONGEST: usize = 1024;
/// Tokens that are taken of one connection; a gateway that goes on is not listened to.
const MOST: usize = 8;

/// The tokens of one gateway.
pub(super) struct Tokens {
    sessions: Arc<Sessions>,
    gateway: Arc<str>,
    /// How many came over this connection.
    taken: AtomicUsize,
}

impl Tokens {
    /// Those that come over one connection.
    pub(super) fn new(sessions: Arc<Sessions>, gateway: Arc<str>) -> Self {
        let taken = AtomicUsize::new(0);
        Self {
            sessions,
            gateway,
            taken,
        }
    }

    fn spent(&self, octets: Vec<u8>) {
        let gateway = self.gateway.to_string();
        self.sessions.note(Entry::TokenUsed { gateway, octets });
    }
}

impl TokenStore for Tokens {
    fn insert(&self, _: &str, token: Bytes) {
        if token.len() > LONGEST || self.taken.fetch_add(1, Ordering::Relaxed) >= MOST {
            return;
        }
        let now = self.sessions.now();
        let dropped: Vec<_> = {
            let mut gateways = self.sessions.gateways();
            let tokens = &mut place(&mut gateways, &self.gateway, now).tokens;
            tokens.push(token.to_vec());
            let excess = tokens.len().saturating_sub(TOKENS);
            tokens.drain(..excess).collect()
        };
        for octets in dropped {
            self.spent(octets);
        }
        self.sessions.note(Entry::Token(Token {
            gateway: self.gateway.to_string(),
            at: now,
            octets: token.to_vec(),
        }));
        self.sessions.flush_soon();
    }

    fn take(&self, _: &str) -> Option<Bytes> {
        let octets = self.sessions.gateways().get_mut(&self.gateway)?.tokens.pop()?;
        self.spent(octets.clone());
        self.sessions.flush_soon();
        Some(octets.into())
    }
}
