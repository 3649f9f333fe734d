//! What a runtime and a process have open.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::yield_now;

use super::wait::soon;

/// How many tasks this runtime has, which is one test's own.
pub(crate) fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Waits until exactly `count` tasks are left.
#[track_caller]
pub(crate) fn tasks_reach(count: usize) -> impl Future<Output = ()> {
    soon(async move {
        while tasks() != count {
            yield_now().await;
        }
    })
}

/// How many file descriptors this process has open, where the system says so.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
