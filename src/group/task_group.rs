//! A [`TaskGroup`] holds tasks that share one token and one fate.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::BoxError;
use crate::group::build_error::BuildError;
use crate::group::builder::Builder;
use crate::group::cause::Cause;
#[cfg(feature = "test-util")]
use crate::group::census;
use crate::group::engine::handle::TaskHandle;
use crate::group::engine::hub::Hub;
use crate::group::engine::origin::Origin;
use crate::group::engine::record::first_of;
use crate::group::engine::shared::{Plan, Shared};
use crate::group::engine::spawn_error::SpawnError;
use crate::group::engine::start::as_it_is;
use crate::group::error::{TaskError, TimedOut};
use crate::group::failure::View;
use crate::group::into_task::{Inside, IntoTask};
use crate::group::running::Running;
use crate::group::spawner::Spawner;
use crate::group::stop_request::StopRequest;
use crate::group::task::Task;
use crate::group::time::{CONFIRMATION, LONG, THEN};

/// Tasks that share one token and one fate. The first failure cancels them all, and no task outlives
/// the group.
///
/// The group guarantees:
///
/// - [`wait`](Self::wait) returns when every task has ended and its future has been dropped. It returns
///   the first failure, which is a task's error as the task gave it, or a panic.
/// - The group records the failure before the [`token`](Self::token) fires, so code that sees the token
///   fired can read the [`cause`](Self::cause).
/// - Dropping the group cancels it and aborts its tasks, without blocking. Only closures on threads
///   keep running, because a thread cannot be aborted.
///
/// Tasks can be spawned through `&self`, or from anywhere through a [`Spawner`], even during a `wait`.
/// A finished task costs no memory.
///
/// The idea comes from Go's `errgroup`, the rules for ending a group from Trio's nurseries.
///
/// # Comparison to `JoinSet` and `TaskTracker`
///
/// A [`JoinSet`](tokio::task::JoinSet) returns each task's result as the task ends. Use it when you
/// look at every result in a loop. A `TaskTracker` of `tokio-util` waits for tasks but does not handle
/// errors. Use it when tasks cannot fail. Use a group for tasks that belong together.
///
/// # Errors
///
/// A task returns a `Result<T, E>`. [`TaskGroup::new`] boxes any error, [`TaskGroup::typed`] takes your
/// own error type, and [`TaskGroup::reports`] takes a report type such as `anyhow::Error`.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::new();
/// for port in ["80", "443", "http"] {
///     group.spawn(async move { Ok(port.parse::<u16>()?) });
/// }
/// let error = group.wait().await.unwrap_err();
/// assert!(format!("{error:#}").ends_with("failed: invalid digit found in string"));
/// # });
/// ```
pub struct TaskGroup<E = BoxError> {
    pub(super) hub: Arc<Hub<E>>,
    /// Whether the owner's share of the latch has been given back.
    over: bool,
}

impl TaskGroup {
    /// Makes a group of tasks with boxed errors, so that `?` takes any error.
    ///
    /// # Examples
    ///
    /// ```
    /// let group = taskgroup::TaskGroup::new();
    /// assert!(group.running().is_empty());
    /// ```
    #[track_caller]
    #[must_use = "a dropped group aborts its tasks"]
    pub fn new() -> Self {
        Self::reports()
    }

    /// Makes a group of this name, which the caller has checked.
    #[track_caller]
    pub(crate) fn named(name: &str) -> Self {
        Self::from_plan(Plan {
            path: Some(name.into()),
            ..Plan::new(view_report, Location::caller())
        })
    }

    /// Returns a builder with the default options of a group.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl<E: Error + Send + 'static> TaskGroup<E> {
    /// Makes a group of tasks with errors of one type, and returns those errors unchanged.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::ParseIntError;
    /// use taskgroup::TaskGroup;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut group = TaskGroup::<ParseIntError>::typed();
    /// group.spawn(async { "x".parse::<u16>() });
    /// let error: ParseIntError = group.wait().await.unwrap_err().into_error().unwrap();
    /// # });
    /// ```
    #[track_caller]
    #[must_use = "a dropped group aborts its tasks"]
    pub fn typed() -> Self {
        Self::from_plan(Plan::new(view_error, Location::caller()))
    }
}

