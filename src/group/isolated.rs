//! An [`IsolatedTask`] keeps its failure from its group.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio_util::sync::CancellationToken;

use super::engine::handle::TaskHandle;
use super::engine::spawn_error::SpawnError;
use super::task::Task;
use crate::BoxError;
use crate::group::engine::origin::Origin;
use crate::group::engine::shared::Shared;
use crate::group::error::TaskError;
use crate::group::failure::Failure;
use crate::group::into_task::{Inside, IntoTask};
use crate::group::label::Label;
use crate::group::panic::Panic;

/// A task whose failure goes to its handle and not to its group, made by [`Task::isolated`].
///
/// Use it for the work of one message or one connection, whose failure must not stop the others.
///
/// - The task is a normal member of the group. The group waits for it, its token reaches it, and it is
///   listed.
/// - Its error or panic becomes the value of its [handle](TaskHandle), a `Result<T, TaskError<E>>` with
///   the error as the task gave it. The group is not cancelled. A panic is still logged at ERROR.
/// - An [essential](Task::essential) task that returns `Ok` before the cancel fails in the same way.
/// - A refused or aborted task has no such value, so the handle returns a
///   [`JoinError`](crate::group::JoinError). The group does not fail either if the task panics while it
///   is dropped, or if its runtime shuts down.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::new();
/// let parsed = group.task("message").isolated().spawn(async { Ok("7x".parse::<u32>()?) });
///
/// let error = parsed.await?.unwrap_err();
/// assert_eq!(error.name(), Some("message"));
/// assert!(error.into_error().unwrap().is::<std::num::ParseIntError>());
/// group.wait().await?; // the group has not failed
/// # Ok::<_, taskgroup::BoxError>(())
/// # }).unwrap();
/// ```
#[must_use = "a task does nothing until it is spawned"]
pub struct IsolatedTask<'a, E = BoxError> {
    task: Task<'a, E>,
    essential: bool,
}

impl<'a, E> Task<'a, E> {
    /// Sends a failure of the task to its handle instead of its group. See [`IsolatedTask`].
    pub fn isolated(self) -> IsolatedTask<'a, E> {
        let (task, essential) = self.into_isolated();
        IsolatedTask { task, essential }
    }
}

impl<E> IsolatedTask<'_, E> {
    fn origin(&self, place: &'static Location<'static>) -> Origin<'_> {
        self.task.origin(place)
    }

    fn blame(&self, place: &'static Location<'static>) -> Blame<E> {
        let shared = Arc::clone(&self.task.hub().shared);
        let label = self.origin(place).label(&shared);
        Blame {
            label,
            shared,
            essential: self.essential,
        }
    }
}

impl<E: Send + 'static> IsolatedTask<'_, E> {
    /// As [`TaskGroup::spawn`](super::TaskGroup::spawn).
    #[track_caller]
    pub fn spawn<F>(self, task: F) -> TaskHandle<Result<F::Value, TaskError<E>>>
    where
        F: IntoTask<E, Task: Send + 'static>,
        F::Value: Send + 'static,
    {
        let place = Location::caller();
        let future = Isolated::new(task.into_task(Inside), self.blame(place));
        self.task.hub().spawn(self.origin(place), future)
    }

    /// As [`TaskGroup::try_spawn`](super::TaskGroup::try_spawn).
    // An alias would hide from the docs what the handle returns.
    #[allow(clippy::type_complexity)]
    #[track_caller]
    pub fn try_spawn<F>(
        self,
        task: F,
    ) -> Result<TaskHandle<Result<F::Value, TaskError<E>>>, SpawnError<F>>
    where
        F: IntoTask<E, Task: Send + 'static>,
        F::Value: Send + 'static,
    {
        let place = Location::caller();
        let blame = self.blame(place);
        let isolate = |task: F| Isolated::new(task.into_task(Inside), blame);
        self.task.hub().try_spawn(self.origin(place), task, isolate)
    }

    /// As [`TaskGroup::spawn_when_ready`](super::TaskGroup::spawn_when_ready).
    #[track_caller]
    pub fn spawn_when_ready<F, T>(
        self,
        future: F,
    ) -> impl Future<Output = Result<TaskHandle<Result<T, TaskError<E>>>, SpawnError<F>>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        let place = Location::caller();
        async move {
            let blame = self.blame(place);
            let isolate = |future| Isolated::new(future, blame);
            let hub = self.task.hub();
            hub.spawn_when_ready(self.origin(place), future, isolate)
                .await
        }
    }

    /// As [`TaskGroup::spawn_blocking`](super::TaskGroup::spawn_blocking).
    #[track_caller]
    pub fn spawn_blocking<F, T>(self, closure: F) -> TaskHandle<Result<T, TaskError<E>>>
    where
        F: FnOnce(&CancellationToken) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        let place = Location::caller();
        let blame = self.blame(place);
        let closure =
            move |token: &CancellationToken| Ok(blame.end(Panic::catch(|| closure(token))));
        self.task.hub().spawn_blocking(self.origin(place), closure)
    }

    /// As [`TaskGroup::spawn_local`](super::TaskGroup::spawn_local).
    #[track_caller]
    pub fn spawn_local<F>(self, task: F) -> TaskHandle<Result<F::Value, TaskError<E>>>
    where
        F: IntoTask<E, Task: 'static>,
        F::Value: 'static,
    {
        let place = Location::caller();
        let future = Isolated::new(task.into_task(Inside), self.blame(place));
        self.task.hub().spawn_local(self.origin(place), future)
    }
}

impl<E> fmt::Debug for IsolatedTask<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IsolatedTask").field(&self.task).finish()
    }
}

/// Turns the failure of an isolated task into an error.
pub(super) struct Blame<E> {
    pub(super) label: Label,
    pub(super) shared: Arc<Shared<E>>,
    pub(super) essential: bool,
}

impl<E> Blame<E> {
    /// Turns the end of the task into the value of its handle.
    fn end<T>(&self, ended: Result<Result<T, E>, Panic>) -> Result<T, TaskError<E>> {
        let failure = match ended {
            Ok(Ok(value)) if !self.essential || self.shared.is_cancelled() => return Ok(value),
            Ok(Ok(_)) => Failure::EndedEarly,
            Ok(Err(error)) => Failure::Failed(error),
            Err(panic) => Failure::Panicked(panic),
        };
        Err(self.error(failure))
    }

    fn error(&self, failure: Failure<E>) -> TaskError<E> {
        self.shared.error_of(&self.label, failure)
    }
}

pin_project! {
    /// A future whose failure is its value.
    pub(super) struct Isolated<F, E> {
        // `None` once the future has ended. A panic while it is dropped is the task's failure too.
        #[pin]
        future: Option<F>,
        blame: Blame<E>,
    }
}

impl<F, E> Isolated<F, E> {
    pub(super) fn new(future: F, blame: Blame<E>) -> Self {
        Self {
            future: Some(future),
            blame,
        }
    }
}

impl<F, T, E> Future for Isolated<F, E>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<Result<T, TaskError<E>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let ended = match Panic::catch(|| future.poll(cx)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(panic) => Err(panic),
        };
        let ended = this.blame.end(ended);
        Poll::Ready(Ok(match Panic::catch(|| this.future.set(None)) {
            Ok(()) => ended,
            Err(panic) => ended.and(Err(this.blame.error(Failure::Panicked(panic)))),
        }))
    }
}
