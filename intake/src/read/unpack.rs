//! Streaming zstd.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use zstd::stream::raw::{DParameter, Decoder, Operation};

use super::ReadError;

/// The largest zstd window as a power of two: 8 MiB, what RFC 9659 asks every receiver to take and no more.
const WINDOW_LOG: u32 = 23;
/// Decoded octets that are handed on at once.
pub(super) const PIECE: usize = 128 * 1024;
/// The least room for what is decoded.
pub(super) const SMALLEST: usize = 4 * 1024;

/// A frame under way. Memory is the window and one piece, whatever the frame claims.
pub(super) struct Unpacker {
    /// Goes back to [`SPARE`] at the end of the frames, or when this is dropped.
    tool: Option<Tool>,
    pub(super) input: Bytes,
    /// What the decoder still wants; 0 between frames.
    wants: usize,
    /// Whether the last piece filled its room, so that more may wait inside the decoder.
    full: bool,
    begun: bool,
    /// Octets that came out.
    written: u64,
}

/// What a frame is read with.
struct Tool {
    decoder: Decoder<'static>,
    /// What comes out at once. Zeroed when it grows, and so once for many mails.
    out: Vec<u8>,
}

/// Tools that small frames were read with: making one costs as much as reading a small frame.
static SPARE: Mutex<Vec<Tool>> = Mutex::new(Vec::new());
/// The most that are kept: each may have grown by a window.
const SPARES: usize = 4;
/// A decoder whose frames had more octets may have grown to the largest window, and is not kept.
const SPARED: u64 = 256 * 1024;

fn spare() -> MutexGuard<'static, Vec<Tool>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Unpacker {
    /// Leaves the decoder to the next mail.
    fn give_back(&mut self) {
        let Some(mut tool) = self.tool.take() else {
            return;
        };
        if self.written <= SPARED && tool.decoder.reinit().is_ok() {
            let mut spare = spare();
            if spare.len() < SPARES {
                spare.push(tool);
            }
        }
    }
}

fn tool() -> Result<Tool, ReadError> {
    if let Some(tool) = spare().pop() {
        return Ok(tool);
    }
    let mut decoder = Decoder::new().map_err(encoding)?;
    decoder
        .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
        .map_err(encoding)?;
    Ok(Tool {
        decoder,
        out: Vec::new(),
    })
}

impl Unpacker {
    pub(super) fn new() -> Result<Self, ReadError> {
        Ok(Self {
            tool: Some(tool()?),
            written: 0,
            input: Bytes::new(),
            wants: 0,
            full: false,
            begun: false,
        })
    }

    /// What comes out next; `last` once no more input will come.
    pub(super) fn piece(&mut self, last: bool) -> Result<Option<Bytes>, ReadError> {
        let Some(Tool { decoder, out }) = &mut self.tool else {
            return Ok(None);
        };
        while !self.input.is_empty() || self.full {
            // Most mails are small, and so is what is kept for them.
            let room = self.input.len().saturating_mul(8).clamp(SMALLEST, PIECE);
            let room = if self.full { PIECE } else { room };
            if out.len() < room {
                out.resize(room, 0);
            }
            let status = decoder.run_on_buffers(&self.input, out).map_err(encoding)?;
            self.begun = true;
            // Asked once more after a frame's end, zstd only says how much the next frame's header has.
            if status.bytes_read > 0 || status.bytes_written > 0 {
                self.wants = status.remaining;
            }
            self.full = status.bytes_written == out.len();
            self.written += status.bytes_written as u64;
            let _ = self.input.split_to(status.bytes_read.min(self.input.len()));
            if status.bytes_written > 0 {
                let written = out.get(..status.bytes_written).unwrap_or_default();
                return Ok(Some(Bytes::copy_from_slice(written)));
            }
        }
        if last {
            if self.wants != 0 || !self.begun {
                return Err(ReadError::Encoding("the frame is cut off".into()));
            }
            // Who reads may go on for long: what was read is being stored.
            self.give_back();
        }
        Ok(None)
    }
}

fn encoding(error: std::io::Error) -> ReadError {
    ReadError::Encoding(error.to_string())
}