impl<E: AsRef<dyn Error + Send + Sync> + Send + 'static> TaskGroup<E> {
    /// Makes a group of tasks with errors of a report type, such as `anyhow::Error` or `eyre::Report`.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut group = TaskGroup::<anyhow::Error>::reports();
    /// group.spawn(async { anyhow::bail!("no quorum"); Ok(()) });
    /// let error = group.wait().await.unwrap_err();
    /// assert!(format!("{error:#}").ends_with("failed: no quorum"));
    /// # });
    /// ```
    #[track_caller]
    #[must_use = "a dropped group aborts its tasks"]
    pub fn reports() -> Self {
        Self::from_plan(Plan::new(view_report, Location::caller()))
    }
}

impl Builder {
    /// Builds a group of tasks with boxed errors, so that `?` takes any error.
    ///
    /// # Errors
    ///
    /// Returns an error for a limit of zero, for an empty name, or for [`isolated`](Self::isolated) on
    /// a group without a parent group.
    ///
    /// # Panics
    ///
    /// Panics if a deadline or a grace is set outside a Tokio runtime with timers enabled.
    #[track_caller]
    pub fn build(&self) -> Result<TaskGroup, BuildError> {
        self.build_reports()
    }

    /// Builds a group of tasks with errors of one type.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    ///
    /// # Panics
    ///
    /// As [`build`](Self::build).
    #[track_caller]
    pub fn build_typed<E>(&self) -> Result<TaskGroup<E>, BuildError>
    where
        E: Error + Send + 'static,
    {
        self.build_with(view_error, Location::caller())
    }

    /// Builds a group of tasks with errors of a report type, such as `anyhow::Error` or `eyre::Report`.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    ///
    /// # Panics
    ///
    /// As [`build`](Self::build).
    #[track_caller]
    pub fn build_reports<E>(&self) -> Result<TaskGroup<E>, BuildError>
    where
        E: AsRef<dyn Error + Send + Sync> + Send + 'static,
    {
        self.build_with(view_report, Location::caller())
    }

    #[track_caller]
    fn build_with<E: Send + 'static>(
        &self,
        view: View<E>,
        place: &'static Location<'static>,
    ) -> Result<TaskGroup<E>, BuildError> {
        let plan = self.plan(view, place)?;
        Ok(self.start_clocks(TaskGroup::from_plan(plan)))
    }

    #[track_caller]
    pub(super) fn build_below<E: Send + 'static>(
        &self,
        above: &Hub<E>,
        place: &'static Location<'static>,
    ) -> Result<TaskGroup<E>, BuildError> {
        let plan = self.plan_below(&above.shared, place)?;
        Ok(self.start_clocks(TaskGroup::from_hub(above.child(plan))))
    }

    #[track_caller]
    fn start_clocks<E: Send + 'static>(&self, group: TaskGroup<E>) -> TaskGroup<E> {
        let (deadline, grace) = self.clocks();
        if let Some(deadline) = deadline {
            if deadline.is_zero() {
                group.hub.pass_deadline(deadline);
            } else {
                group.attach(Box::new(crate::group::engine::clock::start_deadline(
                    &group.hub, deadline,
                )));
            }
        }
        if let Some(grace) = grace {
            group.attach(Box::new(crate::group::engine::clock::start_grace(
                &group.hub, grace,
            )));
        }
        group
    }
}

