//! ION's C interface, made safe: the only place with unsafe code.
//!
//! What ION asks of its callers, and how it is kept here:
//! - Everything that touches the heap happens in a transaction, which locks the whole node: a [`Transaction`] is a value that ends with its
//!   scope, and the functions are its methods. Transactions nest; ION's own, inside `bp_send` and `bp_receive`, become part of ours.
//! - A process that is killed inside a transaction leaves the node locked: [`Node::is_inside`] says whether one is open, so that the helper
//!   never ends there.
//! - EID strings are written to: they are passed in buffers of our own.
//! - One attachment serves many threads; a transaction belongs to the thread that began it, so it is not `Send`.

#![allow(
    unsafe_code,
    reason = "ION is a C library: this module is the one that calls it"
)]

mod memos;
mod symbols;

use std::{
    ffi::{CString, c_char, c_int},
    marker::PhantomData,
    path::Path,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use self::symbols::{BpDelivery, BpTimestamp, BundleId, Object, Sap, Sdr, Symbols, ZcoReader};
use crate::spool::record::Head;

/// Outbound, for ION's accounts of space.
const OUTBOUND: c_int = 1;
const FROM_FILE: c_int = 1;
const FROM_HEAP: c_int = 4;
/// The scheme `ipn` in ION.
const IPN: c_int = 2;

/// ION's libraries are loaded.
pub(crate) struct Libraries(Symbols);

/// An ION node at which our endpoint is open.
pub(crate) struct Node {
    ion: Symbols,
    sdr: Sdr,
    /// For receiving.
    inbox: Sap,
    /// For sending: detains what is sent until its id is read.
    outbox: Sap,
    number: u64,
    service: u32,
    endpoint: CString,
    inside: AtomicUsize,
}

// SAFETY: ION serves many threads on one attachment and one endpoint; all shared state is in its own shared memory, behind the lock that
// every transaction takes.
unsafe impl Send for Node {}
// SAFETY: as above.
unsafe impl Sync for Node {}

/// What ION said when something failed: the lines that it would have written to its log.
pub(crate) type Said = String;

/// Why an endpoint is not open.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// No node, or none that can be attached to.
    Absent(Said),
    /// The node's bundle agent is stopped.
    Stopped,
    /// The endpoint is not the node's, or open elsewhere.
    Endpoint(Said),
}

impl Libraries {
    /// Loads `libici` and `libbp`.
    ///
    /// # Errors
    /// What the loader said.
    pub(crate) fn load() -> Result<Self, Vec<String>> {
        let libici = symbols::library("libici")?;
        let libbp = symbols::library("libbp")?;
        // SAFETY: the types are those of ION 4.1's headers.
        let symbols = unsafe { Symbols::find(libici, libbp) };
        symbols.map(Self).map_err(|error| vec![error.to_string()])
    }

    /// Attaches to the node that the environment names and opens an endpoint `ipn:number.service`. Hangs while the node is locked.
    ///
    /// # Errors
    /// [`OpenError`]; this process cannot try again then.
    pub(crate) fn open(self, number: u64, service: u32) -> Result<Node, OpenError> {
        let ion = self.0;
        // SAFETY: no arguments; ION keeps the function's address, and the function lives as long as the process. Attaching sets
        // another logger, so ours is set again behind it.
        let attached = unsafe {
            (ion.setLogger)(memos::remember);
            let attached = (ion.bp_attach)();
            (ion.setLogger)(memos::remember);
            attached
        };
        if attached < 0 {
            return Err(OpenError::Absent(memos::take(&ion)));
        }
        // SAFETY: attached.
        if unsafe { (ion.bp_agent_is_started)() } == 0 {
            // SAFETY: attached, nothing open.
            unsafe { (ion.bp_detach)() };
            return Err(OpenError::Stopped);
        }
        let endpoint = format!("ipn:{number}.{service}");
        let (mut inbox, mut outbox): (Sap, Sap) = (ptr::null_mut(), ptr::null_mut());
        let mut for_inbox = writable(&endpoint);
        let mut for_outbox = for_inbox.clone();
        // SAFETY: attached; both strings end with a NUL and are ours to be written to; the results are checked before use.
        let opened = unsafe {
            let inbox = (ion.bp_open)(for_inbox.as_mut_ptr().cast(), &raw mut inbox);
            let outbox = (ion.bp_open_source)(for_outbox.as_mut_ptr().cast(), &raw mut outbox, 1);
            inbox >= 0 && outbox >= 0
        };
        if !opened || inbox.is_null() || outbox.is_null() {
            let said = memos::take(&ion);
            // SAFETY: each is null or open, and ION takes both.
            unsafe {
                (ion.bp_close)(inbox);
                (ion.bp_close)(outbox);
                (ion.bp_detach)();
            }
            return Err(OpenError::Endpoint(said));
        }
        Ok(Node {
            // SAFETY: attached.
            sdr: unsafe { (ion.bp_get_sdr)() },
            ion,
            inbox,
            outbox,
            number,
            service,
            endpoint: CString::new(endpoint).unwrap_or_default(),
            inside: AtomicUsize::new(0),
        })
    }
}

