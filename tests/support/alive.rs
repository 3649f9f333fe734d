//! [`Alive`]: counts what has not been dropped.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::yield_now;

use super::wait::soon;

/// Counts how many of its guards are alive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alive(Arc<AtomicUsize>);

#[derive(Debug)]
pub(crate) struct Guard(Arc<AtomicUsize>);

impl Alive {
    pub(crate) fn guard(&self) -> Guard {
        self.0.fetch_add(1, Ordering::SeqCst);
        Guard(Arc::clone(&self.0))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits until exactly `count` guards are alive.
    #[track_caller]
    pub(crate) fn reaches(&self, count: usize) -> impl Future<Output = ()> {
        soon(async move {
            while self.count() != count {
                yield_now().await;
            }
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
