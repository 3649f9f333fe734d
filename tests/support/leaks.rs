//! What a runtime and a process have open.

use tokio::runtime::Handle;

/// How many tasks this runtime has, which is one test's own.
pub(crate) fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// How many file descriptors this process has open, where the system says so.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
