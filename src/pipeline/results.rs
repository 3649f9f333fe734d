//! [`Results`]: the outputs of handlers, in the order of the items.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::take;
use std::sync::Arc;

use crate::group::lock::Lock;

/// The outputs of handlers, in the order of the items. [`Workers::map`](super::Workers::map) makes one.
///
/// A result is there as soon as its handler has returned, so those that are done remain after a stop or a
/// failure. A clone is another handle on the same results.
///
/// # Examples
///
/// See [`Workers::map`](super::Workers::map).
pub struct Results<U>(Arc<Lock<BTreeMap<u64, U>>>);

impl<U> Results<U> {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(super) fn keep(&self, index: u64, result: U) {
        let earlier = self.0.lock().insert(index, result);
        // The destructor runs without the lock.
        drop(earlier);
    }

    /// Takes the available results, each with the [index](super::Job::index) of its item, in the order of the
    /// items.
    #[must_use = "what is taken is nowhere else"]
    pub fn take(&self) -> Vec<(u64, U)> {
        take(&mut *self.0.lock()).into_iter().collect()
    }

    /// Returns the number of available results.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Returns whether no result is available.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<U> Clone for Results<U> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<U> fmt::Debug for Results<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Results")
            .field("count", &self.len())
            .finish_non_exhaustive()
    }
}
