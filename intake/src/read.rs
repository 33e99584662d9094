//! Reading a request's body in bounded memory and bounded time, with its digest.

mod unpack;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use lightpost_clock::Clock;
use lightpost_mail::EnhancedCode;

use self::unpack::Unpacker;
use crate::{Digests, Encoding, Problem, Sha256};

/// Octets that a peer has to send for each [`ReadLimits::idle`] that it is waited for, or else it could hold a place for ever with one
/// octet now and then: half a kilobyte per second on Earth, and what a share of the poorest contact brings on a path that is closed for hours.
const PACE: u64 = 32 * 1024;

/// Bounds on a body.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Octets after decoding, and octets on the wire.
    pub octets: u64,
    /// How long the peer may be silent between two chunks. All in all it is waited for twice as long, and once more for each 32 KiB that came.
    pub idle: Duration,
}

/// Why a body cannot be read to its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing came for too long.
    #[error("nothing arrived for {}", lightpost_config::duration_text(*.0))]
    Idle(Duration),
    /// It came too slowly.
    #[error("less than {} KiB arrived per {}", PACE / 1024, lightpost_config::duration_text(*.0))]
    Slow(Duration),
    /// It is too large.
    #[error("the body exceeds the limit of {0} octets")]
    TooLarge(u64),
    /// The connection or the request's framing broke.
    #[error("the body ends too early: {0}")]
    Broken(String),
    /// It is not what its `Content-Encoding` says.
    #[error("the body is not zstd with a window of at most 8 MiB: {0}")]
    Encoding(String),
    /// A digest field says otherwise.
    #[error("the body's SHA-256 is not the one that {0} claims; it was altered on its way")]
    Digest(&'static str),
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Idle(_) | ReadError::Slow(_) => {
                Self::new(StatusCode::REQUEST_TIMEOUT, error.to_string())
                    .with_code(EnhancedCode::new(4, 4, 2))
            }
            ReadError::TooLarge(limit) => Self::too_large("the body", limit),
            // Neither speaks against the mail: the same request is fine when it arrives as it was sent. 400 would return it.
            ReadError::Broken(_) => Self::new(StatusCode::REQUEST_TIMEOUT, error.to_string())
                .of_kind("urn:lightpost:problem:incomplete", "Incomplete request")
                .with_code(EnhancedCode::new(4, 4, 2)),
            ReadError::Encoding(_) => {
                Self::bad_request(error.to_string()).with_code(EnhancedCode::new(5, 6, 0))
            }
            ReadError::Digest(_) => Self::new(StatusCode::REQUEST_TIMEOUT, error.to_string())
                .of_kind("urn:lightpost:problem:digest-mismatch", "Digest mismatch")
                .with_code(EnhancedCode::new(4, 6, 0)),
        }
    }
}

/// What is known about a body that was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadDigest {
    /// SHA-256 over the decoded octets.
    pub sha256: [u8; 32],
    /// The decoded octets.
    pub octets: u64,
    /// SHA-256 over the octets as sent.
    pub encoded_sha256: [u8; 32],
}

impl ReadDigest {
    /// Holds the body against what the request claims.
    ///
    /// # Errors
    /// [`ReadError::Digest`]
    pub fn check(&self, claimed: &Digests) -> Result<(), ReadError> {
        if claimed.decoded.is_some_and(|digest| digest != self.sha256) {
            return Err(ReadError::Digest("the request's digest field"));
        }
        if claimed
            .encoded
            .is_some_and(|digest| digest != self.encoded_sha256)
        {
            return Err(ReadError::Digest("Repr-Digest or Content-Digest"));
        }
        Ok(())
    }
}

/// A request's body, decoded, in pieces of at most 128 KiB or one arriving chunk.
pub struct BodyReader {
    stream: BodyDataStream,
    clock: Clock,
    limits: ReadLimits,
    decoder: Option<Unpacker>,
    ready: VecDeque<Bytes>,
    wire: u64,
    /// How long the peer was waited for; not how long the store took.
    waited: Duration,
    octets: u64,
    /// The digests, where somebody wants to know them.
    plain: Option<Sha256>,
    encoded: Option<Sha256>,
    failed: Option<ReadError>,
    ended: bool,
}

