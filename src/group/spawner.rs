//! A [`Spawner`] spawns into a group from anywhere.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::engine::handle::TaskHandle;
use super::engine::spawn_error::SpawnError;
use super::task::Task;
use crate::BoxError;
use crate::group::cause::Cause;
use crate::group::engine::hub::Hub;
use crate::group::engine::origin::Origin;
use crate::group::engine::start::as_it_is;
#[cfg(feature = "signal")]
use crate::group::error::TimedOut;
use crate::group::into_task::{Inside, IntoTask};
use crate::group::running::Running;
use crate::group::stop_request::StopRequest;

/// A handle for spawning into a group from anywhere, including from its own tasks.
///
/// It is cheap to clone, and it never keeps the group alive or open. Once the owner's
/// [`wait`](super::TaskGroup::wait) has returned, or the owner is dropped, spawning is refused. So a
/// task can safely hold a spawner of its own group.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::new();
/// let spawner = group.spawner();
/// group.spawn(async move {
///     // Waited for like any other, though the group is being waited for already.
///     spawner.spawn(async { Err::<(), _>("from the inside".into()) });
///     Ok(())
/// });
/// let error = group.wait().await.unwrap_err();
/// assert!(format!("{error:#}").contains("from the inside"));
/// # });
/// ```
pub struct Spawner<E = BoxError> {
    pub(super) hub: Arc<Hub<E>>,
}

impl<E> Spawner<E> {
    pub(super) fn new(hub: Arc<Hub<E>>) -> Self {
        Self { hub }
    }

    /// Names a task that is about to be spawned, as [`TaskGroup::task`](super::TaskGroup::task).
    pub fn task(&self, name: impl Into<Cow<'static, str>>) -> Task<'_, E> {
        Task::new(&self.hub, name.into())
    }

    /// Returns the group's token, as [`TaskGroup::token`](super::TaskGroup::token).
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        self.hub.shared.token()
    }

    /// Cancels the group, as [`TaskGroup::cancel`](super::TaskGroup::cancel).
    pub fn cancel(&self) {
        self.hub
            .shared
            .cancel(Cause::Requested(StopRequest::default()));
    }

    /// Cancels the group for a reason, as
    /// [`TaskGroup::cancel_because`](super::TaskGroup::cancel_because).
    pub fn cancel_because(&self, reason: impl Into<StopRequest>) {
        self.hub.shared.cancel(Cause::Requested(reason.into()));
    }

    /// Returns whether the group was cancelled, as
    /// [`TaskGroup::is_cancelled`](super::TaskGroup::is_cancelled).
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.hub.shared.is_cancelled()
    }

    /// Returns why the group was cancelled, as [`TaskGroup::cause`](super::TaskGroup::cause).
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.hub.shared.cause()
    }

    /// Closes the group, as [`TaskGroup::close`](super::TaskGroup::close).
    pub fn close(&self) {
        self.hub.close();
    }

    /// Returns whether the group refuses new tasks, as
    /// [`TaskGroup::is_closed`](super::TaskGroup::is_closed).
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.hub.shared.is_closed()
    }

    /// Returns the live tasks of the group, as [`TaskGroup::running`](super::TaskGroup::running).
    #[must_use]
    pub fn running(&self) -> Running {
        self.hub.running()
    }

    /// Returns the path of the group, such as `orders/http`, or `None` for a group without a name.
    pub(crate) fn name(&self) -> Option<&str> {
        self.hub.shared.path().map(|path| &**path)
    }

    /// Aborts every task of the group and of the groups below it, without waiting.
    pub(crate) fn abort(&self) {
        self.hub.abort();
    }

    /// Aborts the remaining tasks, which is a failure of the group, as
    /// [`TaskGroup::abort`](super::TaskGroup::abort).
    #[cfg(feature = "signal")]
    pub(crate) fn force(&self) {
        self.hub.force_and_fail(TimedOut::aborted);
    }

    /// Cancels for a trigger, and logs it if it was the first cause. A lost heartbeat is a failure.
    pub(crate) fn trigger(&self, cause: &Cause) {
        self.hub.shared.trigger(cause);
    }

    /// Cancels for an internal cause, without logging.
    pub(crate) fn cancel_for(&self, cause: Cause) {
        self.hub.shared.cancel(cause);
    }

    /// Cancels this group and those above it for a failure that a task returns later, once it has cleaned up.
    pub(crate) fn fail_early(&self, cause: &Cause) {
        self.hub.shared.stop_for(cause, Vec::new());
    }

    /// Logs what asked the group to stop, and what follows from it.
    #[cfg(feature = "signal")]
    pub(crate) fn log_trigger(&self, cause: &Cause, then: &str) {
        self.hub.shared.log_trigger(cause, then);
    }
}

impl<E: Send + 'static> Spawner<E> {
    /// As [`TaskGroup::spawn`](super::TaskGroup::spawn).
    #[track_caller]
    pub fn spawn<F>(&self, task: F) -> TaskHandle<F::Value>
    where
        F: IntoTask<E, Task: Send + 'static>,
        F::Value: Send + 'static,
    {
        self.hub
            .spawn(Origin::unnamed(Location::caller()), task.into_task(Inside))
    }

    /// As [`TaskGroup::try_spawn`](super::TaskGroup::try_spawn).
    #[track_caller]
    pub fn try_spawn<F>(&self, task: F) -> Result<TaskHandle<F::Value>, SpawnError<F>>
    where
        F: IntoTask<E, Task: Send + 'static>,
        F::Value: Send + 'static,
    {
        self.hub
            .try_spawn(Origin::unnamed(Location::caller()), task, |task| {
                task.into_task(Inside)
            })
    }

    /// As [`TaskGroup::spawn_when_ready`](super::TaskGroup::spawn_when_ready).
    #[track_caller]
    pub fn spawn_when_ready<F, T>(
        &self,
        future: F,
    ) -> impl Future<Output = Result<TaskHandle<T>, SpawnError<F>>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        self.hub
            .spawn_when_ready(Origin::unnamed(Location::caller()), future, as_it_is)
    }

    /// As [`TaskGroup::spawn_blocking`](super::TaskGroup::spawn_blocking).
    #[track_caller]
    pub fn spawn_blocking<F, T>(&self, closure: F) -> TaskHandle<T>
    where
        F: FnOnce(&CancellationToken) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        self.hub
            .spawn_blocking(Origin::unnamed(Location::caller()), closure)
    }

    /// As [`TaskGroup::spawn_local`](super::TaskGroup::spawn_local).
    #[track_caller]
    pub fn spawn_local<F>(&self, task: F) -> TaskHandle<F::Value>
    where
        F: IntoTask<E, Task: 'static>,
        F::Value: 'static,
    {
        self.hub
            .spawn_local(Origin::unnamed(Location::caller()), task.into_task(Inside))
    }
}

impl<E> Clone for Spawner<E> {
    fn clone(&self) -> Self {
        Self {
            hub: Arc::clone(&self.hub),
        }
    }
}

impl<E> fmt::Debug for Spawner<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spawner").field(&self.hub).finish()
    }
}
