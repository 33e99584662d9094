//! A mail as the verification of signatures sees it (RFC 6376, RFC 8617): its header section in memory, of its body the hashes only.

use lightpost_queue::StoreError;
use mail_auth::{
    AuthenticatedMessage,
    common::crypto::{HashAlgorithm, HashContext, HashImpl, Sha1, Sha256},
    dkim::{Canonicalization, canonicalize::BodyHasher},
};

use crate::StoredBody;

/// Octets of the largest header section that is read.
pub const HEADERS: usize = 256 * 1024;
/// Signatures that are looked at; each costs a question to the resolver.
const SIGNATURES: usize = 10;

/// Reads a header section whole; `None` when it is larger than [`HEADERS`].
///
/// # Errors
/// The store's.
pub async fn whole_headers(body: &StoredBody) -> Result<Option<Vec<u8>>, StoreError> {
    let headers = body.headers(HEADERS).await?;
    let whole = headers.ends_with(b"\r\n\r\n") || headers.len() as u64 == body.size;
    Ok(whole.then_some(headers))
}

/// The mail with these headers, the body behind them hashed as its signatures ask for, and once relaxed with SHA-256 for a seal of ours. The body
/// is read once, in pieces. `None` when there is no header field.
///
/// # Errors
/// The store's.
pub async fn signed<'x>(
    headers: &'x [u8],
    body: &StoredBody,
) -> Result<Option<AuthenticatedMessage<'x>>, StoreError> {
    let Some(mut message) = AuthenticatedMessage::parse(headers) else {
        return Ok(None);
    };
    message.dkim_headers.truncate(SIGNATURES);
    let ours = (Canonicalization::Relaxed, HashAlgorithm::Sha256, 0);
    let wanted = message
        .body_hashes
        .iter()
        .map(|(body, hash, length, _)| (*body, *hash, *length));
    let mut wanted: Vec<_> = wanted.chain([ours]).collect();
    // A strict reader leaves no lengths: there are four of them at most.
    wanted.sort_by_key(|(body, hash, length)| (*body == ours.0, *hash == ours.1, *length));
    wanted.dedup();
    let mut hashers: Vec<Hasher> = wanted.iter().map(|wanted| Hasher::new(*wanted)).collect();
    let mut offset = headers.len() as u64;
    loop {
        let piece = body.read(offset).await?;
        if piece.is_empty() {
            break;
        }
        offset += piece.len() as u64;
        hashers.iter_mut().for_each(|hasher| hasher.write(&piece));
    }
    message.body_hashes = wanted
        .into_iter()
        .zip(hashers)
        .map(|((body, hash, length), hasher)| (body, hash, length, hasher.finish()))
        .collect();
    Ok(Some(message))
}

/// One hash of the body.
enum Hasher {
    Sha1(BodyHasher<<Sha1 as HashImpl>::Context>),
    Sha256(BodyHasher<<Sha256 as HashImpl>::Context>),
}

impl Hasher {
    fn new((body, hash, length): (Canonicalization, HashAlgorithm, u64)) -> Self {
        match hash {
            HashAlgorithm::Sha1 => Self::Sha1(BodyHasher::new(Sha1::hasher(), body, length)),
            HashAlgorithm::Sha256 => Self::Sha256(BodyHasher::new(Sha256::hasher(), body, length)),
        }
    }

    fn write(&mut self, piece: &[u8]) {
        match self {
            Self::Sha1(hasher) => hasher.write(piece),
            Self::Sha256(hasher) => hasher.write(piece),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha1(hasher) => hasher.finish().0.complete().as_ref().to_vec(),
            Self::Sha256(hasher) => hasher.finish().0.complete().as_ref().to_vec(),
        }
    }
}
