//! Tokens by which a client shows that its address is real before it has answered anything (NEW_TOKEN, RFC 9000 section 8.1.3).
//!
//! With one, its next connection is not held to three times what it has sent, and under a flood of forged addresses it is known for
//! real. Retry would serve the second end at the price of a round trip; beyond Earth it is never sent.

use std::{
    collections::{HashSet, VecDeque},
    fmt, io,
    path::Path as FilePath,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use quinn::{ServerConfig, TokenLog, TokenReuseError, ValidationTokenConfig, crypto::HandshakeTokenKey};
use ring::hkdf;

use crate::{Path, quic::reset};

/// Tokens that one connection is given: its successor may be lost as well.
const TOKENS: u32 = 4;
/// How long a token is good at least.
const LEAST: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Round trips and outages that a token lasts for.
const SILENCES: u32 = 10;
/// Used tokens that are remembered, 24 octets each.
const USED: usize = 1 << 16;

/// How long a token is good for clients that come by `paths`.
pub(super) fn lifetime(paths: &[Path]) -> Duration {
    let silence = |path: &Path| path.round_trip_max().saturating_add(path.outage_max);
    let longest = paths.iter().map(silence).max().unwrap_or_default();
    LEAST.max(longest.saturating_mul(SILENCES))
}

/// Has `config` hand out tokens and take them. Their key is in the file `key` (made when missing), so that a restart does not end them.
///
/// # Errors
/// When the key cannot be read or made.
pub(super) fn configure(config: &mut ServerConfig, paths: &[Path], key: Option<&FilePath>) -> io::Result<()> {
    let mut tokens = ValidationTokenConfig::default();
    tokens
        .lifetime(lifetime(paths))
        .sent(TOKENS)
        .log(Arc::new(Used::new(USED)));
    config.validation_token_config(tokens);
    if let Some(path) = key {
        let secret = reset::secret(path, "token key")?;
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secret);
        config.token_key(Arc::new(key) as Arc<dyn HandshakeTokenKey>);
    }
    Ok(())
}

/// The tokens that were used, so that each is used once. The oldest are forgotten when there are too many, and all of them with
/// the process: whoever has seen one used can then use it once more, for the address that it was given to.
struct Used {
    room: usize,
    state: Mutex<(HashSet<u64>, VecDeque<u64>)>,
}

impl Used {
    fn new(room: usize) -> Self {
        Self {
            room,
            state: Mutex::default(),
        }
    }
}

impl TokenLog for Used {
    fn check_and_insert(
        &self,
        nonce: u128,
        _issued: SystemTime,
        _lifetime: Duration,
    ) -> Result<(), TokenReuseError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *state;
        // Half of a random number is as good as the whole; the token is authenticated.
        let nonce = nonce as u64;
        if !known.insert(nonce) {
            return Err(TokenReuseError);
        }
        order.push_back(nonce);
        if order.len() > self.room
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        Ok(())
    }
}

impl fmt::Debug for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Used").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_and_the_memory_bounded() {
        let used = Used::new(3);
        let take = |nonce| {
            used.check_and_insert(nonce, SystemTime::UNIX_EPOCH, LEAST)
                .is_ok()
        };
        assert!(take(1) && !take(1));
        assert!(take(2) && take(3) && !take(1));
        assert!(take(4) && !take(2) && !take(4));
        assert!(take(1), "long ago");
        assert_eq!(used.state.lock().unwrap().0.len(), 3);
    }

    #[test]
    fn tokens_outlast_the_path() {
        assert_eq!(lifetime(&[]), LEAST);
        let day = Duration::from_secs(86_400);
        let path = Path {
            outage_max: day * 30,
            ..Path::earth()
        };
        assert!(lifetime(&[Path::earth(), path]) > day * 300);
    }
}
