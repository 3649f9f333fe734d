//! A [`TaskHandle`] awaits the value of one task.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use thiserror::Error;
use tokio::task::JoinHandle;

use super::aborts;
use super::value::Place;

/// The handle of a task in a group. Awaiting it returns the task's value.
///
/// Dropping it changes nothing. The task stays a member of its group, and its failure is the group's
/// failure.
///
/// The value is dropped once, by its last holder.
///
/// - If the handle is dropped before the task has ended, the task drops its value. The group's `wait`
///   returns afterwards, and a panic in the value's destructor is a failure of the task.
/// - If the handle is dropped later, it drops the value at once. A panic in the value's destructor then
///   reaches the caller, as with any value.
///
/// # Comparison to `JoinHandle`
///
/// A [`JoinHandle`] returns the task's error too. Here the group's `wait` returns the error, unless the
/// task is [isolated](crate::group::Task::isolated).
///
/// # Cancel safety
///
/// Awaiting `&mut handle` in a `select!` that takes another branch loses nothing.
///
/// # Panics
///
/// Panics if it is polled again after it has resolved.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::new();
/// let answer = group.spawn(async { Ok(6 * 7) });
/// assert_eq!(answer.await, Ok(42));
/// assert!(group.wait().await.is_ok());
/// # });
/// ```
#[derive(Debug)]
pub struct TaskHandle<T> {
    /// `None` if the task was refused.
    task: Option<Joining<T>>,
    /// Where the value is when the task itself does not return it.
    place: Option<Place<T>>,
}

pub(crate) type Joining<T> = JoinHandle<Result<T, NoValue>>;

/// Why Tokio has no value of a task.
// Without a value beside it this is one word, like `JoinError` alone, for the reason given there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoValue {
    /// The value has a destructor, so it was moved through the [`Place`].
    InPlace,
    Lost(JoinError),
}

/// Why a task has no value to return.
///
/// It does not contain the error or the panic, because that belongs to the group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
// One word, because every return of a task moves it, and moving a byte of a word costs more.
#[repr(usize)]
pub enum JoinError {
    /// The task returned an error.
    #[error("the task failed")]
    Failed,
    /// The task panicked.
    #[error("the task panicked")]
    Panicked,
    /// The task was aborted with its group, or its runtime shut down.
    #[error("the task was aborted")]
    Aborted,
    /// The task never started, because its group was closed, or cancelled while it waited for a slot.
    #[error("the task was refused by its group")]
    Refused,
}

/// The message, because `main` prints a returned error with `Debug`.
impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T> TaskHandle<T> {
    #[inline]
    pub(crate) fn new(task: Option<Joining<T>>, place: Option<Place<T>>) -> Self {
        Self { task, place }
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.task.is_none()
    }

    /// Aborts the task, which is then dropped at its next point of suspension.
    ///
    /// This returns at once. The handle resolves to [`JoinError::Aborted`] when the task is gone, or to
    /// the task's own end if that came first. The group still waits for the task. The abort does not
    /// fail the group, even if the task is [essential](crate::group::Task::essential).
    ///
    /// A closure of [`spawn_blocking`](crate::TaskGroup::spawn_blocking) that has started keeps
    /// running, because a thread cannot be aborted. A closure that has not started never starts. A task
    /// that waits for a slot leaves the queue. This does nothing for a task that has ended, or on a
    /// second call.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    /// use taskgroup::group::JoinError;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut group = TaskGroup::new();
    /// let deaf = group.spawn(std::future::pending::<Result<(), _>>());
    /// deaf.abort();
    /// assert_eq!(deaf.await, Err(JoinError::Aborted));
    /// group.wait().await?;
    /// # Ok::<_, taskgroup::BoxError>(())
    /// # }).unwrap();
    /// ```
    pub fn abort(&self) {
        if let Some(task) = &self.task {
            aborts::abort(&task.abort_handle());
        }
    }

    /// Returns whether the task has ended or was refused.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(task) = &mut self.task else {
            return Poll::Ready(Err(JoinError::Refused));
        };
        // The wrapper catches the task's panics, so the only other case is a dropped task.
        let aborted = Err(NoValue::Lost(JoinError::Aborted));
        Poll::Ready(match ready!(Pin::new(task).poll(cx)).unwrap_or(aborted) {
            Ok(value) => Ok(value),
            Err(NoValue::Lost(error)) => Err(error),
            Err(NoValue::InPlace) => {
                let value = self.place.as_ref().and_then(Place::take);
                value.ok_or(JoinError::Aborted)
            }
        })
    }
}
