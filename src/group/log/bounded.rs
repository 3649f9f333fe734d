//! Writing that may block forever, done within a bounded time.

use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::group::lock::lock;

/// Runs `write` with `value` on its own thread and returns when it has ended, or after `limit`.
///
/// A full pipe without a reader blocks its writer, and another thread may hold the lock of a log
/// forever. Then this leaves the thread alone, because a thread cannot be ended, and this one only
/// wants to write. A panic of `write` ends only that thread.
///
/// # Errors
///
/// Gives `value` back if the system cannot start a thread.
pub(crate) fn within<V: Send + 'static>(
    limit: Duration,
    value: V,
    write: impl FnOnce(V) + Send + 'static,
) -> Result<(), V> {
    start(value, write).map(|writing| writing.wait(limit))
}

/// Begins to run `write` with `value` on its own thread.
///
/// # Errors
///
/// As [`within`].
pub(crate) fn start<V: Send + 'static>(
    value: V,
    write: impl FnOnce(V) + Send + 'static,
) -> Result<Writing, V> {
    let value = Arc::new(Mutex::new(Some(value)));
    let given = Arc::clone(&value);
    let begun = begin(Box::new(move || {
        let value = lock(&given).take();
        value.map(write);
    }));
    match begun {
        Ok(writing) => Ok(writing),
        // The closure is gone, so the value is still there.
        Err(ended) => lock(&value).take().map_or(Ok(ended), Err),
    }
}

/// Without type parameters, because the code that starts a thread is 2 kB.
fn begin(write: Box<dyn FnOnce() + Send>) -> Result<Writing, Writing> {
    let ended = Arc::new(Ended::default());
    let ends = Ends(Arc::clone(&ended));
    let thread = thread::Builder::new().name("taskgroup-write".into());
    let spawned = thread.spawn(move || {
        let _ends = ends;
        write();
    });
    match spawned {
        Ok(_) => Ok(Writing(ended)),
        Err(_) => Err(Writing(ended)),
    }
}

/// A write that [`start`] has begun.
#[derive(Debug)]
pub(crate) struct Writing(Arc<Ended>);

/// Whether the thread has ended. A channel would need thirty times the code in the program.
#[derive(Debug, Default)]
struct Ended {
    is_over: Mutex<bool>,
    changed: Condvar,
}

/// Dropped at the end of the thread, even after a panic.
struct Ends(Arc<Ended>);

impl Drop for Ends {
    fn drop(&mut self) {
        *lock(&self.0.is_over) = true;
        self.0.changed.notify_all();
    }
}

impl Writing {
    /// Returns when the write has ended, or after `limit`.
    pub(crate) fn wait(self, limit: Duration) {
        let is_over = lock(&self.0.is_over);
        let changed = &self.0.changed;
        drop(changed.wait_timeout_while(is_over, limit, |is_over| !*is_over));
    }
}
