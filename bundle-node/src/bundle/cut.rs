//! Fragments of a bundle that is larger than a neighbour takes (RFC 9171 section 5.8).

use bytes::Bytes;
use hardy_bpv7::{
    block::Type,
    bundle::{Bundle, FragmentInfo},
    editor::{Chunk, Editor},
};

use super::head;

/// What a fragment's primary block and the head of its payload may need more than the whole's: two numbers, flags.
const MORE: u64 = 32;
/// Fragments with less payload than this are not worth their blocks.
const LEAST: u64 = 1024;
/// The most fragments of one bundle; it is the most that we take ourselves.
const MOST: u64 = 1024;

/// Why a bundle is not cut.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Uncut {
    /// Its source does not want it, or it is a report.
    #[error("it must not be cut")]
    Forbidden,
    /// Its signature or encryption would not survive.
    #[error("it is signed or encrypted, and cannot be cut")]
    Protected,
    /// Too little fits, or there would be too many.
    #[error("fragments of {0} octets are too small for it")]
    Small(u64),
    /// It cannot be read.
    #[error("it cannot be cut: {0}")]
    Unreadable(String),
}

/// A bundle that is cut, piece by piece as they are asked for.
pub(crate) struct Cut {
    bundle: Bundle,
    data: Bytes,
    payload: Bytes,
    /// Octets of payload in each piece but the last.
    size: usize,
}

impl Cut {
    /// Cuts `data` into bundles of at most `most` octets each.
    pub(crate) fn new(data: &Bytes, most: u64) -> Result<Self, Uncut> {
        let bundle = head::stored(data).map_err(Uncut::Unreadable)?;
        let kind = |wanted: Type| bundle.blocks.values().any(|block| block.block_type == wanted);
        if kind(Type::BlockIntegrity) || kind(Type::BlockSecurity) {
            return Err(Uncut::Protected);
        }
        if bundle.flags.do_not_fragment || bundle.flags.is_admin_record {
            return Err(Uncut::Forbidden);
        }
        let payload = head::payload(&bundle, data);
        let payload = payload.ok_or_else(|| Uncut::Unreadable("it has no payload".to_owned()))?;
        let blocks = (data.len() - payload.len()) as u64 + MORE;
        let size = most.saturating_sub(blocks);
        if size < LEAST || (payload.len() as u64).div_ceil(size) > MOST {
            return Err(Uncut::Small(most));
        }
        Ok(Self {
            bundle,
            data: data.clone(),
            payload,
            size: usize::try_from(size).unwrap_or(usize::MAX),
        })
    }

    /// How many pieces there are.
    pub(crate) fn count(&self) -> usize {
        self.payload.len().div_ceil(self.size)
    }

