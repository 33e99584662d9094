//! The functions of ION that we call, found at run time.

use std::error::Error as _;
use std::ffi::{c_char, c_int, c_uchar, c_uint, c_void};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// An address in ION's heap, 0 for none.
pub(super) type Object = u64;
/// ION's heap.
pub(super) type Sdr = *mut c_void;
/// An open endpoint.
pub(super) type Sap = *mut c_void;

/// ION's `BpDelivery`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct BpDelivery {
    pub(super) result: c_int,
    pub(super) source: *mut c_char,
    pub(super) stamp: BpTimestamp,
    pub(super) lifetime: c_uint,
    pub(super) acknowledge: c_int,
    pub(super) administrative: c_int,
    pub(super) unit: Object,
    pub(super) metadata: [c_uchar; 32],
}

/// ION's `ZcoReader`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct ZcoReader {
    pub(super) zco: Object,
    pub(super) track: c_int,
    pub(super) copied: [i64; 4],
}

/// The beginning of ION's `Bundle`: the id, as its own node keeps it for the scheme `ipn`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct BundleId {
    pub(super) scheme: c_int,
    pub(super) node: u64,
    pub(super) service: c_uint,
    pub(super) stamp: BpTimestamp,
}

// What the running library was compiled with, on 64-bit Linux.
const _: () =
    assert!(size_of::<BpDelivery>() == 88 && size_of::<ZcoReader>() == 48 && size_of::<BundleId>() == 40);

macro_rules! symbols {
    ($($library:literal $name:ident: $type:ty;)*) => {
        /// The functions, by ION's names.
        #[allow(non_snake_case, reason = "ION's own names")]
        pub(super) struct Symbols {
            $(pub(super) $name: $type,)*
        }

        impl Symbols {
            /// Finds them in `libici` and `libbp`, which stay loaded for the life of the process.
            ///
            /// # Safety
            /// The libraries are ION's, of a release whose functions have these types.
            pub(super) unsafe fn find(libici: Library, libbp: Library) -> Result<Self, libloading::Error> {
                let library = |name| if name == "libici" { &libici } else { &libbp };
                let symbols = Self {
                    // SAFETY: the caller's promise.
                    $($name: *unsafe { library($library).get::<$type>(concat!(stringify!($name), "\0").as_bytes()) }?,)*
                };
                std::mem::forget((libici, libbp));
                Ok(symbols)
            }
        }
    };
}

symbols! {
    "libbp" bp_attach: unsafe extern "C" fn() -> c_int;
    "libbp" bp_detach: unsafe extern "C" fn();
    "libbp" bp_agent_is_started: unsafe extern "C" fn() -> c_int;
    "libbp" bp_get_sdr: unsafe extern "C" fn() -> Sdr;
    "libbp" bp_open: unsafe extern "C" fn(*mut c_char, *mut Sap) -> c_int;
    "libbp" bp_open_source: unsafe extern "C" fn(*mut c_char, *mut Sap, c_int) -> c_int;
    "libbp" bp_close: unsafe extern "C" fn(Sap);
    "libbp" bp_send: unsafe extern "C" fn(
        Sap, *mut c_char, *mut c_char, c_int, c_int, c_int, c_uchar, c_int, *mut c_void, Object, *mut Object,
    ) -> c_int;
    "libbp" bp_receive: unsafe extern "C" fn(Sap, *mut BpDelivery, c_int) -> c_int;
    "libbp" bp_release_delivery: unsafe extern "C" fn(*mut BpDelivery, c_int);
    "libbp" bp_cancel: unsafe extern "C" fn(Object) -> c_int;
    "libbp" bp_release: unsafe extern "C" fn(Object) -> c_int;
    "libbp" findBundle: unsafe extern "C" fn(*mut c_char, *mut BpTimestamp, c_uint, c_uint, *mut Object) -> c_int;
    "libbp" findPlan: unsafe extern "C" fn(*mut c_char, *mut *mut c_void, *mut Object);
    "libici" getIonVdb: unsafe extern "C" fn() -> *mut c_void;
    "libici" findNode: unsafe extern "C" fn(*mut c_void, u64, *mut Object) -> *mut c_void;
    "libici" sdr_find: unsafe extern "C" fn(Sdr, *mut c_char, *mut c_int) -> Object;
    "libici" sdr_list_length: unsafe extern "C" fn(Sdr, Object) -> usize;
    "libici" sdr_begin_xn: unsafe extern "C" fn(Sdr) -> c_int;
    "libici" sdr_end_xn: unsafe extern "C" fn(Sdr) -> c_int;
    "libici" sdr_heap_depleted: unsafe extern "C" fn(Sdr) -> c_int;
    "libici" sdr_read: unsafe extern "C" fn(Sdr, *mut c_char, Object, usize);
    "libici" Sdr_insert: unsafe extern "C" fn(*const c_char, c_int, Sdr, *mut c_char, usize) -> Object;
    "libici" Sdr_free: unsafe extern "C" fn(*const c_char, c_int, Sdr, Object);
    "libici" ionCreateZco: unsafe extern "C" fn(c_int, Object, i64, i64, c_uchar, c_uchar, c_int, *mut c_void) -> Object;
    "libici" zco_create_file_ref: unsafe extern "C" fn(Sdr, *mut c_char, *mut c_char, c_int) -> Object;
    "libici" zco_destroy_file_ref: unsafe extern "C" fn(Sdr, Object);
    "libici" zco_destroy: unsafe extern "C" fn(Sdr, Object);
    "libici" zco_get_max_heap_occupancy: unsafe extern "C" fn(Sdr, c_int) -> f64;
    "libici" zco_get_max_file_occupancy: unsafe extern "C" fn(Sdr, c_int) -> f64;
    "libici" zco_enough_heap_space: unsafe extern "C" fn(Sdr, i64, c_int) -> c_int;
    "libici" zco_enough_file_space: unsafe extern "C" fn(Sdr, i64, c_int) -> c_int;
    "libici" zco_source_data_length: unsafe extern "C" fn(Sdr, Object) -> i64;
    "libici" zco_start_receiving: unsafe extern "C" fn(Object, *mut ZcoReader);
    "libici" zco_receive_source: unsafe extern "C" fn(Sdr, *mut ZcoReader, i64, *mut c_char) -> i64;
    "libici" setLogger: unsafe extern "C" fn(unsafe extern "C" fn(*mut c_char));
    "libici" writeErrmsgMemos: unsafe extern "C" fn();
}

/// ION's `BpTimestamp`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct BpTimestamp {
    pub(super) time: u64,
    pub(super) sequence: c_uint,
}

/// A library of ION by the first of its names that is found; else the names with what the loader said of each.
pub(super) fn library(stem: &str) -> Result<Library, Vec<String>> {
    let mut tried = Vec::new();
    for name in [format!("{stem}.so.0"), format!("{stem}.so")] {
        // SAFETY: loading runs the library's constructors; ION's have none. What else has its name is the operator's own doing.
        match unsafe { Library::open(Some(&name), RTLD_NOW | RTLD_GLOBAL) } {
            Ok(library) => return Ok(library),
            // What the loader says is the cause; it names the library, or one that it needs.
            Err(error) => tried.push(
                error
                    .source()
                    .map_or_else(|| error.to_string(), ToString::to_string),
            ),
        }
    }
    Err(tried)
}
