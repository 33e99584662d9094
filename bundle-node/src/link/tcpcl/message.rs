//! Messages on the wire (RFC 9174 sections 4 and 5).

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::link::End;

/// `dtn!` and version 4 (section 4.2).
pub(crate) const MAGIC: [u8; 5] = *b"dtn!\x04";
/// The most octets of extension items that are read.
const EXTENSIONS: u32 = 4096;
/// The longest node id that is read.
const NODE_ID: u16 = 1024;
/// A Transfer Length extension (section 5.2.5.1).
const TRANSFER_LENGTH: u16 = 1;

const XFER_SEGMENT: u8 = 1;
const XFER_ACK: u8 = 2;
const XFER_REFUSE: u8 = 3;
const KEEPALIVE: u8 = 4;
const SESS_TERM: u8 = 5;
const MSG_REJECT: u8 = 6;
const SESS_INIT: u8 = 7;

/// XFER_SEGMENT and XFER_ACK: the last of its transfer.
pub(crate) const END: u8 = 1;
/// XFER_SEGMENT and XFER_ACK: the first of its transfer.
pub(crate) const START: u8 = 2;
/// SESS_TERM: an answer to one.
pub(crate) const REPLY: u8 = 1;
/// An extension item that must be understood.
const CRITICAL: u8 = 1;

/// Why a session ends (section 6.1).
pub(crate) mod termination {
    pub(crate) const UNKNOWN: u8 = 0;
    pub(crate) const IDLE: u8 = 1;
}

/// Why a transfer is refused (section 5.2.4).
pub(crate) mod refusal {
    pub(crate) const COMPLETED: u8 = 1;
    pub(crate) const NO_RESOURCES: u8 = 2;
    pub(crate) const RETRANSMIT: u8 = 3;
    pub(crate) const NOT_ACCEPTABLE: u8 = 4;
    pub(crate) const EXTENSION_FAILURE: u8 = 5;
    pub(crate) const SESSION_TERMINATING: u8 = 6;
}

/// Why a message is rejected (section 5.1.2).
pub(crate) mod rejection {
    pub(crate) const UNKNOWN_TYPE: u8 = 1;
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Segment(Segment),
    Ack {
        flags: u8,
        transfer: u64,
        length: u64,
    },
    Refuse {
        reason: u8,
        transfer: u64,
    },
    Keepalive,
    Term {
        flags: u8,
        reason: u8,
    },
    Reject {
        reason: u8,
        header: u8,
    },
    Init(Init),
    /// Of a type that nobody knows; nothing after it can be read.
    Unknown(u8),
}

/// A piece of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) flags: u8,
    pub(crate) transfer: u64,
    /// How many octets the whole bundle will have, where that is said.
    pub(crate) total: Option<u64>,
    /// Whether an extension item has to be understood and is not.
    pub(crate) strange: bool,
    pub(crate) data: Bytes,
}

/// How a node introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Init {
    /// Seconds, 0 for none.
    pub(crate) keepalive: u16,
    /// The largest segment that it takes.
    pub(crate) segment: u64,
    /// The largest bundle that it takes.
    pub(crate) transfer: u64,
    pub(crate) node: String,
    /// Whether an extension item has to be understood and is not.
    pub(crate) strange: bool,
}

