//! Logging that cannot change what happens.

use crate::group::panic::Panic;

pub(crate) mod bounded;
pub(crate) mod stderr;
#[cfg(feature = "signal")]
pub(crate) mod console;

/// Only the entry for programs opens the console.
#[cfg(not(feature = "signal"))]
pub(crate) mod console {
    pub(crate) fn say(_name: Option<&str>, _line: std::fmt::Arguments<'_>) {}
}

/// Runs `write`, and swallows its panic.
///
/// A subscriber is user code, and some panic when the reader of the log is gone. For example,
/// tracing-subscriber's `fmt` reports a failed write to stderr with `eprintln!`. Even then a failure
/// must be recorded and a task must be counted.
pub(crate) fn guarded(write: impl FnOnce()) {
    let mut write = Some(write);
    guarded_once(&mut || {
        if let Some(write) = write.take() {
            write();
        }
    });
}

/// Without type parameters, because a guard is more code than most events.
#[cold]
#[inline(never)]
fn guarded_once(write: &mut dyn FnMut()) {
    if let Err(panic) = Panic::catch(write) {
        panic.discard();
    }
}