impl BodyReader {
    /// Starts to read.
    ///
    /// # Errors
    /// [`ReadError::Encoding`] when no decoder can be made.
    pub fn new(body: Body, encoding: Encoding, limits: ReadLimits, clock: Clock) -> Result<Self, ReadError> {
        let decoder = match encoding {
            Encoding::Identity => None,
            Encoding::Zstd => Some(Unpacker::new()?),
        };
        Ok(Self {
            stream: body.into_data_stream(),
            clock,
            limits,
            decoder,
            ready: VecDeque::new(),
            wire: 0,
            waited: Duration::ZERO,
            octets: 0,
            plain: Some(Sha256::default()),
            encoded: Some(Sha256::default()),
            failed: None,
            ended: false,
        })
    }

    /// The same without digests, which cost more than all the rest of reading: [`BodyReader::digest`] stays `None`.
    #[must_use]
    pub fn without_digest(mut self) -> Self {
        (self.plain, self.encoded) = (None, None);
        self
    }

    /// Whether [`BodyReader::next`] has returned `None`: the body arrived whole.
    pub fn is_whole(&self) -> bool {
        self.ended && self.failed.is_none()
    }

    /// The next decoded octets; `None` at the end, and the same error again after an error.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.advance().await;
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            if let Some(piece) = self.decoded()? {
                self.octets += piece.len() as u64;
                if self.octets > self.limits.octets {
                    return Err(ReadError::TooLarge(self.limits.octets));
                }
                if let Some(plain) = &mut self.plain {
                    plain.update(&piece);
                }
                return Ok(Some(piece));
            }
            if self.ended {
                return Ok(None);
            }
            match self.chunk().await? {
                Some(Ok(chunk)) => self.arrived(chunk)?,
                Some(Err(error)) => return Err(broken(&error)),
                None => self.ended = true,
            }
        }
    }

    /// The next octets from the peer.
    async fn chunk(&mut self) -> Result<Option<Result<Bytes, axum::Error>>, ReadError> {
        let ReadLimits { idle, .. } = self.limits;
        let periods = u32::try_from(self.wire / PACE + 2).unwrap_or(u32::MAX);
        let left = idle.saturating_mul(periods).saturating_sub(self.waited);
        let asked = self.clock.instant();
        let chunk = self.clock.timeout(idle.min(left), self.stream.next()).await;
        self.waited += asked.elapsed();
        chunk.map_err(|_| match left < idle {
            true => ReadError::Slow(idle),
            false => ReadError::Idle(idle),
        })
    }

    fn arrived(&mut self, chunk: Bytes) -> Result<(), ReadError> {
        self.wire += chunk.len() as u64;
        if self.wire > self.limits.octets {
            return Err(ReadError::TooLarge(self.limits.octets));
        }
        if let Some(decoder) = &mut self.decoder {
            if let Some(encoded) = &mut self.encoded {
                encoded.update(&chunk);
            }
            decoder.input = chunk;
        } else if !chunk.is_empty() {
            self.ready.push_back(chunk);
        }
        Ok(())
    }

    fn decoded(&mut self) -> Result<Option<Bytes>, ReadError> {
        match &mut self.decoder {
            None => Ok(self.ready.pop_front()),
            Some(decoder) => decoder.piece(self.ended),
        }
    }

    /// Reads and drops what is left, so that the digest is known.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn drain(&mut self) -> Result<(), ReadError> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// The digests, once [`BodyReader::next`] has returned `None`; before that, and without digests, `None`.
    pub fn digest(&self) -> Option<ReadDigest> {
        if !self.is_whole() {
            return None;
        }
        let sha256: [u8; 32] = self.plain.clone()?.finish();
        let encoded_sha256 = match self.decoder {
            None => sha256,
            Some(_) => self.encoded.clone()?.finish(),
        };
        Some(ReadDigest {
            sha256,
            octets: self.octets,
            encoded_sha256,
        })
    }
}

fn broken(error: &dyn std::error::Error) -> ReadError {
    // The transport's own words stand in the cause, "error reading a body" above it helps nobody.
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    ReadError::Broken(cause.to_string())
}
