//! Reading a request's body in bounded memory and bounded time, with its digest.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use lightpost_clock::Clock;
use lightpost_mail::EnhancedCode;
use zstd::stream::raw::{DParameter, Decoder, Operation};

use crate::{Digests, Encoding, Problem, Sha256};

/// The largest zstd window as a power of two: 8 MiB, what RFC 9659 asks every receiver to take and no more.
const WINDOW_LOG: u32 = 23;
/// Decoded octets that are handed on at once.
const PIECE: usize = 128 * 1024;
/// The least room for what is decoded.
const SMALLEST: usize = 4 * 1024;

/// Bounds on a body.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Octets after decoding, and octets on the wire.
    pub octets: u64,
    /// How long the peer may be silent between two chunks.
    pub idle: Duration,
}

/// Why a body cannot be read to its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing came for too long.
    #[error("nothing arrived for {}", lightpost_config::duration_text(*.0))]
    Idle(Duration),
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
            ReadError::Idle(_) => Self::new(StatusCode::REQUEST_TIMEOUT, error.to_string())
                .with_code(EnhancedCode::new(4, 4, 2)),
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
            let chunk = self
                .clock
                .timeout(self.limits.idle, self.stream.next())
                .await
                .map_err(|_| ReadError::Idle(self.limits.idle))?;
            match chunk {
                Some(Ok(chunk)) => self.arrived(chunk)?,
                Some(Err(error)) => return Err(broken(&error)),
                None => self.ended = true,
            }
        }
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

/// Streaming zstd: memory is the window and one piece, whatever the frame claims.
struct Unpacker {
    /// Goes back to [`SPARE`] when this is dropped.
    decoder: Option<Decoder<'static>>,
    input: Bytes,
    /// What the decoder still wants; 0 between frames.
    wants: usize,
    /// Whether the last piece filled its room, so that more may wait inside the decoder.
    full: bool,
    begun: bool,
    /// Octets that came out.
    written: u64,
}

/// Decoders that small frames were read with: making one costs as much as reading a small frame.
static SPARE: Mutex<Vec<Decoder<'static>>> = Mutex::new(Vec::new());
/// The most that are kept: each may have grown by a window.
const SPARES: usize = 4;
/// A decoder whose frames had more octets may have grown to the largest window, and is not kept.
const SPARED: u64 = 256 * 1024;

fn spare() -> MutexGuard<'static, Vec<Decoder<'static>>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        let Some(mut decoder) = self.decoder.take() else {
            return;
        };
        if self.written <= SPARED && decoder.reinit().is_ok() {
            let mut spare = spare();
            if spare.len() < SPARES {
                spare.push(decoder);
            }
        }
    }
}

fn decoder() -> Result<Decoder<'static>, ReadError> {
    if let Some(decoder) = spare().pop() {
        return Ok(decoder);
    }
    let mut decoder = Decoder::new().map_err(encoding)?;
    decoder
        .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
        .map_err(encoding)?;
    Ok(decoder)
}

impl Unpacker {
    fn new() -> Result<Self, ReadError> {
        Ok(Self {
            decoder: Some(decoder()?),
            written: 0,
            input: Bytes::new(),
            wants: 0,
            full: false,
            begun: false,
        })
    }

    fn piece(&mut self, last: bool) -> Result<Option<Bytes>, ReadError> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(None);
        };
        while !self.input.is_empty() || self.full {
            // Most mails are small, and zeroing and keeping a large buffer for each would cost more than reading them.
            let room = self.input.len().saturating_mul(8).clamp(SMALLEST, PIECE);
            let mut out = vec![0; if self.full { PIECE } else { room }];
            let status = decoder.run_on_buffers(&self.input, &mut out).map_err(encoding)?;
            self.begun = true;
            // Asked once more after a frame's end, zstd only says how much the next frame's header has.
            if status.bytes_read > 0 || status.bytes_written > 0 {
                self.wants = status.remaining;
            }
            self.full = status.bytes_written == out.len();
            self.written += status.bytes_written as u64;
            let _ = self.input.split_to(status.bytes_read.min(self.input.len()));
            if status.bytes_written > 0 {
                out.truncate(status.bytes_written);
                return Ok(Some(out.into()));
            }
        }
        if last && (self.wants != 0 || !self.begun) {
            return Err(ReadError::Encoding("the frame is cut off".into()));
        }
        Ok(None)
    }
}

