//! Loom's primitives under the names that the crate's `group/sync.rs` and
//! `gate/sync.rs` give.

pub(crate) use loom::sync::atomic::AtomicBool;
pub(crate) use loom::sync::atomic::AtomicUsize;
pub(crate) use loom::sync::atomic::Ordering;

/// A mutex whose poison is ignored.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(loom::sync::Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
