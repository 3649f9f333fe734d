//! [`TaskHandle`]: awaits the value of one task.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use thiserror::Error;
use tokio::task::JoinHandle;

use super::aborts;
use super::value::Receiver;

/// The handle of a task in a group; awaiting it gives the task's value.
///
/// Dropping it changes nothing: the task stays a member of its group, and a failure of it is the
/// group's failure.
///
/// The value is dropped once, by whoever has it last:
///
/// - If the handle is dropped before the task has ended, the task drops its value. The group's `wait`
///   returns afterwards, and a panic in the value's destructor is a failure of the task.
/// - If the handle is dropped later, it drops the value, there and then. A panic in the value's
///   destructor is the caller's, as with any value.
///
/// # Comparison to `JoinHandle`
///
/// A [`JoinHandle`] gives the task's error too. Here the error belongs to the group, which is what is
/// awaited for it, unless the task is [isolated](crate::group::Task::isolated).
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
    /// The value has a destructor, so it takes a way of its own.
    Sending(JoinHandle<Result<(), JoinError>>, Receiver<T>),
    Refused,
}

/// Why a task has no value to give.
///
/// An error or a panic itself is not in here: it is the group's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Error)]
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

/// What it says, as `main` prints the error that it returns.
impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T> TaskHandle<T> {
    pub(crate) fn new(task: JoinHandle<Result<T, JoinError>>) -> Self {
        Self(Inner::Task(task))
    }

    pub(crate) fn refused() -> Self {
        Self(Inner::Refused)
    }

    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.0, Inner::Refused)
    }

    /// Aborts the task: it is dropped at its next point of suspension.
    ///
    /// This returns at once. The handle resolves to [`JoinError::Aborted`] when the task is gone, or to
    /// the task's own end if that came first; the group waits for it like for any task. An abort on
    /// purpose is no failure of the group, not even that of an [essential](crate::group::Task::essential) task.
    ///
    /// A closure of [`spawn_blocking`](crate::TaskGroup::spawn_blocking) that has started is not touched,
    /// as nothing can end a thread; one that has not never starts. A task that waits for a slot leaves
    /// the queue. On a task that has ended, and on a second call, this does nothing.
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
        match &self.0 {
            Inner::Task(task) => aborts::abort(&task.abort_handle()),
            Inner::Sending(task, _) => aborts::abort(&task.abort_handle()),
            Inner::Refused => {}
        }
    }

    /// Returns whether the task has ended, or was refused in the first place.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            Inner::Task(task) => task.is_finished(),
            Inner::Sending(task, _) => task.is_finished(),
            Inner::Refused => true,
        }
    }
}

impl TaskHandle<()> {
    /// Makes this the handle of a task whose value goes to `receiver`.
    pub(crate) fn receiving<T>(self, receiver: Receiver<T>) -> TaskHandle<T> {
        TaskHandle(match self.0 {
            Inner::Task(task) | Inner::Sending(task, _) => Inner::Sending(task, receiver),
            Inner::Refused => Inner::Refused,
        })
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
            Inner::Sending(task, value) => {
                let joined = ready!(Pin::new(task).poll(cx));
                let sent = joined.unwrap_or(Err(JoinError::Aborted));
                Poll::Ready(sent.and_then(|()| value.take().ok_or(JoinError::Aborted)))
            }
            Inner::Refused => Poll::Ready(Err(JoinError::Refused)),
        }
    }
}