impl Node {
    /// Whether the node's bundle agent runs.
    pub(crate) fn is_started(&self) -> bool {
        // SAFETY: attached.
        unsafe { (self.ion.bp_agent_is_started)() != 0 }
    }

    /// Whether a thread of ours is inside a transaction.
    pub(crate) fn is_inside(&self) -> bool {
        self.inside.load(Ordering::SeqCst) > 0
    }

    /// What ION had to say since it was asked last.
    pub(crate) fn said(&self) -> Said {
        memos::take(&self.ion)
    }

    /// Begins a transaction: locks the node. `None` when the heap is gone.
    pub(crate) fn begin(&self) -> Option<Transaction<'_>> {
        // SAFETY: attached.
        if unsafe { (self.ion.sdr_begin_xn)(self.sdr) } == 0 {
            return None;
        }
        // A kill between the two lines would find nothing changed yet, which ION's own `ionunlock` heals.
        self.inside.fetch_add(1, Ordering::SeqCst);
        Some(Transaction {
            node: self,
            _here: PhantomData,
        })
    }

    /// Closes the endpoint and detaches.
    pub(crate) fn close(self) {
        // SAFETY: both are open and not used again: `self` is consumed, and transactions borrow it.
        unsafe {
            (self.ion.bp_close)(self.inbox);
            (self.ion.bp_close)(self.outbox);
            (self.ion.bp_detach)();
        }
    }
}

/// The node is locked by this thread; ends with its scope.
pub(crate) struct Transaction<'n> {
    node: &'n Node,
    _here: PhantomData<*const ()>,
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // SAFETY: begun by this thread, once for each value. A failure of ION inside has cancelled it already.
        unsafe { (self.node.ion.sdr_end_xn)(self.node.sdr) };
        self.node.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

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

    /// Sends a payload. `Ok(None)` when there is no room for it now; nothing is left of it then, as after an error.
    ///
    /// # Errors
    /// What ION said.
    pub(crate) fn send(&self, source: Source, octets: u64, way: &Way<'_>) -> Result<Option<Accepted>, Said> {
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
            let said = self.node.said();
            return if unit == 0 { Ok(None) } else { Err(said) };
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
        if sent <= 0 {
            let said = self.node.said();
            if sent == 0 {
                // SAFETY: refused before ION made it part of a bundle.
                unsafe { (ion.zco_destroy)(sdr, unit) };
            }
            return Err(said);
        }
        Ok(Some(self.identify(bundle)))
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
        let Ok(sequence) = u32::try_from(sequence) else {
            return Ok(false);
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
        if found == 0 || bundle == 0 {
            return Ok(false);
        }
        // SAFETY: found in this transaction, so it is there.
        match unsafe { (self.node.ion.bp_cancel)(bundle) } {
            0 => Ok(true),
            _ => Err(self.node.said()),
        }
    }

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

/// A string for ION to read and to write to.
fn writable(text: &str) -> Vec<u8> {
    // What stands behind a NUL would not be seen, so nothing may.
    let mut octets: Vec<u8> = text.bytes().take_while(|octet| *octet != 0).collect();
    octets.push(0);
    octets
}