/// Reads one message; `most` is the largest segment that was agreed upon. `Ok(None)`: the stream ended between two messages.
///
/// # Errors
/// When the stream ends within one, or when it breaks the rules.
pub(crate) async fn read<R: AsyncRead + Unpin>(stream: &mut R, most: u64) -> Result<Option<Message>, End> {
    let kind = match stream.read_u8().await {
        Ok(kind) => kind,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let message = match kind {
        XFER_SEGMENT => Message::Segment(segment(stream, most).await?),
        XFER_ACK => Message::Ack {
            flags: stream.read_u8().await?,
            transfer: stream.read_u64().await?,
            length: stream.read_u64().await?,
        },
        XFER_REFUSE => Message::Refuse {
            reason: stream.read_u8().await?,
            transfer: stream.read_u64().await?,
        },
        KEEPALIVE => Message::Keepalive,
        SESS_TERM => Message::Term {
            flags: stream.read_u8().await?,
            reason: stream.read_u8().await?,
        },
        MSG_REJECT => Message::Reject {
            reason: stream.read_u8().await?,
            header: stream.read_u8().await?,
        },
        SESS_INIT => Message::Init(init(stream).await?),
        other => Message::Unknown(other),
    };
    Ok(Some(message))
}

async fn segment<R: AsyncRead + Unpin>(stream: &mut R, most: u64) -> Result<Segment, End> {
    let flags = stream.read_u8().await?;
    let transfer = stream.read_u64().await?;
    let (mut total, mut strange) = (None, false);
    if flags & START != 0 {
        for item in extensions(stream).await? {
            match (item.kind, <[u8; 8]>::try_from(&*item.value)) {
                (TRANSFER_LENGTH, Ok(value)) => total = Some(u64::from_be_bytes(value)),
                (TRANSFER_LENGTH, Err(_)) => {
                    return Err(End::Violation(
                        "a Transfer Length extension has not 8 octets".to_owned(),
                    ));
                }
                _ => strange |= item.flags & CRITICAL != 0,
            }
        }
    }
    let length = stream.read_u64().await?;
    if length > most {
        return Err(End::Violation(format!(
            "a segment of {length} octets, although {most} are the most"
        )));
    }
    let mut data =
        vec![0; usize::try_from(length).map_err(|_| End::Violation("a segment too large".to_owned()))?];
    stream.read_exact(&mut data).await?;
    Ok(Segment {
        flags,
        transfer,
        total,
        strange,
        data: data.into(),
    })
}

async fn init<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Init, End> {
    let keepalive = stream.read_u16().await?;
    let segment = stream.read_u64().await?;
    let transfer = stream.read_u64().await?;
    let length = stream.read_u16().await?;
    if length > NODE_ID {
        return Err(End::Violation(format!("a node id of {length} octets")));
    }
    let mut node = vec![0; usize::from(length)];
    stream.read_exact(&mut node).await?;
    let node =
        String::from_utf8(node).map_err(|_| End::Violation("a node id that is not UTF-8".to_owned()))?;
    let strange = extensions(stream)
        .await?
        .iter()
        .any(|it| it.flags & CRITICAL != 0);
    Ok(Init {
        keepalive,
        segment,
        transfer,
        node,
        strange,
    })
}

struct Extension {
    flags: u8,
    kind: u16,
    value: Vec<u8>,
}

/// Extension items (section 4.8).
async fn extensions<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Vec<Extension>, End> {
    let octets = stream.read_u32().await?;
    if octets > EXTENSIONS {
        return Err(End::Violation(format!("{octets} octets of extension items")));
    }
    let mut left = u64::from(octets);
    let mut items = Vec::new();
    while left > 0 {
        let mut one = (&mut *stream).take(left);
        let short = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => End::Violation("an extension item ends early".to_owned()),
            _ => error.into(),
        };
        let flags = one.read_u8().await.map_err(short)?;
        let kind = one.read_u16().await.map_err(short)?;
        let length = one.read_u16().await.map_err(short)?;
        let mut value = vec![0; usize::from(length)];
        one.read_exact(&mut value).await.map_err(short)?;
        left = one.limit();
        items.push(Extension { flags, kind, value });
    }
    Ok(items)
}

impl Message {
    /// The octets; a segment's data last.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        match self {
            Self::Segment(segment) => {
                out.put(segment.head());
                out.put_slice(&segment.data);
            }
            Self::Ack {
                flags,
                transfer,
                length,
            } => {
                out.put_slice(&[XFER_ACK, *flags]);
                out.put_u64(*transfer);
                out.put_u64(*length);
            }
            Self::Refuse { reason, transfer } => {
                out.put_slice(&[XFER_REFUSE, *reason]);
                out.put_u64(*transfer);
            }
            Self::Keepalive => out.put_u8(KEEPALIVE),
            Self::Term { flags, reason } => out.put_slice(&[SESS_TERM, *flags, *reason]),
            Self::Reject { reason, header } => out.put_slice(&[MSG_REJECT, *reason, *header]),
            Self::Init(init) => init.encode(&mut out),
            Self::Unknown(kind) => out.put_u8(*kind),
        }
        out.freeze()
    }
}

