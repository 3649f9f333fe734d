//! [`TaskHandle`]: awaits the value of one task.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use thiserror::Error;
use tokio::task::JoinHandle;

use super::aborts;

/// The handle of a task in a group; awaiting it gives the task's value.
///
/// Dropping it changes nothing: the task stays a member of its group, and a failure of it is the
/// group's failure. A value that nobody awaits is dropped as soon as the task has ended.
///
/// # Comparison to `JoinHandle`
///
/// A [`JoinHandle`] gives the task's error too. Here the error belongs to the group, which is what is
/// awaited for it, unless the task is [isolated](crate::Task::isolated).
///
/// # Cancel safety
///
/// Awaiting `&mut handle` in a `select!` that takes another branch loses nothing.
///
/// # Panics
///
/// Polling it again after it has resolved panics.
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
pub struct TaskHandle<T>(Inner<T>);

#[derive(Debug)]
enum Inner<T> {
    Task(JoinHandle<Result<T, JoinError>>),
    Refused,
}

/// Why a task has no value to give.
///
/// An error or a panic itself is not in here: it is the group's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
// A word, as it is moved on every return of a task: moving a byte of a word takes more.
#[repr(usize)]
pub enum JoinError {
    /// The task returned an error.
    #[error("the task failed")]
    Failed,
    /// The task panicked.
    #[error("the task panicked")]
    Panicked,
    /// The task was aborted with its group, or its runtime went away.
    #[error("the task was aborted")]
    Aborted,
    /// The task never started: its group was closed, or cancelled while it waited for a slot.
    #[error("the task was refused by its group")]
    Refused,
}

impl<T> TaskHandle<T> {
    pub(super) fn new(task: JoinHandle<Result<T, JoinError>>) -> Self {
        Self(Inner::Task(task))
    }

    pub(super) fn refused() -> Self {
        Self(Inner::Refused)
    }

    /// Aborts the task: it is dropped at its next point of suspension.
    ///
    /// This returns at once. The handle resolves to [`JoinError::Aborted`] when the task is gone, or to
    /// the task's own end if that came first; the group waits for it like for any task. An abort on
    /// purpose is no failure of the group, not even that of an [essential](crate::Task::essential) task.
    ///
    /// A closure of [`spawn_blocking`](crate::TaskGroup::spawn_blocking) that has started is not touched,
    /// as nothing can end a thread; one that has not never starts. A task that waits for a slot leaves
    /// the queue. On a task that has ended, and on a second call, this does nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::{JoinError, TaskGroup};
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
        if let Inner::Task(task) = &self.0 {
            aborts::abort(task.abort_handle());
        }
    }

    /// Returns whether the task has ended, or was refused in the first place.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            Inner::Task(task) => task.is_finished(),
            Inner::Refused => true,
        }
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Inner::Task(task) => Pin::new(task)
                .poll(cx)
                // The wrapper catches the task's panics, so what is left is a dropped task.
                .map(|joined| joined.unwrap_or(Err(JoinError::Aborted))),
            Inner::Refused => Poll::Ready(Err(JoinError::Refused)),
        }
    }
}
