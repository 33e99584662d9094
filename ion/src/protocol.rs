//! What a relay and its helper say to each other, on the two ends of a socket pair.
//!
//! A frame is, integers big-endian:
//!
//! | octets | what |
//! |---|---|
//! | 4 | length of all that follows, at most [`MOST`] |
//! | 4 | length of the message |
//! | … | the message: one JSON object, `say` names its kind |
//! | … | the payload that belongs to it, mostly empty |
//!
//! The helper opens with [`Event::Hello`], which carries [`VERSION`]; the relay answers with [`Request::Start`], which does, too. Each
//! side ends the conversation when the other speaks another version. A request with an id is answered once, by [`Event::Answer`]
//! with that id. Either side's end of file means: end in order.

use std::{io, path::PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version of this protocol.
pub(crate) const VERSION: u32 = 1;

/// The longest payload in a frame; a longer one goes by file.
pub(crate) const INLINE: usize = 1 << 18;

/// The most octets of a frame behind its length.
pub(crate) const MOST: usize = INLINE + (1 << 16);

/// Room for so many octets at least is made before the socket is read.
pub(crate) const READ: usize = 1 << 16;

/// From the relay to its helper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// What to do: once, first.
    Start {
        /// [`VERSION`]
        protocol: u32,
        /// The endpoint to open.
        endpoint: String,
        /// Where received bundles are kept.
        spool: PathBuf,
        /// The largest payload that is taken from the node; a larger one is dropped and told.
        largest: u64,
    },
    /// Hand a bundle over.
    Send(Order),
    /// Drop a bundle of ours.
    Cancel {
        /// For the answer.
        id: u64,
        /// The bundle's creation time.
        time: u64,
        /// Its sequence number.
        sequence: u64,
    },
    /// So many deliveries are dealt with.
    Done {
        /// How many.
        deliveries: u64,
        /// Their octets in the spool.
        octets: u64,
    },
    /// Are you there, and does the node answer?
    Ping {
        /// For the answer.
        id: u64,
    },
    /// Let the node go and end.
    Stop,
}

/// A bundle to be handed over; its payload is the frame's, or a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// For the answer.
    pub(crate) id: u64,
    /// Where it goes.
    pub(crate) destination: String,
    /// Lifetime in seconds.
    pub(crate) lifetime: i32,
    /// ION's class of service: 0, 1 or 2.
    pub(crate) class: u8,
    /// Where reports go.
    pub(crate) report_to: Option<String>,
    /// ION's flags for status reports.
    pub(crate) reports: u8,
    /// How long the relay waits for the answer, in milliseconds: not begun later.
    pub(crate) patience: u64,
    /// The payload's file. The node removes it when the bundle is gone; so does the helper when it could not be handed over.
    pub(crate) file: Option<PathBuf>,
    /// The payload's size.
    pub(crate) octets: u64,
}

/// From the helper to its relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// I am here.
    Hello {
        /// [`VERSION`]
        protocol: u32,
        /// Process id.
        process: u32,
    },
    /// The spool is this helper's alone from now on: what stands in it can be read.
    Spool,
    /// The endpoint is open.
    Up,
    /// It is not, or not any more.
    Down(Trouble),
    /// What became of a request.
    Answer {
        /// The request's.
        id: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// A bundle came and is in the spool, synced.
    Delivered {
        /// The spool's segment.
        segment: u64,
        /// Where in the segment.
        offset: u64,
        /// How many octets there.
        octets: u64,
    },
    /// Something to be logged as a warning.
    Warning {
        /// What.
        text: String,
    },
}

/// What is wrong, and what the operator can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// What is wrong.
    pub(crate) why: String,
    /// What to do.
    pub(crate) remedy: String,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// The node has the bundle.
    Sent {
        /// Creation time in milliseconds since the year 2000.
        time: u64,
        /// Sequence number.
        sequence: u64,
    },
    /// The node has no room now.
    NoRoom {
        /// For what.
        why: String,
    },
    /// The node never takes so much.
    TooLarge {
        /// What it takes.
        most: u64,
    },
    /// No route.
    NoRoute,
    /// The node refuses it.
    Refused {
        /// In its words.
        why: String,
    },
    /// The node does not serve us.
    Down(Trouble),
    /// The bundle is dropped, or was gone already.
    Cancelled {
        /// Whether the node still had it.
        had: bool,
    },
    /// The node answers.
    Alive,
}

