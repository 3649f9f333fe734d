//! A [`Task`] has a name and is about to be spawned.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::Location;

use tokio_util::sync::CancellationToken;

use super::engine::handle::TaskHandle;
use super::engine::spawn_error::SpawnError;
use crate::BoxError;
use crate::group::engine::hub::Hub;
use crate::group::engine::origin::Origin;
use crate::group::engine::start::as_it_is;
use crate::group::into_task::{Inside, IntoTask};

/// A task with a name, made by [`TaskGroup::task`](super::TaskGroup::task).
///
/// The name appears in errors, in logs and in [`running`](super::TaskGroup::running), as a path below
/// the group's own name. Names need not be unique. `running` numbers tasks that share a name.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::builder().name("orders").build()?;
/// for shard in 0..2 {
///     group.task(format!("worker-{shard}")).essential().spawn(async { Ok(()) });
/// }
/// let error = group.wait().await.unwrap_err();
/// assert_eq!(error.end(), taskgroup::End::EndedEarly);
/// assert_eq!(error.name(), Some("orders/worker-0"));
/// # Ok::<_, taskgroup::BoxError>(())
/// # }).unwrap();
/// ```
#[must_use = "a task does nothing until it is spawned"]
pub struct Task<'a, E = BoxError> {
    hub: &'a Hub<E>,
    name: Cow<'static, str>,
    essential: bool,
    isolated: bool,
    in_current_span: bool,
}

impl<'a, E> Task<'a, E> {
    pub(super) fn new(hub: &'a Hub<E>, name: Cow<'static, str>) -> Self {
        Self {
            hub,
            name,
            essential: false,
            isolated: false,
            in_current_span: false,
        }
    }

    /// Makes the group fail if the task returns `Ok` before the group is cancelled.
    ///
    /// Use it for a task that should run as long as the group, such as a server or a consumer. Its
    /// early end is [`End::EndedEarly`](crate::End::EndedEarly).
    pub fn essential(mut self) -> Self {
        self.essential = true;
        self
    }

    /// Runs the task in the [`tracing`] span that is current when it is spawned.
    ///
    /// The span is entered for each poll and while the future is dropped, or on a thread, for the
    /// closure. [`Builder::in_current_span`](crate::group::Builder::in_current_span) does this for all
    /// tasks.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    /// use tracing::info_span;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut group = TaskGroup::new();
    /// info_span!("request", id = 7).in_scope(|| {
    ///     group.task("audit").in_current_span().spawn(async {
    ///         tracing::info!("stands in the span of the request");
    ///         Ok(())
    ///     });
    /// });
    /// assert!(group.wait().await.is_ok());
    /// # });
    /// ```
    pub fn in_current_span(mut self) -> Self {
        self.in_current_span = true;
        self
    }

    pub(super) fn origin(&self, place: &'static Location<'static>) -> Origin<'_> {
        Origin {
            place,
            name: Some(&self.name),
            essential: self.essential,
            isolated: self.isolated,
            in_current_span: self.in_current_span,
        }
    }

    pub(super) fn hub(&self) -> &'a Hub<E> {
        self.hub
    }

    /// Makes the task isolated, and returns whether an early end is its failure.
    pub(super) fn into_isolated(self) -> (Self, bool) {
        let essential = self.essential;
        let task = Self {
            essential: false,
            isolated: true,
            ..self
        };
        (task, essential)
    }
}

impl<E: Send + 'static> Task<'_, E> {
    /// As [`TaskGroup::spawn`](super::TaskGroup::spawn).
    #[track_caller]
    pub fn spawn<F>(self, task: F) -> TaskHandle<F::Value>
    where
        F: IntoTask<E, Task: Send + 'static>,
        F::Value: Send + 'static,
    {
        self.hub
            .spawn(self.origin(Location::caller()), task.into_task(Inside))
    }

    /// Spawns the task as if at `place`, because a supervisor starts tasks that it was given elsewhere.
    #[track_caller]
    pub(crate) fn spawn_from<F, T>(
        self,
        place: &'static Location<'static>,
        future: F,
    ) -> TaskHandle<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        self.hub.spawn(self.origin(place), future)
    }

    /// As [`TaskGroup::try_spawn`](super::TaskGroup::try_spawn).
    #[track_caller]
    pub fn try_spawn<F>(self, task: F) -> Result<TaskHandle<F::Value>, SpawnError<F>>
    where
        F: IntoTask<E, Task: Send + 'static>,
        F::Value: Send + 'static,
    {
        self.hub
            .try_spawn(self.origin(Location::caller()), task, |task| {
                task.into_task(Inside)
            })
    }

    /// As [`TaskGroup::spawn_when_ready`](super::TaskGroup::spawn_when_ready).
    #[track_caller]
    pub fn spawn_when_ready<F, T>(
        self,
        future: F,
    ) -> impl Future<Output = Result<TaskHandle<T>, SpawnError<F>>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        let place = Location::caller();
        async move {
            let origin = self.origin(place);
            self.hub.spawn_when_ready(origin, future, as_it_is).await
        }
    }

    /// As [`TaskGroup::spawn_blocking`](super::TaskGroup::spawn_blocking).
    #[track_caller]
    pub fn spawn_blocking<F, T>(self, closure: F) -> TaskHandle<T>
    where
        F: FnOnce(&CancellationToken) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        self.hub
            .spawn_blocking(self.origin(Location::caller()), closure)
    }

    pub(crate) fn spawn_blocking_from<F, T>(
        self,
        place: &'static Location<'static>,
        closure: F,
    ) -> TaskHandle<T>
    where
        F: FnOnce(&CancellationToken) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        self.hub.spawn_blocking(self.origin(place), closure)
    }

    /// As [`TaskGroup::spawn_local`](super::TaskGroup::spawn_local).
    #[track_caller]
    pub fn spawn_local<F>(self, task: F) -> TaskHandle<F::Value>
    where
        F: IntoTask<E, Task: 'static>,
        F::Value: 'static,
    {
        self.hub
            .spawn_local(self.origin(Location::caller()), task.into_task(Inside))
    }
}

impl<E> fmt::Debug for Task<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("name", &self.name)
            .field("essential", &self.essential)
            .finish_non_exhaustive()
    }
}
