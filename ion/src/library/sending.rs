//! Handing bundles over.

use std::{
    ffi::{c_char, c_int},
    path::Path,
    ptr,
};

use super::{
    Said, Transaction,
    symbols::{BpTimestamp, BundleId, Object},
    writable,
};

/// Outbound, for ION's accounts of space.
const OUTBOUND: c_int = 1;
const FROM_FILE: c_int = 1;
const FROM_HEAP: c_int = 4;
/// The scheme `ipn` in ION.
const IPN: c_int = 2;

/// Where a payload is, for ION.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// In ION's heap, at an address.
    Heap(Object),
    /// In a file, by ION's reference.
    File(Object),
}

/// How a bundle is to be sent.
pub(crate) struct Way<'a> {
    /// Destination.
    pub(crate) destination: &'a str,
    /// Where reports go.
    pub(crate) report_to: Option<&'a str>,
    /// Lifetime in seconds.
    pub(crate) lifetime: i32,
    /// Class of service.
    pub(crate) class: u8,
    /// Flags for reports.
    pub(crate) reports: u8,
}

/// Why a bundle was not sent.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// No space is granted now; nothing is left of it.
    NoRoom,
    /// The node takes no such bundle, and why; nothing is left of it.
    Refused(Said),
    /// ION failed, and may have undone the whole transaction.
    Broken(Said),
}

/// A bundle that the node has taken: its id, or `None` where it is not kept as this program knows it.
pub(crate) type Accepted = Option<(u64, u64)>;

