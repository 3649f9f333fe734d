//! The value of a task, on its way from the task to the handle.
//!
//! Tokio keeps the output of a task in the task's memory, and drops the one that nobody wants when the
//! task's future is gone. That is too late: by then the group has counted the task out. So a value with
//! a destructor is handed over here, inside of the task. If the handle is gone, the task drops the value,
//! as a member of its group and under the guard against its panics. If the handle is there, the value is
//! the handle's.
//!
//! A value without a destructor goes through Tokio, and costs nothing here.

use std::fmt;
use std::mem;
use std::sync::Arc;

use super::sync::Lock;

/// Where the task puts the value.
struct Place<T>(Lock<State<T>>);

enum State<T> {
    /// The task has not ended, or the value has been taken.
    Empty,
    Filled(T),
    /// The handle is gone.
    Unwanted,
}

/// The handle's end. Dropped, it drops the value that has come, and leaves one that comes to the task.
pub(crate) struct Receiver<T>(Arc<Place<T>>);

/// The task's end.
pub(crate) struct Sender<T>(Arc<Place<T>>);

pub(crate) fn place<T>() -> (Sender<T>, Receiver<T>) {
    let place = Arc::new(Place(Lock::new(State::Empty)));
    (Sender(Arc::clone(&place)), Receiver(place))
}

impl<T> Place<T> {
    // No value is dropped under the lock: each of these hands out what was there before.
    fn replace(&self, state: State<T>) -> State<T> {
        mem::replace(&mut *self.0.lock(), state)
    }
}

impl<T> Sender<T> {
    /// Hands the value over, or drops it if the handle is gone.
    pub(crate) fn send(&self, value: T) {
        let unwanted = {
            let mut state = self.0.0.lock();
            match &*state {
                State::Unwanted => Some(value),
                _ => {
                    *state = State::Filled(value);
                    None
                }
            }
        };
        drop(unwanted);
    }
}

impl<T> Receiver<T> {
    pub(crate) fn take(&self) -> Option<T> {
        match self.0.replace(State::Empty) {
            State::Filled(value) => Some(value),
            State::Empty | State::Unwanted => None,
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        drop(self.0.replace(State::Unwanted));
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
