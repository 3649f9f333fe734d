//! Writing that may block for ever, done within a bounded time.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Runs `write` with `value` on a thread of its own and returns when it has ended, or after `limit`.
///
/// A pipe that is full and that nobody reads blocks its writer, and the lock of a log may be held
/// for ever. The thread is left alone then: no thread can be ended, and this one wants nothing but
/// to write. A panic of `write` ends it and nothing else.
///
/// # Errors
///
/// Gives `value` back if the system has no thread for it.
pub(crate) fn within<V: Send + 'static>(
    limit: Duration,
    value: V,
    write: impl FnOnce(V) + Send + 'static,
) -> Result<(), V> {
    start(value, write).map(|writing| writing.wait(limit))
}

/// Begins to run `write` with `value` on a thread of its own.
///
/// # Errors
///
/// As [`within`].
pub(crate) fn start<V: Send + 'static>(
    value: V,
    write: impl FnOnce(V) + Send + 'static,
) -> Result<Writing, V> {
    let (alive, ended) = mpsc::channel::<()>();
    let (sender, values) = mpsc::channel();
    let thread = thread::Builder::new().name("taskgroup-write".into());
    let spawned = thread.spawn(move || {
        // Dropped at the end, be it a panic: that is what the receiver waits for.
        let _alive = alive;
        values.into_iter().next().map(write);
    });
    match spawned {
        Ok(_) => match sender.send(value) {
            Ok(()) => Ok(Writing { ended }),
            Err(unsent) => Err(unsent.0),
        },
        Err(_) => Err(value),
    }
}

/// What [`start`] has begun.
#[derive(Debug)]
pub(crate) struct Writing {
    ended: mpsc::Receiver<()>,
}

impl Writing {
    /// Returns when it has ended, or after `limit`.
    pub(crate) fn wait(self, limit: Duration) {
        // All that comes is the end of the sender.
        let _ = self.ended.recv_timeout(limit);
    }
}