impl Transaction<'_> {
    /// Whether the node may know a way to another: it has a plan for it, the contact plan names it, or there are rules for whole ranges of nodes,
    /// which are not looked into here. ION itself takes a bundle without any and drops it.
    pub(crate) fn has_route(&self, node: u64) -> bool {
        let (ion, sdr) = (&self.node.ion, self.node.sdr);
        if node == self.node.number {
            return true;
        }
        let mut neighbour = writable(&format!("ipn:{node}.0"));
        let mut rules = writable("ipnRoute");
        // Two lists: exits and overrides.
        let mut lists = [0 as Object; 2];
        // SAFETY: in a transaction, which is what guards the plans, the nodes and the lists; the results are compared with none, not followed;
        // strings of ours that end with a NUL. ION's database of that name begins with the two lists.
        unsafe {
            let (mut plan, mut place, mut next) = (ptr::null_mut(), 0, 0);
            (ion.findPlan)(neighbour.as_mut_ptr().cast(), &raw mut plan, &raw mut place);
            if place != 0 || !(ion.findNode)((ion.getIonVdb)(), node, &raw mut next).is_null() {
                return true;
            }
            let rules = (ion.sdr_find)(sdr, rules.as_mut_ptr().cast(), ptr::null_mut());
            if rules != 0 {
                (ion.sdr_read)(sdr, (&raw mut lists).cast(), rules, size_of_val(&lists));
            }
            lists
                .iter()
                .any(|list| *list != 0 && (ion.sdr_list_length)(sdr, *list) > 0)
        }
    }

    /// Whether less than a sixteenth of the heap is free.
    pub(crate) fn is_depleted(&self) -> bool {
        // SAFETY: in a transaction.
        unsafe { (self.node.ion.sdr_heap_depleted)(self.node.sdr) != 0 }
    }

    /// Whether the account for payloads in the heap, or in files, has room; and the most that it ever has.
    pub(crate) fn room(&self, octets: u64, in_file: bool) -> (bool, u64) {
        let (ion, sdr) = (&self.node.ion, self.node.sdr);
        let octets = i64::try_from(octets).unwrap_or(i64::MAX);
        // SAFETY: in a transaction, plain values.
        let (enough, most) = unsafe {
            if in_file {
                (
                    (ion.zco_enough_file_space)(sdr, octets, OUTBOUND),
                    (ion.zco_get_max_file_occupancy)(sdr, OUTBOUND),
                )
            } else {
                (
                    (ion.zco_enough_heap_space)(sdr, octets, OUTBOUND),
                    (ion.zco_get_max_heap_occupancy)(sdr, OUTBOUND),
                )
            }
        };
        // ION counts in doubles; the cast saturates.
        (enough != 0, most as u64)
    }

    /// Copies a payload into the heap; `None` when it is full.
    pub(crate) fn insert(&self, payload: &[u8]) -> Option<Source> {
        // SAFETY: ION reads so many octets and writes none of them; the file's name is for its messages.
        let object = unsafe {
            (self.node.ion.Sdr_insert)(
                c"lightpost".as_ptr(),
                0,
                self.node.sdr,
                payload.as_ptr().cast_mut().cast(),
                payload.len(),
            )
        };
        (object != 0).then_some(Source::Heap(object))
    }

    /// Refers to a payload in a file, which the node removes when the bundle is gone.
    pub(crate) fn refer(&self, path: &Path) -> Option<Source> {
        let mut path = writable(path.to_str()?);
        // An empty script means: remove the file.
        let mut script = [0_u8];
        // SAFETY: strings that end with a NUL, copied by ION.
        let object = unsafe {
            (self.node.ion.zco_create_file_ref)(
                self.node.sdr,
                path.as_mut_ptr().cast(),
                script.as_mut_ptr().cast(),
                OUTBOUND,
            )
        };
        (object != 0).then_some(Source::File(object))
    }

    /// Undoes [`Transaction::insert`] or [`Transaction::refer`]; the file is removed with its reference.
    fn discard(&self, source: Source) {
        let (ion, sdr) = (&self.node.ion, self.node.sdr);
        match source {
            // SAFETY: allocated in this transaction and used by nothing.
            Source::Heap(object) => unsafe { (ion.Sdr_free)(c"lightpost".as_ptr(), 0, sdr, object) },
            // SAFETY: as above.
            Source::File(object) => unsafe { (ion.zco_destroy_file_ref)(sdr, object) },
        }
    }

    /// Sends a payload.
    ///
    /// # Errors
    /// [`SendFailure`]
    pub(crate) fn send(&self, source: Source, octets: u64, way: &Way<'_>) -> Result<Accepted, SendFailure> {
        let (ion, sdr) = (&self.node.ion, self.node.sdr);
        let length = i64::try_from(octets).unwrap_or(i64::MAX);
        let (medium, object) = match source {
            Source::Heap(object) => (FROM_HEAP, object),
            Source::File(object) => (FROM_FILE, object),
        };
        // SAFETY: the object was made in this transaction. No attendant: a full node is told at once, never waited for.
        let unit =
            unsafe { (ion.ionCreateZco)(medium, object, 0, length, way.class, 0, OUTBOUND, ptr::null_mut()) };
        if unit == 0 || unit == Object::MAX {
            self.discard(source);
            return Err(if unit == 0 {
                SendFailure::NoRoom
            } else {
                SendFailure::Broken(self.node.said())
            });
        }
        if matches!(source, Source::File(_)) {
            // The file goes with its last user.
            self.discard(source);
        }
        let mut destination = writable(way.destination);
        let mut report_to = way.report_to.map(writable);
        let report_to = report_to
            .as_mut()
            .map_or(ptr::null_mut(), |it| it.as_mut_ptr().cast::<c_char>());
        let mut bundle: Object = 0;
        // SAFETY: an open endpoint; strings of ours that end with a NUL, as long as ION's own buffers for them (`Order`'s limits);
        // no ancillary data; the payload's object is ION's from here on.
        let sent = unsafe {
            (ion.bp_send)(
                self.node.outbox,
                destination.as_mut_ptr().cast(),
                report_to,
                way.lifetime,
                c_int::from(way.class),
                0,
                way.reports,
                0,
                ptr::null_mut(),
                unit,
                &raw mut bundle,
            )
        };
        match sent {
            ..0 => Err(SendFailure::Broken(self.node.said())),
            0 => {
                let said = self.node.said();
                // SAFETY: refused before ION made it part of a bundle.
                unsafe { (ion.zco_destroy)(sdr, unit) };
                Err(SendFailure::Refused(said))
            }
            _ => Ok(self.identify(bundle)),
        }
    }

    /// Reads a sent bundle's id and lets ION forget it when it is through.
    fn identify(&self, bundle: Object) -> Accepted {
        if bundle == 0 {
            return None;
        }
        let mut id = BundleId::default();
        // SAFETY: the bundle is detained, so it is there; a bundle is longer than its id; any octets are a valid `BundleId`.
        unsafe {
            (self.node.ion.sdr_read)(self.node.sdr, (&raw mut id).cast(), bundle, size_of::<BundleId>());
            (self.node.ion.bp_release)(bundle);
        }
        // Another release of ION might keep it in another form; then this is not our own endpoint's name.
        let ours = id.scheme == IPN && id.node == self.node.number && id.service == self.node.service;
        ours.then(|| (id.stamp.time, u64::from(id.stamp.sequence)))
    }

    /// Drops a bundle of ours; whether the node still had it.
    ///
    /// # Errors
    /// What ION said.
    pub(crate) fn cancel(&self, time: u64, sequence: u64) -> Result<bool, Said> {
        let Some(bundle) = self.find(time, sequence)? else {
            return Ok(false);
        };
        // SAFETY: found in this transaction, so it is there.
        match unsafe { (self.node.ion.bp_cancel)(bundle) } {
            0 => Ok(true),
            _ => Err(self.node.said()),
        }
    }

    /// Whether the node has a bundle of ours.
    ///
    /// # Errors
    /// What ION said.
    pub(crate) fn has(&self, time: u64, sequence: u64) -> Result<bool, Said> {
        self.find(time, sequence).map(|bundle| bundle.is_some())
    }

    fn find(&self, time: u64, sequence: u64) -> Result<Option<Object>, Said> {
        let Ok(sequence) = u32::try_from(sequence) else {
            return Ok(None);
        };
        let mut source = self.node.endpoint.clone().into_bytes_with_nul();
        let mut stamp = BpTimestamp { time, sequence };
        let mut bundle: Object = 0;
        // SAFETY: in a transaction; a string of ours that ends with a NUL.
        let found = unsafe {
            (self.node.ion.findBundle)(source.as_mut_ptr().cast(), &raw mut stamp, 0, 0, &raw mut bundle)
        };
        if found < 0 {
            return Err(self.node.said());
        }
        Ok((found != 0 && bundle != 0).then_some(bundle))
    }
}
