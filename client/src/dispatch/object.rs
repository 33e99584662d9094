//! The Batch SMTP object of one exchange: small ones in memory, large ones streamed from the store.

use std::{cell::RefCell, io, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use lightpost_intake::Sha256;
use lightpost_mail::{
    Envelope,
    bsmtp::encode::{TAIL, head},
    lines::{BodyFacts, Stuffer},
};
use lightpost_queue::{BodyId, Store};
use lightpost_transport::Object;
use zstd::{
    bulk::Compressor,
    stream::raw::{Encoder, Operation},
};

use crate::config::Encoding;

/// Bodies up to this size are kept in memory while they are on their way.
pub(crate) const SMALL: u64 = 256 * 1024;
/// The compression level: zstd's own default.
const LEVEL: i32 = 3;

thread_local! {
    /// Each thread's own: making one costs more than a small mail.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// An object that is ready to leave.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) object: Arc<dyn Object>,
    /// SHA-256 of the object before it is encoded.
    pub(crate) digest: [u8; 32],
    /// Whether it is encoded by zstd.
    pub(crate) zstd: bool,
}

/// Makes the object of a body, which is read where it did not come along.
pub(crate) async fn build(
    store: &Arc<dyn Store>,
    name: &str,
    envelope: &Envelope,
    body: (BodyId, Option<Bytes>),
    facts: &BodyFacts,
    encoding: Encoding,
) -> io::Result<Ready> {
    let start = head(name, envelope, facts);
    let (body, content) = body;
    let source = Source {
        store: store.clone(),
        body,
        content,
        head: start.into(),
        size: facts.size,
        zstd: encoding == Encoding::Zstd,
    };
    if facts.size <= SMALL {
        small(source).await
    } else {
        large(source).await
    }
}

async fn small(source: Source) -> io::Result<Ready> {
    let mut whole = BytesMut::with_capacity(source.head.len() + source.size as usize + 64);
    let mut plain = source.plain();
    while let Some(chunk) = plain.next().await {
        whole.extend_from_slice(&chunk?);
    }
    let digest = Sha256::of(&whole);
    let packed = if source.zstd {
        let packed = COMPRESSOR.with_borrow_mut(|spare| {
            let compressor = match spare {
                Some(compressor) => compressor,
                None => spare.insert(Compressor::new(LEVEL)?),
            };
            compressor.compress(&whole)
        })?;
        (packed.len() < whole.len()).then_some(packed)
    } else {
        None
    };
    let zstd = packed.is_some();
    let octets = packed.map_or_else(|| whole.freeze(), Bytes::from);
    Ok(Ready {
        object: Arc::new(Whole(octets)),
        digest,
        zstd,
    })
}

async fn large(source: Source) -> io::Result<Ready> {
    let mut hash = Sha256::default();
    let mut size = 0;
    let mut plain = source.plain();
    while let Some(chunk) = plain.next().await {
        let chunk = chunk?;
        size += chunk.len() as u64;
        hash.update(&chunk);
    }
    let zstd = source.zstd;
    Ok(Ready {
        object: Arc::new(Streamed { source, size }),
        digest: hash.finish(),
        zstd,
    })
}

/// An object in memory.
struct Whole(Bytes);

impl Object for Whole {
    fn open(&self) -> BoxStream<'static, io::Result<Bytes>> {
        stream::iter([Ok(self.0.clone())]).boxed()
    }

    fn size(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }
}

/// An object in the store.
struct Streamed {
    source: Source,
    size: u64,
}

impl Object for Streamed {
    fn open(&self) -> BoxStream<'static, io::Result<Bytes>> {
        let plain = self.source.plain();
        if self.source.zstd { packed(plain) } else { plain }
    }

    fn size(&self) -> Option<u64> {
        (!self.source.zstd).then_some(self.size)
    }
}

/// Where an object comes from.
#[derive(Clone)]
struct Source {
    store: Arc<dyn Store>,
    body: BodyId,
    /// The whole body, where it came along.
    content: Option<Bytes>,
    head: Bytes,
    size: u64,
    zstd: bool,
}

/// How far an object was read.
struct Reading {
    source: Source,
    stuffer: Stuffer,
    offset: u64,
    part: Part,
}

enum Part {
    Head,
    Body,
    End,
}

impl Source {
    /// The octets of the object, not encoded.
    fn plain(&self) -> BoxStream<'static, io::Result<Bytes>> {
        let reading = Reading {
            source: self.clone(),
            stuffer: Stuffer::new(),
            offset: 0,
            part: Part::Head,
        };
        stream::try_unfold(reading, |mut reading| async move {
            let chunk = reading.next().await?;
            Ok(chunk.map(|chunk| (chunk, reading)))
        })
        .boxed()
    }
}

impl Reading {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self.part {
            Part::Head => {
                self.part = Part::Body;
                Ok(Some(self.source.head.clone()))
            }
            Part::Body if self.offset < self.source.size => {
                let chunk = match &self.source.content {
                    Some(content) => content.clone(),
                    None => {
                        let read = self.source.store.read_body(self.source.body, self.offset).await;
                        read.map_err(io::Error::other)?
                    }
                };
                if chunk.is_empty() {
                    let (offset, size) = (self.offset, self.source.size);
                    return Err(io::Error::other(format!(
                        "the stored body ends at {offset} of {size} octets"
                    )));
                }
                self.offset += chunk.len() as u64;
                let mut out = Vec::with_capacity(chunk.len() + 64);
                self.stuffer.push(&chunk, &mut out);
                Ok(Some(out.into()))
            }
            Part::Body => {
                self.part = Part::End;
                Ok(Some(Bytes::from_static(TAIL)))
            }
            Part::End => Ok(None),
        }
    }
}

/// Encodes a stream by zstd; memory is the encoder's window and one chunk.
fn packed(plain: BoxStream<'static, io::Result<Bytes>>) -> BoxStream<'static, io::Result<Bytes>> {
    let encoder = Encoder::new(LEVEL);
    let state = (plain, Some(encoder));
    stream::try_unfold(state, |(mut plain, encoder)| async move {
        let Some(encoder) = encoder else { return Ok(None) };
        let mut encoder = encoder?;
        loop {
            match plain.next().await {
                Some(chunk) => {
                    let out = pack(&mut encoder, &chunk?)?;
                    if !out.is_empty() {
                        return Ok(Some((out, (plain, Some(Ok(encoder))))));
                    }
                }
                None => return Ok(Some((finish(&mut encoder)?, (plain, None)))),
            }
        }
    })
    .boxed()
}

fn pack(encoder: &mut Encoder<'_>, mut input: &[u8]) -> io::Result<Bytes> {
    let mut all = Vec::new();
    let mut out = vec![0; 64 * 1024];
    while !input.is_empty() {
        let status = encoder.run_on_buffers(input, &mut out)?;
        input = input.get(status.bytes_read..).unwrap_or_default();
        all.extend_from_slice(out.get(..status.bytes_written).unwrap_or_default());
    }
    Ok(all.into())
}

fn finish(encoder: &mut Encoder<'_>) -> io::Result<Bytes> {
    let mut all = Vec::new();
    let mut out = vec![0; 64 * 1024];
    loop {
        let mut buffer = zstd::stream::raw::OutBuffer::around(&mut out);
        let left = encoder.finish(&mut buffer, true)?;
        all.extend_from_slice(buffer.as_slice());
        if left == 0 {
            return Ok(all.into());
        }
    }
}
