//! A [`TaskHandle`] awaits the value of one task.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::task::JoinHandle;

use super::aborts;
use super::value::Place;
use crate::group::end::End;

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
///
/// It is one word, because every return of a task moves it. An [`End`] is one byte, and moving a byte of
/// a word cost a ready task about ten instructions. It becomes an end in [`TaskHandle::poll`] and
/// nowhere else.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum NoValue {
    /// The value has a destructor, so it was moved through the [`Place`].
    InPlace,
    Failed,
    Panicked,
    Aborted,
    Refused,
}

/// The error of a [`TaskHandle`] whose task has no value to return.
///
/// It says how the task [ended](Self::end). It does not contain the error or the panic of the task,
/// because that belongs to the group.
///
/// # Examples
///
/// ```
/// use taskgroup::{End, TaskGroup};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::new();
/// let failed = group.spawn(async { Err::<(), _>("no database".into()) });
///
/// let error = failed.await.unwrap_err();
/// assert_eq!(error.end(), End::Failed);
/// assert_eq!(error.to_string(), "the task failed");
/// assert!(group.wait().await.is_err());
/// # });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct JoinError(End);

impl JoinError {
    /// Returns how the task ended.
    ///
    /// - [`Failed`](End::Failed) if it returned an error.
    /// - [`Panicked`](End::Panicked) if it panicked.
    /// - [`Aborted`](End::Aborted) if it was aborted, alone or with its group, or if its runtime shut
    ///   down.
    /// - [`Skipped`](End::Skipped) if it never started, because its group was closed, or was cancelled
    ///   while the task waited for a slot.
    #[must_use]
    pub fn end(&self) -> End {
        self.0
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            End::Skipped => f.write_str("the task was refused by its group"),
            End::Aborted => f.write_str("the task was aborted"),
            end => write!(f, "the task {end}"),
        }
    }
}

/// The message, because `main` prints a returned error with `Debug`.
impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for JoinError {}

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
    /// This returns at once. The handle resolves to [`End::Aborted`] when the task is gone, or to the
    /// task's own end if that came first. The group still waits for the task. The abort does not
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
    /// use taskgroup::{End, TaskGroup};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut group = TaskGroup::new();
    /// let deaf = group.spawn(std::future::pending::<Result<(), _>>());
    /// deaf.abort();
    /// assert_eq!(deaf.await.unwrap_err().end(), End::Aborted);
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
            return Poll::Ready(Err(JoinError(End::Skipped)));
        };
        // The wrapper catches the task's panics, so the only other case is a dropped task.
        let ended = ready!(Pin::new(task).poll(cx)).unwrap_or(Err(NoValue::Aborted));
        let end = match ended {
            Ok(value) => return Poll::Ready(Ok(value)),
            Err(NoValue::InPlace) => match self.place.as_ref().and_then(Place::take) {
                Some(value) => return Poll::Ready(Ok(value)),
                None => End::Aborted,
            },
            Err(NoValue::Failed) => End::Failed,
            Err(NoValue::Panicked) => End::Panicked,
            Err(NoValue::Aborted) => End::Aborted,
            Err(NoValue::Refused) => End::Skipped,
        };
        Poll::Ready(Err(JoinError(end)))
    }
}
