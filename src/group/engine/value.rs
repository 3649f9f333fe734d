//! The value of a task, on its way from the task to the handle.
//!
//! Tokio keeps the output of a task in the task's memory, and drops an unwanted output after the task's
//! future. That is too late, because by then the group no longer counts the task. So a value with a
//! destructor is handed over here, inside the task.
//!
//! The task and the handle share the place, and the last of the two to release it drops the value in
//! it. The task releases it as a member of its group, under the guard against panics of its
//! destructors.
//!
//! A value without a destructor goes through Tokio, and costs nothing here.

use std::fmt;
use std::sync::Arc;

use super::sync::Lock;

/// Where the task puts the value, and the handle takes it.
pub(crate) struct Place<T>(Arc<Lock<Option<T>>>);

impl<T> Place<T> {
    /// Makes a place and returns it twice, for the task and for the handle.
    pub(crate) fn for_both() -> (Self, Self) {
        let place = Arc::new(Lock::new(None));
        (Self(Arc::clone(&place)), Self(place))
    }

    pub(crate) fn put(&self, value: T) {
        // The place was empty, as a task has one value. A previous value would be dropped outside the
        // lock.
        let before = self.0.lock().replace(value);
        drop(before);
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().take()
    }
}

impl<T> fmt::Debug for Place<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}
