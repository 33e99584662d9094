//! The two framings without acknowledgements: a length and a bundle, again and again.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::End;
use crate::config::Framing;

/// Major type 2 of CBOR (RFC 8949 section 3): a byte string.
const BYTES: u8 = 0x40;

/// What comes on such a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// A bundle of so many octets follows.
    Bundle(u64),
    /// A sign of life.
    Keepalive,
}

/// Reads what stands before a bundle; `most` is the largest that is taken. `Ok(None)`: the stream ended between two bundles.
///
/// # Errors
/// When the stream ends within it, or when it is none.
pub(crate) async fn read<R: AsyncRead + Unpin>(
    framing: Framing,
    stream: &mut R,
    most: u64,
) -> Result<Option<Head>, End> {
    let first = match stream.read_u8().await {
        Ok(first) => first,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let length = match framing {
        Framing::Mtcp => byte_string(stream, first).await?,
        Framing::Stcp | Framing::Tcpcl => {
            let mut rest = [0; 3];
            stream.read_exact(&mut rest).await?;
            u64::from(u32::from_be_bytes([first, rest[0], rest[1], rest[2]]))
        }
    };
    match length {
        0 => Ok(Some(Head::Keepalive)),
        length if length > most => Err(End::Violation(format!(
            "a bundle of {length} octets is announced, although {most} are the most"
        ))),
        length => Ok(Some(Head::Bundle(length))),
    }
}

/// The length of a byte string that begins with `first`.
async fn byte_string<R: AsyncRead + Unpin>(stream: &mut R, first: u8) -> Result<u64, End> {
    if first & 0xe0 != BYTES {
        return Err(End::Violation(format!(
            "octet {first:02x} begins no CBOR byte string"
        )));
    }
    match first & 0x1f {
        short @ 0..=23 => Ok(u64::from(short)),
        24 => Ok(u64::from(stream.read_u8().await?)),
        25 => Ok(u64::from(stream.read_u16().await?)),
        26 => Ok(u64::from(stream.read_u32().await?)),
        27 => Ok(stream.read_u64().await?),
        _ => Err(End::Violation(
            "a CBOR byte string of no definite length".to_owned(),
        )),
    }
}

/// What stands before a bundle of `length` octets; `None` when the framing cannot say that.
#[allow(clippy::cast_possible_truncation)] // every arm has looked
pub(crate) fn head(framing: Framing, length: usize) -> Option<Bytes> {
    let mut out = BytesMut::with_capacity(9);
    match framing {
        Framing::Stcp | Framing::Tcpcl => out.put_u32(u32::try_from(length).ok()?),
        Framing::Mtcp => match length as u64 {
            length @ 0..=23 => out.put_u8(BYTES | length as u8),
            length if length <= 0xff => out.put_slice(&[BYTES | 24, length as u8]),
            length if length <= 0xffff => {
                out.put_u8(BYTES | 25);
                out.put_u16(length as u16);
            }
            length if length <= 0xffff_ffff => {
                out.put_u8(BYTES | 26);
                out.put_u32(length as u32);
            }
            length => {
                out.put_u8(BYTES | 27);
                out.put_u64(length);
            }
        },
    }
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(future)
    }

    fn framing() -> impl Strategy<Value = Framing> {
        prop_oneof![Just(Framing::Stcp), Just(Framing::Mtcp)]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(framing in framing(), length in 1..=u32::MAX as usize, shift in 0..32_u32) {
            let length = (length >> shift).max(1);
            let octets = head(framing, length).unwrap();
            let found = block(read(framing, &mut &*octets, u64::MAX)).unwrap();
            prop_assert_eq!(found, Some(Head::Bundle(length as u64)));
        }

        #[test]
        fn any_octets_are_read_or_refused(framing in framing(), octets in proptest::collection::vec(any::<u8>(), 0..12)) {
            match block(read(framing, &mut &*octets, 1000)) {
                Ok(Some(Head::Bundle(length))) => prop_assert!(length <= 1000),
                Ok(None) => prop_assert!(octets.is_empty()),
                Ok(Some(Head::Keepalive)) | Err(_) => {}
            }
        }
    }

    #[test]
    fn the_forms_in_use() {
        assert_eq!(*head(Framing::Stcp, 258).unwrap(), [0, 0, 1, 2]);
        assert_eq!(*head(Framing::Mtcp, 23).unwrap(), [0x57]);
        assert_eq!(*head(Framing::Mtcp, 258).unwrap(), [0x59, 1, 2]);
        assert_eq!(
            block(read(Framing::Stcp, &mut &[0_u8; 4][..], 9)).unwrap(),
            Some(Head::Keepalive)
        );
        assert!(matches!(
            block(read(Framing::Mtcp, &mut &[0x5f_u8][..], 9)),
            Err(End::Violation(_))
        ));
    }
}
