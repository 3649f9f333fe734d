//! A task beside a group, aborted when its handle is dropped.

use tokio::task::{AbortHandle, JoinHandle};

/// A task that listens for a group on the runtime.
pub(crate) struct AbortOnDrop(AbortHandle);

impl AbortOnDrop {
    pub(crate) fn new<T>(task: &JoinHandle<T>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
