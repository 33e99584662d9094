//! What can be wrong with a node, in the words that an operator reads.

use std::path::Path;

use crate::protocol::Trouble;

fn trouble(why: impl Into<String>, remedy: impl Into<String>) -> Trouble {
    Trouble {
        why: why.into(),
        remedy: remedy.into(),
    }
}

/// The libraries are not found.
pub(crate) fn no_libraries(tried: &[String]) -> Trouble {
    trouble(
        format!("ION's libraries cannot be loaded: {}", tried.join("; ")),
        "install ION (tried with 4.1.3), run ldconfig, or name the folder that holds libbp.so.0 and libici.so.0 in LD_LIBRARY_PATH or \
         in the configuration of the path",
    )
}

/// Attaching failed.
pub(crate) fn absent(said: &str) -> Trouble {
    trouble(
        format!("there is no ION node to attach to: {said}"),
        "start ION (ionadmin, bpadmin, ipnadmin), as a user whose node this one may use, and look at ION_NODE_LIST_DIR and \
         ION_NODE_WDNAME in the configuration of the path",
    )
}

/// Attaching takes too long, or the node does not answer any more.
pub(crate) fn locked() -> Trouble {
    trouble(
        "the ION node does not answer: most likely a program was killed while it held the node's lock",
        "look at ion.log, run `ionunlock` if nothing was being changed, else stop ION, remove its shared memory and semaphores, and \
         start it again; nothing that uses ION may be ended by SIGKILL",
    )
}

/// The bundle agent is stopped.
pub(crate) fn stopped() -> Trouble {
    trouble(
        "ION's bundle agent is stopped",
        "start it: `s` in bpadmin; it is found within seconds",
    )
}

/// The heap went away.
pub(crate) fn lost(said: &str) -> Trouble {
    trouble(
        format!("the ION node is gone: {said}"),
        "start ION again; it is found within seconds",
    )
}

/// The endpoint cannot be opened.
pub(crate) fn endpoint(endpoint: &str, said: &str) -> Trouble {
    trouble(
        format!("ION does not open {endpoint}: {said}"),
        format!("add it in bpadmin (`a endpoint {endpoint} q`), and end any other program that has it open"),
    )
}

/// Another helper has the spool.
pub(crate) fn busy(folder: &Path) -> Trouble {
    trouble(
        format!("another process uses {}", folder.display()),
        "end the other lightpost, or give each a folder of its own; a helper left behind by a relay that was killed ends by itself",
    )
}

/// The spool's disk.
pub(crate) fn disk(folder: &Path, error: &std::io::Error) -> Trouble {
    trouble(
        format!("received bundles cannot be kept in {}: {error}", folder.display()),
        "make room there, or repair the disk; ION keeps further bundles meanwhile",
    )
}

/// The helper ended.
pub(crate) fn ended(how: &str) -> Trouble {
    trouble(
        format!("the process that talks to ION ended: {how}"),
        "it is started again by itself; if this repeats, look at ion.log",
    )
}

/// The helper cannot be started.
pub(crate) fn unstarted(program: &Path, error: &std::io::Error) -> Trouble {
    trouble(
        format!("{} cannot be started as ION's helper: {error}", program.display()),
        "install lightpost whole, and raise the limits on processes if they are reached",
    )
}

/// Not up yet.
pub(crate) fn starting() -> Trouble {
    trouble("ION's helper is being started", "wait a moment")
}

/// Closed.
pub(crate) fn closed() -> Trouble {
    trouble("this program is stopping", "start it again")
}
