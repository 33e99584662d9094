//! What ION says: the lines that it writes to its log from inside our process, kept for our own messages.

use std::{
    ffi::{CStr, c_char},
    sync::{Mutex, PoisonError},
};

use super::symbols::Symbols;

/// So many lines are kept, the oldest first.
const MOST: usize = 8;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// ION's logger.
///
/// # Safety
/// Called by ION with a string that ends with a NUL.
pub(super) unsafe extern "C" fn remember(line: *mut c_char) {
    // SAFETY: the caller's promise.
    let line = unsafe { text(line) };
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() < MOST {
        lines.push(line);
    }
}

/// The lines since the last time, as one.
pub(super) fn take(ion: &Symbols) -> String {
    // SAFETY: no arguments; hands what it has to the logger.
    unsafe { (ion.writeErrmsgMemos)() };
    let lines = std::mem::take(&mut *LINES.lock().unwrap_or_else(PoisonError::into_inner));
    if lines.is_empty() {
        return "ION does not say why".into();
    }
    lines.join("; ")
}

/// A string of ION's, at most 512 octets of it.
///
/// # Safety
/// Null, or a string that ends with a NUL.
pub(super) unsafe fn text(line: *const c_char) -> String {
    if line.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    let octets = unsafe { CStr::from_ptr(line) }.to_bytes();
    String::from_utf8_lossy(&octets[..octets.len().min(512)]).into_owned()
}
