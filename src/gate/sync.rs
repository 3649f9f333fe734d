//! The primitives the gate's engine stands on; the loom models put their own in this place.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) use std::sync::atomic::{AtomicBool, Ordering};

/// A mutex whose poison is ignored: nothing that can panic runs under it.
#[derive(Debug, Default)]
pub(super) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
