//! Writing that may block for ever, done within a bounded time.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Runs `write` on a thread of its own and returns when it has ended, or after `limit`.
///
/// A pipe that is full and that nobody reads blocks its writer, and the lock of a log may be held
/// for ever. The thread is left alone then: no thread can be ended, and this one wants nothing but
/// to write. A panic of `write` ends it and nothing else.
pub(crate) fn within(limit: Duration, write: impl FnOnce() + Send + 'static) {
    let (alive, ended) = mpsc::channel::<()>();
    let thread = thread::Builder::new().name("taskgroup-write".into());
    let spawned = thread.spawn(move || {
        // Dropped at the end, be it a panic: that is what the receiver waits for.
        let _alive = alive;
        write();
    });
    if spawned.is_ok() {
        let _ = ended.recv_timeout(limit);
    }
}