    /// The piece of this number, from 0. Blocks that need not be in all pieces are in the first.
    pub(crate) fn piece(&self, number: usize) -> Result<Bytes, Uncut> {
        let begin = number.saturating_mul(self.size).min(self.payload.len());
        let end = begin.saturating_add(self.size).min(self.payload.len());
        let (before, total) = match &self.bundle.id.fragment_info {
            Some(part) => (part.offset, part.total_adu_length),
            None => (0, self.payload.len() as u64),
        };
        let part = FragmentInfo {
            offset: before + begin as u64,
            total_adu_length: total,
        };
        let unable = |(_, error): (_, hardy_bpv7::editor::Error)| Uncut::Unreadable(error.to_string());
        let mut editor = Editor::new(&self.bundle, &self.data)
            .with_fragment_info(Some(part))
            .map_err(unable)?
            .update_block(1)
            .map_err(unable)?
            .with_data(self.payload[begin..end].into())
            .rebuild();
        for (block, content) in self.bundle.blocks.iter().filter(|_| number > 0) {
            let everywhere = content.flags.must_replicate
                // Who had it last and how old it is is true of each.
                || matches!(
                    content.block_type,
                    Type::Primary | Type::Payload | Type::PreviousNode | Type::BundleAge
                );
            if !everywhere {
                editor = editor.remove_block(*block).map_err(unable)?;
            }
        }
        let chunks = editor
            .rebuild()
            .map_err(|error| Uncut::Unreadable(error.to_string()))?;
        Ok(Bytes::from(Chunk::flatten(chunks, &self.data)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hardy_bpv7::{
        builder::Builder, bundle::Flags, creation_timestamp::CreationTimestamp, dtn_time::DtnTime,
    };

    use super::*;

    /// A bundle with a hop count for everywhere and a block of its own for nowhere else.
    fn bundle(payload: &[u8], flags: Flags) -> Bytes {
        let stamp = CreationTimestamp::from_parts(Some(DtnTime::new(800_000_000_000)), 3);
        let everywhere = hardy_bpv7::block::Flags {
            must_replicate: true,
            ..hardy_bpv7::block::Flags::default()
        };
        let (_, data) = Builder::new("ipn:1.26".parse().unwrap(), "ipn:2.25".parse().unwrap())
            .with_flags(flags)
            .with_lifetime(Duration::from_secs(600))
            .add_extension_block(Type::HopCount)
            .unwrap()
            .with_flags(everywhere)
            .build(vec![0x82, 0x18, 0x20, 0x01].into())
            .add_extension_block(Type::Unrecognised(200))
            .unwrap()
            .build(vec![0x41, 0x41].into())
            .with_payload(payload.into())
            .build(stamp)
            .unwrap();
        data.into()
    }

    #[test]
    fn pieces_fit_and_are_the_whole_again() {
        let payload: Vec<u8> = (0..200_000_u32).map(|it| (it % 251) as u8).collect();
        let whole = bundle(&payload, Flags::default());
        for most in [1200, 63_999, 64_000, 150_000, 199_999, whole.len() as u64] {
            let cut = Cut::new(&whole, most).unwrap();
            let mut together = Vec::new();
            for number in 0..cut.count() {
                let piece = cut.piece(number).unwrap();
                assert!(piece.len() as u64 <= most, "{} octets, {most} fit", piece.len());
                let read = head::arrived(piece.clone()).unwrap().bundle;
                let part = read.id.fragment_info.clone().unwrap();
                assert_eq!(
                    (part.offset, part.total_adu_length),
                    (together.len() as u64, 200_000)
                );
                assert_eq!(read.lifetime, Duration::from_secs(600));
                assert!(read.hop_count.is_some());
                let own = read
                    .blocks
                    .values()
                    .any(|it| it.block_type == Type::Unrecognised(200));
                assert_eq!(own, number == 0, "in the first piece alone");
                together.extend_from_slice(&head::payload(&read, &piece).unwrap());
            }
            assert_eq!(together, payload);
        }
    }

    #[test]
    fn a_fragment_is_cut_again() {
        let payload: Vec<u8> = (0..100_000_u32).map(|it| (it % 251) as u8).collect();
        let cut = Cut::new(&bundle(&payload, Flags::default()), 60_000).unwrap();
        let second = cut.piece(1).unwrap();
        let offset = cut.size as u64;
        let again = Cut::new(&second, 20_000).unwrap();
        let piece = again.piece(1).unwrap();
        let read = head::stored(&piece).unwrap();
        let part = read.id.fragment_info.clone().unwrap();
        assert_eq!(part.offset, offset + again.size as u64);
        assert_eq!(part.total_adu_length, 100_000);
        let begin = usize::try_from(part.offset).unwrap();
        assert_eq!(
            head::payload(&read, &piece).unwrap(),
            payload[begin..begin + again.size]
        );
    }

    #[test]
    fn what_cannot_be_cut_is_not() {
        let forbidden = Flags {
            do_not_fragment: true,
            ..Flags::default()
        };
        let uncut = |data: &Bytes, most| Cut::new(data, most).err().unwrap();
        assert_eq!(uncut(&bundle(&[7; 5000], forbidden), 2000), Uncut::Forbidden);
        assert_eq!(
            uncut(&bundle(&[7; 5000], Flags::default()), 1000),
            Uncut::Small(1000)
        );
        let large = bundle(&vec![7; 2_000_000], Flags::default());
        assert_eq!(uncut(&large, 1500), Uncut::Small(1500), "too many");
        assert!(matches!(
            uncut(&Bytes::from_static(b"no bundle"), 2000),
            Uncut::Unreadable(_)
        ));
    }
}
