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
mod receiving;
mod sending;
mod symbols;

use std::{
    error::Error as _,
    ffi::CString,
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use self::symbols::{Sap, Sdr, Symbols};
pub(crate) use self::{
    receiving::{ReceiveError, Received},
    sending::{SendFailure, Source, Way},
};

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
        symbols.map(Self).map_err(|error| {
            vec![
                error
                    .source()
                    .map_or_else(|| error.to_string(), ToString::to_string),
            ]
        })
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

/// The node is locked by this thread; ends with its scope, or by [`Transaction::end`].
pub(crate) struct Transaction<'n> {
    node: &'n Node,
    _here: PhantomData<*const ()>,
}

impl Transaction<'_> {
    /// As [`Node::said`].
    pub(crate) fn said(&self) -> Said {
        self.node.said()
    }

    /// Ends it; `false` when ION had cancelled it before, so that nothing of it is left. `true` is no promise when a call inside has failed: a
    /// transaction that ION's own, nested ones have cancelled is undone here, and ION does not tell.
    pub(crate) fn end(self) -> bool {
        ManuallyDrop::new(self).finish()
    }

    fn finish(&self) -> bool {
        // SAFETY: begun by this thread, once for each value, and ended once: by `end`, which forgets the value, or by its drop.
        let ended = unsafe { (self.node.ion.sdr_end_xn)(self.node.sdr) };
        self.node.inside.fetch_sub(1, Ordering::SeqCst);
        ended >= 0
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A string for ION to read and to write to.
fn writable(text: &str) -> Vec<u8> {
    // What stands behind a NUL would not be seen, so nothing may.
    let mut octets: Vec<u8> = text.bytes().take_while(|octet| *octet != 0).collect();
    octets.push(0);
    octets
}