fn encoding(error: std::io::Error) -> ReadError {
    ReadError::Encoding(error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reader(chunks: Vec<Vec<u8>>, encoding: Encoding, octets: u64) -> BodyReader {
        let stream = futures_util::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>));
        let limits = ReadLimits {
            octets,
            idle: Duration::from_secs(5),
        };
        BodyReader::new(Body::from_stream(stream), encoding, limits, Clock::system()).unwrap()
    }

    async fn all(mut reader: BodyReader) -> Result<(Vec<u8>, ReadDigest), ReadError> {
        let mut octets = Vec::new();
        while let Some(piece) = reader.next().await? {
            octets.extend_from_slice(&piece);
        }
        Ok((octets, reader.digest().unwrap()))
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(future)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_body_at_any_chunking(
            pattern in proptest::collection::vec(any::<u8>(), 1..2000),
            length in prop_oneof![0..3000usize, 100_000..300_000usize],
            chunks in 1..40usize,
            packed: bool,
        ) {
            let body: Vec<u8> = pattern.iter().copied().cycle().take(length).collect();
            let sent = if packed { zstd::encode_all(&body[..], 3).unwrap() } else { body.clone() };
            let encoding = if packed { Encoding::Zstd } else { Encoding::Identity };
            let chunks = sent.chunks(sent.len() / chunks + 1).map(<[u8]>::to_vec).collect();
            let (read, digest) = run(all(reader(chunks, encoding, 10_000_000))).unwrap();
            prop_assert!(read == body);
            let (expected, wire): ([u8; 32], [u8; 32]) = (Sha256::of(&body), Sha256::of(&sent));
            prop_assert_eq!(digest.sha256, expected);
            prop_assert_eq!(digest.encoded_sha256, wire);
        }
    }

    #[test]
    fn a_frame_may_end_where_the_room_for_it_does() {
        let zeros = [4095, 4096, 4097, 8192, PIECE, PIECE + 4096].map(|size| vec![b'x'; size]);
        let mut mails = zeros.to_vec();
        // And one that is eight times its frame, to the octet.
        let text: String = (0..2000).map(|line| format!("{} line\r\n", line % 37)).collect();
        let fits = (1..text.len()).find(|size| {
            let mail = &text.as_bytes()[..*size];
            *size > SMALLEST && zstd::encode_all(mail, 3).unwrap().len() * 8 == *size
        });
        mails.extend(fits.map(|size| text.as_bytes()[..size].to_vec()));
        for mail in mails {
            let frame = zstd::encode_all(&mail[..], 3).unwrap();
            for piece in [frame.len(), 20, 1] {
                let chunks = frame.chunks(piece).map(<[u8]>::to_vec).collect();
                let (read, _) = run(all(reader(chunks, Encoding::Zstd, 10_000_000))).unwrap();
                assert!(read == mail, "{} in pieces of {piece}", mail.len());
            }
            let cut = frame[..frame.len() - 1].to_vec();
            assert!(run(all(reader(vec![cut], Encoding::Zstd, 10_000_000))).is_err());
        }
    }

    #[tokio::test]
    async fn a_bomb_is_refused_early() {
        let bomb = zstd::encode_all(&vec![0; 50_000_000][..], 3).unwrap();
        assert!(bomb.len() < 20_000);
        let mut reader = reader(vec![bomb], Encoding::Zstd, 1_000_000);
        let mut seen = 0;
        let error = loop {
            match reader.next().await {
                Ok(piece) => seen += piece.unwrap().len(),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ReadError::TooLarge(1_000_000)), "{error}");
        assert!(seen <= 1_000_000);
        assert!(reader.next().await.is_err() && reader.digest().is_none());
    }

    #[tokio::test]
    async fn a_window_beyond_the_bound_is_refused() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(25).unwrap();
        std::io::Write::write_all(&mut encoder, &vec![1; 40_000_000]).unwrap();
        let packed = encoder.finish().unwrap();
        let error = all(reader(vec![packed], Encoding::Zstd, 50_000_000))
            .await
            .unwrap_err();
        assert!(matches!(error, ReadError::Encoding(_)), "{error}");
    }

    #[tokio::test]
    async fn cut_and_foreign_bodies_are_refused() {
        let packed = zstd::encode_all(&[7; 5000][..], 3).unwrap();
        for wrong in [
            packed[..packed.len() - 1].to_vec(),
            b"plain text".to_vec(),
            Vec::new(),
        ] {
            let error = all(reader(vec![wrong], Encoding::Zstd, 100_000))
                .await
                .unwrap_err();
            assert!(matches!(error, ReadError::Encoding(_)), "{error}");
        }
        let stream =
            futures_util::stream::iter([Ok(Bytes::from("abc")), Err(std::io::Error::other("reset"))]);
        let limits = ReadLimits {
            octets: 100,
            idle: Duration::from_secs(5),
        };
        let broken = BodyReader::new(
            Body::from_stream(stream),
            Encoding::Identity,
            limits,
            Clock::system(),
        );
        let error = all(broken.unwrap()).await.unwrap_err();
        assert_eq!(error.to_string(), "the body ends too early: reset");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_left() {
        let limits = ReadLimits {
            octets: 100,
            idle: Duration::from_secs(30),
        };
        let silent = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let mut reader = BodyReader::new(silent, Encoding::Identity, limits, Clock::system()).unwrap();
        let error = reader.next().await.unwrap_err();
        assert_eq!(Problem::from(error).status, 408);
    }
}