/// Why octets are not a frame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// Longer than any frame.
    #[error("a frame of {0} octets, {MOST} are the most")]
    TooLong(usize),
    /// The message does not fit into the frame.
    #[error("a message of {message} octets in a frame of {frame}")]
    Lengths {
        /// The message's length.
        message: usize,
        /// The frame's.
        frame: usize,
    },
    /// Not a message of ours.
    #[error("not a message of this protocol: {0}")]
    Message(#[from] serde_json::Error),
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// One frame.
///
/// # Errors
/// The payload is longer than [`INLINE`].
pub(crate) fn encode(message: &impl Serialize, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let text = serde_json::to_vec(message)?;
    let length = 4 + text.len() + payload.len();
    let prefix = u32::try_from(length).ok().filter(|_| length <= MOST);
    let prefix = prefix.ok_or(FrameError::TooLong(length))?;
    let mut frame = Vec::with_capacity(4 + length);
    frame.extend_from_slice(&prefix.to_be_bytes());
    frame.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&text);
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// Takes the next whole frame out of `buffer`; `None` when more octets are needed.
///
/// # Errors
/// [`FrameError`]; the conversation cannot go on then.
pub(crate) fn decode<M: DeserializeOwned>(buffer: &mut BytesMut) -> Result<Option<(M, Bytes)>, FrameError> {
    let Some(frame) = number(buffer, 0) else {
        return Ok(None);
    };
    if frame > MOST {
        return Err(FrameError::TooLong(frame));
    }
    if buffer.len() < 4 + frame {
        buffer.reserve(4 + frame - buffer.len());
        return Ok(None);
    }
    let message = number(buffer, 4).filter(|message| 4 + message <= frame);
    let Some(message) = message else {
        let message = number(buffer, 4).unwrap_or_default();
        return Err(FrameError::Lengths { message, frame });
    };
    let mut whole = buffer.split_to(4 + frame).freeze();
    whole.advance(8);
    let text = whole.split_to(message);
    Ok(Some((serde_json::from_slice(&text)?, whole)))
}

/// The big-endian number at an offset, when it is there.
fn number(buffer: &[u8], at: usize) -> Option<usize> {
    let octets = buffer.get(at..at + 4)?.first_chunk()?;
    usize::try_from(u32::from_be_bytes(*octets)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_pieces() {
        let mut wire = encode(&Request::Ping { id: 7 }, b"").unwrap();
        let order = Order {
            id: 8,
            destination: "ipn:2.25".into(),
            lifetime: 60,
            class: 1,
            report_to: None,
            reports: 24,
            patience: 1000,
            file: None,
            octets: 5,
        };
        wire.extend(encode(&Request::Send(order.clone()), b"hello").unwrap());
        for piece in 1..wire.len() {
            let mut buffer = BytesMut::new();
            let mut read = Vec::new();
            for octets in wire.chunks(piece) {
                buffer.extend_from_slice(octets);
                while let Some(frame) = decode::<Request>(&mut buffer).unwrap() {
                    read.push(frame);
                }
            }
            assert_eq!(read.len(), 2, "{piece}");
            assert_eq!(read[0], (Request::Ping { id: 7 }, Bytes::new()));
            assert_eq!(
                read[1],
                (Request::Send(order.clone()), Bytes::from_static(b"hello"))
            );
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn lengths_are_limited_before_anything_is_kept() {
        let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 0][..]);
        assert!(matches!(
            decode::<Request>(&mut buffer),
            Err(FrameError::TooLong(_))
        ));
        let mut buffer = BytesMut::from(&[0, 0, 0, 5, 0, 0, 0, 2, b'{'][..]);
        assert!(matches!(
            decode::<Request>(&mut buffer),
            Err(FrameError::Lengths { message: 2, frame: 5 })
        ));
        let mut buffer = BytesMut::from(&[0, 0, 0, 2, 0, 0][..]);
        assert!(matches!(
            decode::<Request>(&mut buffer),
            Err(FrameError::Lengths { message: 0, frame: 2 })
        ));
        assert!(encode(&Request::Stop, &vec![0; MOST]).is_err());
        assert!(encode(&Request::Stop, &vec![0; INLINE]).is_ok());
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&octets[..]);
            let _ = decode::<Event>(&mut buffer);
        }
    }
}
