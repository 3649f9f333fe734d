//! The primitives the group's engine stands on; the loom models put their own in this place.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(super) use tokio::sync::Notify;

/// A mutex whose poison is ignored.
///
/// No code of a user runs under it, so it can only be poisoned by a bug here; refusing to stop
/// because of that would make it worse.
#[derive(Debug, Default)]
pub(super) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
