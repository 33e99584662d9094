//! Taking bundles.

use std::ptr;

use super::{
    Said, Transaction, memos,
    symbols::{BpDelivery, BpTimestamp, ZcoReader},
};
use crate::spool::record::Head;

impl Transaction<'_> {
    /// The next bundle for our endpoint, if one has come.
    ///
    /// # Errors
    /// The endpoint is stopped, or what ION said.
    pub(crate) fn receive(&self) -> Result<Option<Received>, ReceiveError> {
        let mut delivery = BpDelivery {
            result: 0,
            source: ptr::null_mut(),
            stamp: BpTimestamp::default(),
            lifetime: 0,
            acknowledge: 0,
            administrative: 0,
            unit: 0,
            metadata: [0; 32],
        };
        // SAFETY: an open endpoint of this process; does not block (0 seconds).
        if unsafe { (self.node.ion.bp_receive)(self.node.inbox, &raw mut delivery, 0) } < 0 {
            return Err(ReceiveError::Failed(self.node.said()));
        }
        match delivery.result {
            1 => Ok(Some(Received(delivery))),
            4 => Err(ReceiveError::Stopped),
            _ => Ok(None),
        }
    }

    /// The size of a received payload.
    pub(crate) fn length(&self, received: &Received) -> u64 {
        // SAFETY: not released yet.
        let length = unsafe { (self.node.ion.zco_source_data_length)(self.node.sdr, received.0.unit) };
        u64::try_from(length).unwrap_or(0)
    }

    /// Reads a received payload in pieces.
    ///
    /// # Errors
    /// ION's, and those of `out`.
    pub(crate) fn read(
        &self,
        received: &Received,
        out: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let mut left = self.length(received);
        let mut piece = vec![0_u8; usize::try_from(left.min(1 << 20)).unwrap_or(1 << 20)];
        let mut reader = ZcoReader::default();
        // SAFETY: not released yet; the reader is ours.
        unsafe { (self.node.ion.zco_start_receiving)(received.0.unit, &raw mut reader) };
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            // SAFETY: the buffer has room for so many octets.
            let read = unsafe {
                (self.node.ion.zco_receive_source)(
                    self.node.sdr,
                    &raw mut reader,
                    i64::try_from(wanted).unwrap_or(0),
                    piece.as_mut_ptr().cast(),
                )
            };
            let read = usize::try_from(read).unwrap_or(0).min(wanted);
            if read == 0 {
                return Err(std::io::Error::other(format!(
                    "ION gives no payload: {}",
                    self.node.said()
                )));
            }
            out(&piece[..read])?;
            left -= read as u64;
        }
        Ok(())
    }

    /// Lets ION forget a received bundle.
    pub(crate) fn release(&self, mut received: Received) {
        // SAFETY: received and not released yet; it is consumed.
        unsafe { (self.node.ion.bp_release_delivery)(&raw mut received.0, 1) };
    }
}

/// Why nothing is received.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    /// The node stops.
    Stopped,
    /// What ION said.
    Failed(Said),
}

/// A bundle that ION gave away; it is kept in ION's heap until [`Transaction::release`].
pub(crate) struct Received(BpDelivery);

impl Received {
    /// What is known of it.
    pub(crate) fn head(&self) -> Head {
        Head {
            // SAFETY: ION sets a string that ends with a NUL and lives until the release.
            source: unsafe { memos::text(self.0.source) },
            time: self.0.stamp.time,
            sequence: u64::from(self.0.stamp.sequence),
            lifetime: u64::from(self.0.lifetime),
            administrative: self.0.administrative != 0,
        }
    }
}