impl<E: Send + 'static> TaskGroup<E> {
    /// Spawns a task into the group.
    ///
    /// Never blocks, and never fails because the group is busy. The task is a member before it starts,
    /// and stays one even if the handle is dropped. The task is identified by the place of this call.
    ///
    /// - If the task returns an error or panics, the group fails. `Ok` has no effect on the group.
    /// - With a [limit](Builder::limit), a task that finds no free slot waits for one, first come,
    ///   first served. This call takes its place in the queue. A waiting task uses the memory of a
    ///   task, which [`spawn_when_ready`](Self::spawn_when_ready) avoids. Once the group is cancelled,
    ///   a task that waits for a slot never starts.
    /// - In a cancelled group the task starts with the token fired, and the group waits for it, because
    ///   work that is being finished may need helpers.
    /// - In a [closed](Self::close) group the future is dropped without being polled, and the handle
    ///   resolves to [`End::Skipped`](crate::End::Skipped).
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime. The panic names the line of this call, and does not fail the
    /// group.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut group = TaskGroup::new();
    /// let sum = group.spawn(async { Ok(1 + 1) });
    /// group.spawn(async { Err::<(), _>("disk full".into()) });
    /// assert_eq!(sum.await, Ok(2));
    /// assert!(group.wait().await.is_err());
    /// # });
    /// ```
    #[track_caller]
    pub fn spawn<F>(&self, task: F) -> TaskHandle<F::Value>
    where
        F: IntoTask<E, Task: Send + 'static>,
        F::Value: Send + 'static,
    {
        self.hub
            .spawn(Origin::unnamed(Location::caller()), task.into_task(Inside))
    }

    /// Spawns a task unless it would have to wait for a slot.
    ///
    /// It never overtakes. While other tasks wait for a slot, it is refused.
    ///
    /// # Errors
    ///
    /// Returns an error if all slots are taken or the group is closed. The error gives the future back,
    /// never polled.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime.
    ///
    /// # Examples
    ///
    /// See [`SpawnError`].
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

    /// Waits for a slot, then spawns a task. The caller is held back, so memory stays bounded.
    ///
    /// Without a limit this is [`try_spawn`](Self::try_spawn). Callers wait in one queue with the tasks
    /// of [`spawn`](Self::spawn). A caller takes its place in the queue when the returned future is
    /// first polled.
    ///
    /// A task of the group may call it too, and keeps its own slot while it waits. If every slot is
    /// held by a task that waits here, no slot can become free. The last task to begin its wait is then
    /// refused at once, and with a limit of 1 that is the first one. Other deadlocks are not detected.
    /// For example, a task that awaits the [handle](TaskHandle) of a task that waits for its slot waits
    /// forever.
    ///
    /// # Errors
    ///
    /// - The group is closed, now or while the caller waits.
    /// - The group is cancelled while the caller waits.
    /// - The caller would wait for itself ([`is_deadlock`](SpawnError::is_deadlock)).
    ///
    /// The error gives the future back, never polled.
    ///
    /// # Panics
    ///
    /// The future panics if it is polled outside a Tokio runtime. The message names the line of this
    /// call.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future drops the task's future too, and the task is not spawned.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut group = TaskGroup::builder().limit(8).build()?;
    /// for page in 0..1000 {
    ///     // Never more than eight tasks in memory.
    ///     group.spawn_when_ready(async move { Ok(page) }).await?;
    /// }
    /// group.wait().await?;
    /// # Ok::<_, taskgroup::BoxError>(())
    /// # }).unwrap();
    /// ```
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

    /// Runs a closure on a thread for blocking work, as a member of the group.
    ///
    /// The closure gets the group's token, which it should check. A thread cannot be aborted, so `wait`
    /// waits for the closure, and [`shutdown`](Self::shutdown) names a closure that does not end. A
    /// closure that has not started when the group is aborted never starts.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut group = TaskGroup::new();
    /// let sum = group.spawn_blocking(|token| {
    ///     Ok((0..1000u32).take_while(|_| !token.is_cancelled()).sum::<u32>())
    /// });
    /// assert_eq!(sum.await, Ok(499_500));
    /// assert!(group.wait().await.is_ok());
    /// # });
    /// ```
    #[track_caller]
    pub fn spawn_blocking<F, T>(&self, closure: F) -> TaskHandle<T>
    where
        F: FnOnce(&CancellationToken) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        self.hub
            .spawn_blocking(Origin::unnamed(Location::caller()), closure)
    }

    /// Spawns a task that is not `Send` on the current [`LocalSet`](tokio::task::LocalSet).
    ///
    /// Otherwise as [`spawn`](Self::spawn).
    ///
    /// # Panics
    ///
    /// Panics outside a `LocalSet`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::rc::Rc;
    /// use taskgroup::TaskGroup;
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// # tokio::task::LocalSet::new().block_on(&runtime, async {
    /// let mut group = TaskGroup::new();
    /// let name = Rc::new("local");
    /// group.spawn_local(async move { Ok(assert_eq!(*name, "local")) });
    /// assert!(group.wait().await.is_ok());
    /// # });
    /// ```
    #[track_caller]
    pub fn spawn_local<F>(&self, task: F) -> TaskHandle<F::Value>
    where
        F: IntoTask<E, Task: 'static>,
        F::Value: 'static,
    {
        self.hub
            .spawn_local(Origin::unnamed(Location::caller()), task.into_task(Inside))
    }

    /// Waits until every task has ended, then closes the group and returns its first failure.
    ///
    /// When it returns, each task's future has been dropped and no task of the group, or of a group
    /// below it, is running. It also waits for tasks that are spawned during the wait. A spawn that
    /// races with the end is either waited for or refused. `wait` does not cancel the group. If the
    /// tasks run until they are told to stop, it waits until somebody cancels the group.
    ///
    /// It waits for a cancelled group until all tasks have ended, however long that takes. With a
    /// [grace](Builder::grace) the group is then forced, and tasks that could not be ended are named as
    /// [`still_running`](TaskError::still_running).
    ///
    /// A call after it has returned returns `Ok` at once, because the error has already been handed
    /// over. [`cause`](Self::cause) still shows why the group was cancelled.
    ///
    /// # Errors
    ///
    /// Returns the first failure, with the later ones as [`suppressed`](TaskError::suppressed). If the
    /// group was cancelled by a call or a signal and its tasks ended well, it returns `Ok`. A group
    /// that had to be forced never returns `Ok`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing. The group stays open, and `wait` can be called again.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::TaskGroup;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
    /// let mut group = TaskGroup::new();
    /// let token = group.token().clone();
    /// group.spawn(async move { Ok(token.cancelled().await) });
    ///
    /// let waited = tokio::time::timeout(Duration::from_secs(1), group.wait()).await;
    /// assert!(waited.is_err());
    /// group.cancel();
    /// assert!(group.wait().await.is_ok());
    /// # });
    /// ```
    pub async fn wait(&mut self) -> Result<(), TaskError<E>> {
        match self.hub.shared.given_up().cloned() {
            None => self.alone().await,
            Some(given_up) => {
                if given_up.run_until_cancelled(self.alone()).await.is_none() {
                    return self.leave_behind();
                }
            }
        }
        self.finish()
    }

    /// Cancels the group, waits at most `grace`, then aborts the remaining tasks and joins them.
    ///
    /// An aborted task is dropped at its next poll. Tasks that are still there a second after the abort
    /// are named as [`still_running`](TaskError::still_running). Examples are a closure on a thread and
    /// a task that blocks its thread. So `shutdown` returns within `grace` and a second, whatever the
    /// tasks do, as long as the runtime's timers work. The group is closed when `grace` is over, so
    /// spawns during the abort are refused.
    ///
    /// `grace` may be anything from zero, which aborts at once, to [`Duration::MAX`]. A slow stop logs
    /// the remaining tasks at INFO, after 5 s and then every 10 s.
    ///
    /// # Errors
    ///
    /// Returns the first failure, as [`wait`](Self::wait) does. A forced stop is never `Ok`. Without
    /// another failure it is [`End::TimedOut`](crate::End::TimedOut), and in any case the error names
    /// the [`stragglers`](TaskError::stragglers). Only the caller of this shutdown gets the error, even
    /// while somebody waits for a group above.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime with timers enabled. The group is cancelled first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the group cancelled. If the grace was over, the group is closed as
    /// well, its tasks are aborted, and the next `wait` or `shutdown` returns the error. A second call
    /// starts with a fresh grace.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::TaskGroup;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
    /// let mut group = TaskGroup::new();
    /// group.task("deaf").spawn(std::future::pending::<Result<(), _>>());
    ///
    /// let error = group.shutdown(Duration::from_secs(5)).await.unwrap_err();
    /// assert!(error.is_timed_out());
    /// assert_eq!(error.stragglers().iter().next().unwrap().name(), Some("deaf"));
    /// assert!(error.still_running().is_empty());
    /// # });
    /// ```
    pub async fn shutdown(&mut self, grace: Duration) -> Result<(), TaskError<E>> {
        self.cancel();
        // A time beyond the clock's range sets no limit.
        let deadline = Instant::now().checked_add(grace);
        if self.alone_by(deadline).await {
            return self.finish();
        }
        self.force(|stragglers| TimedOut::grace(grace, stragglers));
        if timeout(CONFIRMATION, self.alone()).await.is_ok() {
            return self.finish();
        }
        self.give_up()
    }

    /// Closes the group and aborts the remaining tasks, which makes the shutdown a failure.
    fn force(&self, timed_out: impl FnOnce(Running) -> TimedOut) {
        let Some(failure) = self.hub.force(timed_out) else {
            return;
        };
        let shared = &self.hub.shared;
        shared.set_forced(shared.failure_of_group(failure));
    }

    /// Cancels the group and aborts its tasks, and those of the groups below it, without waiting.
    ///
    /// The runtime drops each task as soon as it can. Closures on threads keep running, and
    /// [`wait`](Self::wait) joins them. Later spawns are refused.
    ///
    /// This is a forced stop, so `wait` does not return `Ok` if anything was running. Without another
    /// failure its error [is timed out](TaskError::is_timed_out), and names the aborted tasks as
    /// [`stragglers`](TaskError::stragglers). To end one task without a failure, use
    /// [`TaskHandle::abort`].
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut group = TaskGroup::new();
    /// group.task("deaf").spawn(std::future::pending::<Result<(), _>>());
    /// group.abort();
    /// let error = group.wait().await.unwrap_err();
    /// assert!(error.to_string().contains("was aborted with 1 task: `deaf`"));
    /// # });
    /// ```
    pub fn abort(&self) {
        self.cancel();
        self.force(TimedOut::aborted);
    }

    /// Leaves a group whose grace is over, although some tasks cannot be confirmed dead.
    fn leave_behind(&mut self) -> Result<(), TaskError<E>> {
        if self.hub.shared.latch.shares() <= 1 {
            return self.finish();
        }
        self.give_up()?;
        // An earlier wait has handed over its failures, but this is still not `Ok`.
        self.force(TimedOut::aborted);
        self.give_up()
    }

    /// Stops waiting for tasks that cannot be confirmed dead, and names them.
    fn give_up(&mut self) -> Result<(), TaskError<E>> {
        self.close();
        let still_running = self.running();
        let mut outcome = self.take_outcome();
        if let Err(error) = &mut outcome {
            error.set_still_running(still_running);
        }
        outcome
    }

    /// Waits until the owner is alone or the deadline is over, and sometimes logs which tasks are left.
    async fn alone_by(&self, deadline: Option<Instant>) -> bool {
        let mut say = Instant::now() + LONG;
        loop {
            let until = deadline.map_or(say, |deadline| deadline.min(say));
            if timeout_at(until, self.alone()).await.is_ok() {
                return true;
            }
            let now = Instant::now();
            let left = deadline.map_or(Duration::MAX, |deadline| deadline - now);
            if left.is_zero() {
                return false;
            }
            // A group with a grace logs this itself.
            if self.hub.shared.given_up().is_none() {
                self.hub.shared.log_waiting(&self.running(), left);
            }
            say = now + THEN;
        }
    }

    async fn alone(&self) {
        if !self.over {
            self.hub.shared.latch.alone().await;
        }
    }

    /// Ends the group after its owner was found alone.
    fn finish(&mut self) -> Result<(), TaskError<E>> {
        self.over = true;
        // The group is closed. This wakes callers queued behind one that was given a slot but never
        // took it.
        self.hub.shared.slots.close();
        self.take_outcome()
    }

    fn take_outcome(&mut self) -> Result<(), TaskError<E>> {
        self.hub.shared.detach();
        // A failure always cancels. Checked first, because reading the cause copies it.
        if !self.is_cancelled() {
            return Ok(());
        }
        let Some(cause) = self.cause() else {
            return Ok(());
        };
        let mut failures = self.hub.take_failures();
        failures.extend(self.hub.shared.take_forced());
        let failure = first_of(failures);
        self.hub.shared.log_end(&cause, failure.is_none());
        match failure {
            Some(mut error) => {
                error.set_cause(cause);
                Err(error)
            }
            None => Ok(()),
        }
    }

    /// Makes a child group with all options of a group.
    ///
    /// The same rules as for [`child`](Self::child) apply, which sets only the name. A child without a
    /// name has the path of this group.
    ///
    /// # Errors
    ///
    /// Returns an error for a limit of zero, for an empty name, or for a [token](Builder::parent),
    /// which would be a second parent.
    ///
    /// # Panics
    ///
    /// Panics if a deadline or a grace is set outside a Tokio runtime with timers enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut group = TaskGroup::builder().name("orders").build()?;
    /// let options = TaskGroup::builder().name("mails").limit(8).isolated();
    /// let mut mails = group.child_with(&options)?;
    /// mails.task("welcome").spawn(async { Err::<(), _>("no such host".into()) });
    ///
    /// assert_eq!(mails.wait().await.unwrap_err().name(), Some("orders/mails/welcome"));
    /// assert!(!group.is_cancelled());
    /// group.wait().await?;
    /// # Ok::<_, taskgroup::BoxError>(())
    /// # }).unwrap();
    /// ```
    #[track_caller]
    pub fn child_with(&self, options: &Builder) -> Result<Self, BuildError> {
        options.build_below(&self.hub, Location::caller())
    }
}

