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

/// How a body is hashed: canonicalisation, algorithm and length (zero for all of it).
type Wanted = (Canonicalization, HashAlgorithm, u64);
/// How it is hashed for a seal of ours.
const OURS: Wanted = (Canonicalization::Relaxed, HashAlgorithm::Sha256, 0);

/// The hash of a body, what is behind a mail's header section, for a seal of ours: relaxed, SHA-256 (RFC 6376 section 3.4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyHash(Vec<u8>);

impl BodyHash {
    /// Of a mail that was read by [`signed`] or [`sealable`].
    pub fn of(message: &AuthenticatedMessage<'_>) -> Option<Self> {
        let mut hashes = message.body_hashes.iter();
        let ours = hashes.find(|(body, hash, length, _)| (*body, *hash, *length) == OURS)?;
        Some(Self(ours.3.clone()))
    }
}

/// The mail with these headers, the body behind them hashed as its signatures ask for, and as a seal of ours does. The body is read once, in
/// pieces. `None` when there is no header field.
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
    let wanted = message
        .body_hashes
        .iter()
        .map(|(body, hash, length, _)| (*body, *hash, *length));
    let mut wanted: Vec<_> = wanted.chain([OURS]).collect();
    // A strict reader leaves no lengths: there are four of them at most.
    wanted.sort_by_key(|(body, hash, length)| (*body == OURS.0, *hash == OURS.1, *length));
    wanted.dedup();
    message.body_hashes = hashes(headers, body, wanted).await?;
    Ok(Some(message))
}

/// The mail with these headers for a seal of ours; the body behind the stored ones is read only where its hash is not known. `None` when
/// there is no header field.
///
/// # Errors
/// The store's.
pub async fn sealable<'x>(
    headers: &'x [u8],
    stored: &[u8],
    body: &StoredBody,
    known: Option<&BodyHash>,
) -> Result<Option<AuthenticatedMessage<'x>>, StoreError> {
    let Some(mut message) = AuthenticatedMessage::parse(headers) else {
        return Ok(None);
    };
    message.body_hashes = match known {
        Some(BodyHash(hash)) => vec![(OURS.0, OURS.1, OURS.2, hash.clone())],
        None => hashes(stored, body, vec![OURS]).await?,
    };
    Ok(Some(message))
}

/// The hashes of what is behind these headers.
async fn hashes(
    headers: &[u8],
    body: &StoredBody,
    wanted: Vec<Wanted>,
) -> Result<Vec<(Canonicalization, HashAlgorithm, u64, Vec<u8>)>, StoreError> {
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
    let finished = wanted.into_iter().zip(hashers);
    Ok(finished
        .map(|((body, hash, length), hasher)| (body, hash, length, hasher.finish()))
        .collect())
}

/// One hash of the body.
enum Hasher {
    Sha1(BodyHasher<<Sha1 as HashImpl>::Context>),
    Sha256(BodyHasher<<Sha256 as HashImpl>::Context>),
}

impl Hasher {
    fn new((body, hash, length): Wanted) -> Self {
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