impl Segment {
    /// What stands before its data.
    pub(crate) fn head(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(40);
        out.put_slice(&[XFER_SEGMENT, self.flags]);
        out.put_u64(self.transfer);
        if self.flags & START != 0 {
            match self.total {
                None => out.put_u32(0),
                Some(total) => {
                    out.put_u32(13);
                    out.put_u8(CRITICAL);
                    out.put_u16(TRANSFER_LENGTH);
                    out.put_u16(8);
                    out.put_u64(total);
                }
            }
        }
        out.put_u64(self.data.len() as u64);
        out.freeze()
    }
}

impl Init {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(SESS_INIT);
        out.put_u16(self.keepalive);
        out.put_u64(self.segment);
        out.put_u64(self.transfer);
        out.put_u16(u16::try_from(self.node.len()).unwrap_or(0));
        out.put_slice(self.node.as_bytes());
        out.put_u32(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads everything; the stream never waits.
    fn read_all(mut octets: &[u8], most: u64) -> Result<Vec<Message>, End> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut found = Vec::new();
            while let Some(message) = read(&mut octets, most).await? {
                let last = matches!(message, Message::Unknown(_));
                found.push(message);
                if last {
                    break;
                }
            }
            Ok(found)
        })
    }

    fn message() -> impl Strategy<Value = Message> {
        let segment = (
            0..4_u8,
            any::<u64>(),
            any::<Option<u64>>(),
            proptest::collection::vec(any::<u8>(), 0..64),
        )
            .prop_map(|(flags, transfer, total, data)| {
                Message::Segment(Segment {
                    flags,
                    transfer,
                    total: total.filter(|_| flags & START != 0),
                    strange: false,
                    data: data.into(),
                })
            });
        let init = (any::<u16>(), any::<u64>(), any::<u64>(), "[a-z:.0-9]{0,20}").prop_map(
            |(keepalive, segment, transfer, node)| {
                Message::Init(Init {
                    keepalive,
                    segment,
                    transfer,
                    node,
                    strange: false,
                })
            },
        );
        prop_oneof![
            segment,
            init,
            (any::<u8>(), any::<u64>(), any::<u64>()).prop_map(|(flags, transfer, length)| Message::Ack {
                flags,
                transfer,
                length
            }),
            (any::<u8>(), any::<u64>()).prop_map(|(reason, transfer)| Message::Refuse { reason, transfer }),
            Just(Message::Keepalive),
            (any::<u8>(), any::<u8>()).prop_map(|(flags, reason)| Message::Term { flags, reason }),
            (any::<u8>(), any::<u8>()).prop_map(|(reason, header)| Message::Reject { reason, header }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(messages in proptest::collection::vec(message(), 0..8)) {
            let octets: Vec<u8> = messages.iter().flat_map(|it| it.encode().to_vec()).collect();
            prop_assert_eq!(read_all(&octets, 64).unwrap(), messages);
        }

        #[test]
        fn any_octets_are_read_or_refused(octets in proptest::collection::vec(any::<u8>(), 0..512)) {
            drop(read_all(&octets, 64));
        }

        #[test]
        fn damage_is_read_or_refused(message in message(), at in any::<prop::sample::Index>(), by in 1..=255_u8) {
            let mut octets = message.encode().to_vec();
            let at = at.index(octets.len());
            octets[at] ^= by;
            drop(read_all(&octets, 64));
        }
    }

    #[test]
    fn nothing_is_reserved_for_what_is_only_announced() {
        let mut octets = vec![XFER_SEGMENT, END];
        octets.extend(0_u64.to_be_bytes());
        octets.extend(u64::MAX.to_be_bytes());
        assert!(matches!(read_all(&octets, 1 << 20), Err(End::Violation(_))));
        let mut octets = vec![XFER_SEGMENT, START | END];
        octets.extend(0_u64.to_be_bytes());
        octets.extend(u32::MAX.to_be_bytes());
        assert!(matches!(read_all(&octets, 1 << 20), Err(End::Violation(_))));
    }
}