impl<E: Send + 'static> TaskGroup<E> {
    #[inline(always)]
    fn from_plan(plan: Plan<E>) -> Self {
        let hub = Arc::new(Hub::new(Shared::new(plan)));
        #[cfg(feature = "test-util")]
        census::enter(&hub);
        Self::from_hub(hub)
    }
}

impl<E> TaskGroup<E> {
    #[inline]
    pub(super) fn from_hub(hub: Arc<Hub<E>>) -> Self {
        hub.shared.own_above();
        Self { hub, over: false }
    }

    /// Returns the name of the group, as a path such as `orders/http` if it is a child.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.hub.shared.path().map(|path| &**path)
    }

    /// Returns the token that fires when the group is cancelled, for any cause.
    ///
    /// It is an ordinary [`CancellationToken`] that you can clone into tasks, derive child tokens from,
    /// or pass to libraries. Cancelling it directly cancels the group, with the cause [`Cause::Token`].
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    ///
    /// let group = TaskGroup::new();
    /// let token = group.token().clone();
    /// drop(group);
    /// assert!(token.is_cancelled());
    /// ```
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        self.hub.shared.token()
    }

    /// Returns a handle for spawning into the group from elsewhere.
    #[must_use]
    pub fn spawner(&self) -> Spawner<E> {
        Spawner::new(Arc::clone(&self.hub))
    }

    /// Names a task that is about to be spawned.
    ///
    /// [`running`](Self::running) lists a named task on its own, with its age. A name costs two more
    /// allocations than a task without one.
    ///
    /// # Examples
    ///
    /// See [`Task`].
    pub fn task(&self, name: impl Into<Cow<'static, str>>) -> Task<'_, E> {
        Task::new(&self.hub, name.into())
    }

    /// Makes a child group with a name only. [`child_with`](Self::child_with) also takes options.
    ///
    /// - Cancelling flows down. The child's token is a child of this group's token, and the child shows
    ///   this group's [`cause`](Self::cause). Cancelling the child does not cancel this group.
    /// - Completion flows up. A task of the child is a member of this group too, so `wait` waits for
    ///   it. When `wait` has returned, the child is closed as well.
    /// - Failures flow up. A failure in the child cancels this group at once. The first `wait` that
    ///   ends, on the child or on this group, returns the error itself.
    /// - Aborting flows down. When a shutdown of this group runs out of time, or the group is dropped,
    ///   the child's tasks are aborted too. When a shutdown of the child alone runs out of time, only
    ///   its caller gets the error.
    /// - Names become paths such as `orders/http/accept`.
    /// - A child that never had a task of its own is only a path. When its owner is dropped, the groups
    ///   below it go on as children of this group. So `group.child("http").child("v2")` works.
    ///
    /// A child of a closed group starts out closed and cancelled. To keep a child's failures out of
    /// this group, use [`Builder::isolated`].
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut group = TaskGroup::builder().name("orders").build()?;
    /// let http = group.child("http");
    /// http.task("accept").spawn(async { Err::<(), _>("no descriptors".into()) });
    /// let error = group.wait().await.unwrap_err();
    /// assert!(error.to_string().contains("task `orders/http/accept`"));
    /// # Ok::<_, taskgroup::BoxError>(())
    /// # }).unwrap();
    /// ```
    #[track_caller]
    #[must_use = "a dropped group aborts its tasks"]
    pub fn child(&self, name: impl AsRef<str>) -> Self {
        let plan = self.hub.plan_below(name.as_ref(), Location::caller());
        Self::from_hub(self.hub.child(plan))
    }

    /// Cancels the group. Its token fires, and its tasks are expected to end by themselves.
    ///
    /// Cancelling is not a failure, so `wait` returns `Ok` if the tasks end well. A second call does
    /// nothing, because the first cause wins.
    pub fn cancel(&self) {
        self.hub
            .shared
            .cancel(Cause::Requested(StopRequest::default()));
    }

    /// Cancels the group as [`cancel`](Self::cancel) does, and says why.
    ///
    /// # Examples
    ///
    /// See [`Cause`].
    pub fn cancel_because(&self, reason: impl Into<StopRequest>) {
        let cause = Cause::Requested(reason.into());
        self.hub.shared.cancel(cause);
    }

    /// Returns whether the group was cancelled, for any cause.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.hub.shared.is_cancelled()
    }

    /// Returns why the group was cancelled, or `None` if it was not.
    ///
    /// The first cause wins. A group cancelled through its parent shows the parent's cause.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.hub.shared.cause()
    }

    /// Closes the group and the groups below it, so that later spawns are refused.
    ///
    /// Running tasks are not affected, and tasks that wait for a slot get theirs. A caller that waits
    /// in [`spawn_when_ready`](Self::spawn_when_ready) wakes and is refused.
    ///
    /// A closed group cannot be reopened. A second call does nothing.
    pub fn close(&self) {
        self.hub.close();
    }

    /// Returns whether this group or a group above it is closed, so that it refuses new tasks.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.hub.shared.is_closed()
    }

    /// Returns the live tasks of this group and of the groups below it.
    ///
    /// Named tasks are listed one by one. The others are counted by their place of spawn, which costs
    /// them nothing. The list includes tasks that wait for a slot and tasks stuck in their first poll.
    /// It may be called from any thread at any time.
    ///
    /// # Examples
    ///
    /// See [`Running`].
    #[must_use]
    pub fn running(&self) -> Running {
        self.hub.running()
    }

    /// Takes the first failure not yet handed to a caller, without waiting.
    pub(crate) fn take_failure(&self) -> Option<TaskError<E>> {
        first_of(self.hub.take_failures())
    }

    /// Keeps `listener` until the group's wait has returned or the group is dropped.
    pub(crate) fn attach(&self, listener: Box<dyn Send>) {
        if !self.over {
            self.hub.shared.attach(listener);
        }
    }
}

impl Default for TaskGroup {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

/// After the drop, the runtime drops each task at once. Only closures on threads keep running.
impl<E> Drop for TaskGroup<E> {
    fn drop(&mut self) {
        let shared = &self.hub.shared;
        let is_path = !self.over && !shared.is_cancelled() && !self.hub.has_spawned_itself();
        if is_path && shared.stay_as_path() {
            return;
        }
        // In a group that is over, only the holder of a token or a spawner could see the cancel.
        if !self.over || shared.has_token() || Arc::strong_count(&self.hub) > 1 {
            shared.cancel(Cause::Dropped);
        }
        if !self.over {
            self.hub.close();
            if shared.latch.shares() > 1 {
                self.hub.abort();
            }
            // Orphan first, because the group above forgets a group without an owner and members.
            shared.orphan();
            shared.latch.leave();
        }
        shared.disown_above();
        shared.detach();
    }
}

impl<E> fmt::Debug for TaskGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskGroup").field(&self.hub).finish()
    }
}

fn view_error<E: Error + 'static>(error: &E) -> &(dyn Error + 'static) {
    error
}

fn view_report<E>(report: &E) -> &(dyn Error + 'static)
where
    E: AsRef<dyn Error + Send + Sync>,
{
    report.as_ref()
}
