//! [`TaskGroup`]: tasks that share one token and one fate.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::BoxError;
use crate::cause::Cause;
use crate::error::{Failure, TaskError, TimedOut};
use crate::running::Running;
use crate::stop_request::StopRequest;

mod sync;
mod latch;
mod wakers;
mod record;
mod slots;
mod aborts;
mod shared;
mod origin;
mod seat;
mod spawn_error;
mod value;
mod handle;
mod member;
mod hub;
mod task;
mod isolated;
mod spawner;
mod builder;
mod below;

pub use self::builder::{BuildError, Builder};
pub use self::handle::{JoinError, TaskHandle};
pub use self::isolated::IsolatedTask;
pub use self::spawn_error::SpawnError;
pub use self::spawner::Spawner;
pub use self::task::Task;

use self::hub::{Hub, as_it_is};
use self::origin::Origin;
use self::record::{Recorded, first_of};
use self::shared::{Plan, Shared};
use self::sync::Lock;
use crate::error::View;
use crate::time::{CONFIRMATION, LONG, THEN};

/// Tasks that share one token and one fate: the first failure cancels them all, and none outlives
/// the group.
///
/// Whatever happens:
///
/// - [`wait`](Self::wait) returns when every task has ended and its future has been dropped, and
///   returns the first failure: an error as the task gave it, or a panic.
/// - The failure is recorded, then the [`token`](Self::token) fires: whoever sees it can read the
///   [`cause`](Self::cause).
/// - Dropping the group cancels it and aborts its tasks, without blocking. Only closures on threads
///   of their own run on, as nothing can end those.
///
/// Spawning goes through `&self`, and through a [`Spawner`] from anywhere, while the group is being
/// waited for too. A finished task costs no memory.
///
/// The idea is Go's `errgroup`, the rules of leaving are those of Trio's nurseries.
///
/// # Comparison to `JoinSet` and `TaskTracker`
///
/// A [`JoinSet`](tokio::task::JoinSet) hands you each task's result as it ends, in a loop of your
/// own: use it when every result is looked at. A `TaskTracker` of `tokio-util` waits for tasks and
/// knows nothing of errors: use it when tasks cannot fail. A group is for tasks that belong
/// together.
///
/// # Errors
///
/// The output of a task is a `Result<T, E>`. [`TaskGroup::new`] takes any error, boxed;
/// [`TaskGroup::typed`] an error type of yours, [`TaskGroup::reports`] a report type such as
/// `anyhow::Error`.
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
/// assert!(error.to_string().ends_with("failed: invalid digit found in string"));
/// # });
/// ```
pub struct TaskGroup<E = BoxError> {
    hub: Arc<Hub<E>>,
    /// Whether the owner's share of the latch has been given back.
    over: bool,
    /// A forced stop, for the one who asked for the stop: whoever waits for a group above is not told.
    forced: Lock<Option<Recorded<E>>>,
    /// What listens for the group, and ends with it.
    attached: Lock<Vec<Box<dyn Send>>>,
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

    /// Makes a group of this name, which whoever asked for it has looked at.
    #[track_caller]
    pub(crate) fn named(name: &str) -> Self {
        Self::from_plan(Plan {
            path: Some(name.into()),
            ..Plan::new(view_report, Location::caller())
        })
    }

    /// Returns the options of a group, to be built into one.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl<E: Error + Send + 'static> TaskGroup<E> {
    /// Makes a group of tasks with errors of one type, which comes back as it was given.
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
    /// Makes a group of tasks with errors of a report type: `anyhow::Error`, `eyre::Report`.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::TaskGroup;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut group = TaskGroup::<anyhow::Error>::reports();
    /// group.spawn(async { anyhow::bail!("no quorum"); Ok(()) });
    /// assert!(group.wait().await.unwrap_err().to_string().ends_with("failed: no quorum"));
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
    /// A limit or a deadline of zero, or an empty name.
    ///
    /// # Panics
    ///
    /// With a deadline, outside of a Tokio runtime whose timers are enabled.
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

    /// Builds a group of tasks with errors of a report type: `anyhow::Error`, `eyre::Report`.
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
        let (plan, deadline) = self.plan(view, place)?;
        let group = TaskGroup::from_plan(plan);
        if let Some(deadline) = deadline {
            group.cancel_after(deadline);
        }
        Ok(group)
    }
}

impl<E: Send + 'static> TaskGroup<E> {
    /// Spawns a task into the group.
    ///
    /// Never blocks and never fails for being busy. The task is a member before it starts, and stays
    /// one whatever becomes of the handle. It is known by the place of this call.
    ///
    /// - An error or a panic of the task is a failure of the group; `Ok` is no event.
    /// - With a [limit](Builder::limit), a task that finds no free slot waits for one, first come,
    ///   first served. Its place in the queue is taken in this call. It costs the memory of a task
    ///   meanwhile; see [`spawn_when_ready`](Self::spawn_when_ready). Once the group is cancelled, a
    ///   task that waits for a slot never starts.
    /// - In a cancelled group the task starts with the token fired, and is waited for: work that is
    ///   being finished may need helpers.
    /// - In a [closed](Self::close) group the future is dropped, never polled, and the handle
    ///   resolves to [`JoinError::Refused`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime. The panic names the line of this call, and is no failure of the group.
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
    pub fn spawn<F, T>(&self, future: F) -> TaskHandle<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        self.hub.spawn(Origin::unnamed(Location::caller()), future)
    }

    /// Spawns a task unless it would have to wait for a slot.
    ///
    /// It does not overtake: while others wait for a slot, it is refused.
    ///
    /// # Errors
    ///
    /// All slots are taken, or the group is closed. The error gives the future back, never polled.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    ///
    /// # Examples
    ///
    /// See [`SpawnError`].
    #[track_caller]
    pub fn try_spawn<F, T>(&self, future: F) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        self.hub
            .try_spawn(Origin::unnamed(Location::caller()), future, as_it_is)
    }

    /// Waits for a slot, then spawns a task: the caller is held back, so memory stays bounded.
    ///
    /// Without a limit this is [`try_spawn`](Self::try_spawn). Callers wait in one queue with the tasks
    /// of [`spawn`](Self::spawn); a caller's place in it is taken when the returned future is first
    /// polled.
    ///
    /// A task of the group may call it too, and holds its own slot meanwhile. If every slot is held by
    /// a task that waits in here, none can become free: the last one to begin its wait is refused at
    /// once, in a group with a limit of 1 the first. Other circles are not seen. For example, a task
    /// that awaits the [handle](TaskHandle) of a task which waits for its slot waits for ever.
    ///
    /// # Errors
    ///
    /// - The group is closed, now or while the caller waits.
    /// - The group is cancelled while the caller waits.
    /// - The caller would wait for itself: [`is_deadlock`](SpawnError::is_deadlock).
    ///
    /// The error gives the future back, never polled.
    ///
    /// # Panics
    ///
    /// The future panics when it is polled outside of a Tokio runtime; the message names the line of this
    /// call.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future drops the task's future too; nothing has been spawned.
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
    /// The closure gets the group's token to look at. A thread cannot be aborted: `wait` waits for
    /// the closure, and [`shutdown`](Self::shutdown) names one that does not end. One that has not
    /// started when the group is aborted never starts.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
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
    /// Outside of a `LocalSet`.
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
    pub fn spawn_local<F, T>(&self, future: F) -> TaskHandle<T>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        self.hub
            .spawn_local(Origin::unnamed(Location::caller()), future)
    }

    /// Waits until every task has ended, then closes the group and returns its first failure.
    ///
    /// When it returns, each task's future has been dropped and no task of the group, or of a group
    /// below it, is running. Tasks spawned meanwhile, by tasks too, are waited for; a spawn that
    /// races with the end is either waited for or refused. It does not cancel: a group whose tasks
    /// run until they are told to stop is waited for until somebody tells them.
    ///
    /// A call after it has returned returns `Ok` at once: the error has been handed over. The
    /// [`cause`](Self::cause) still tells.
    ///
    /// # Errors
    ///
    /// The first failure, with the later ones as [`suppressed`](TaskError::suppressed). A group
    /// that was cancelled by hand or by a signal and whose tasks ended well is `Ok`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing; the group stays open, and `wait` can be called again.
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
        self.alone().await;
        self.finish()
    }

    /// Cancels, waits at most `grace`, then aborts what is left and joins it.
    ///
    /// An aborted task is dropped at its next poll. What is not gone a second after the abort is
    /// named as [`still_running`](TaskError::still_running): a closure on a thread, a task that
    /// blocks its thread. So it returns within `grace` and a second, whatever the tasks do, as long
    /// as the runtime's timers work. The group is closed when `grace` is over: what is spawned during
    /// the abort is refused.
    ///
    /// `grace` may be anything from zero, which aborts at once, to [`Duration::MAX`]. A stop that takes long says
    /// at INFO who is waited for, after 5 s and then every 10 s.
    ///
    /// # Errors
    ///
    /// The first failure, as from [`wait`](Self::wait). A forced stop is never `Ok`: without another
    /// failure it is [`Failure::TimedOut`], and in any case the error names the
    /// [`stragglers`](TaskError::stragglers). It is returned to the caller of this shutdown, also while
    /// a group above is being waited for, and to nobody else.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime whose timers are enabled. The group is cancelled before.
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
        if self.alone_within(grace).await {
            return self.finish();
        }
        self.force(grace);
        if timeout(CONFIRMATION, self.alone()).await.is_ok() {
            return self.finish();
        }
        self.give_up()
    }

    /// Closes the group and aborts what is left, which makes the shutdown a failure.
    ///
    /// Whether anything is left is decided by the latch, in the moment in which it closes. The list is
    /// read at another moment and only describes it.
    fn force(&mut self, grace: Duration) {
        let is_alone = self.hub.shared.latch.close() <= 1;
        self.hub.close();
        let stragglers = self.running();
        self.hub.abort();
        let forced = self.forced.get_mut();
        if !is_alone && forced.is_none() {
            let failure = Failure::TimedOut(TimedOut::grace(grace, stragglers));
            *forced = Some(self.hub.shared.failure_of_group(failure));
        }
    }

    /// Leaves without those that cannot be confirmed dead, and names them.
    fn give_up(&mut self) -> Result<(), TaskError<E>> {
        self.close();
        let still_running = self.running();
        let mut outcome = self.take_outcome();
        if let Err(error) = &mut outcome {
            error.set_still_running(still_running);
        }
        outcome
    }

    /// Waits until the owner is alone, or until `grace` is over, and says now and then who is waited for.
    async fn alone_within(&self, grace: Duration) -> bool {
        let began = Instant::now();
        let mut next = LONG;
        loop {
            let left = grace.saturating_sub(began.elapsed());
            if timeout(left.min(next), self.alone()).await.is_ok() {
                return true;
            }
            let left = grace.saturating_sub(began.elapsed());
            if left.is_zero() {
                return false;
            }
            self.hub.shared.log_waiting(&self.running(), left);
            next = THEN;
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
        self.take_outcome()
    }

    fn take_outcome(&mut self) -> Result<(), TaskError<E>> {
        self.attached.get_mut().clear();
        // No failure without a cancel.
        let Some(cause) = self.cause() else {
            return Ok(());
        };
        let mut failures = self.hub.take_failures();
        failures.extend(self.forced.get_mut().take());
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

    /// Cancels the group, and makes it a failure if tasks are running, after `deadline` from now.
    #[track_caller]
    fn cancel_after(&self, deadline: Duration) {
        let hub = Arc::downgrade(&self.hub);
        // Made here: where there are no timers the caller panics, not a task that nobody looks at.
        let over = tokio::time::sleep(deadline);
        let task = tokio::spawn(async move {
            over.await;
            let Some(hub) = hub.upgrade() else { return };
            let running = hub.running();
            let cause = Cause::Deadline(deadline);
            // As in a forced stop, the latch decides and the list describes.
            if hub.shared.latch.shares() <= 1 {
                hub.shared.trigger(&cause);
                return;
            }
            let failure = Failure::TimedOut(TimedOut::deadline(deadline, running));
            if hub.shared.fail_group(cause.clone(), failure) {
                hub.shared.log_trigger(&cause, "stopping");
            }
        });
        self.attach(Box::new(AbortOnDrop::new(&task)));
    }
}

impl<E> TaskGroup<E> {
    fn from_plan(plan: Plan<E>) -> Self {
        Self::from_hub(Arc::new(Hub::new(Shared::new(plan))))
    }

    fn from_hub(hub: Arc<Hub<E>>) -> Self {
        Self {
            hub,
            over: false,
            forced: Lock::default(),
            attached: Lock::default(),
        }
    }

    /// Returns the name of the group, as a path such as `orders/http` if it is a child.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.hub.shared.path().map(|path| &**path)
    }

    /// Returns the token that fires when the group is cancelled, for whatever cause.
    ///
    /// It is an ordinary [`CancellationToken`]: clone it into tasks, make child tokens, hand it to
    /// libraries. Cancelling it directly cancels the group, with the cause [`Cause::Token`].
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
    /// A named task is listed by [`running`](Self::running) on its own, with its age. It costs two
    /// allocations more than a task without a name.
    ///
    /// # Examples
    ///
    /// See [`Task`].
    pub fn task(&self, name: impl Into<Cow<'static, str>>) -> Task<'_, E> {
        Task::new(&self.hub, name.into())
    }

    /// Makes a group below this one.
    ///
    /// - Cancelling flows down: the child's token is a child of this group's, and its
    ///   [`cause`](Self::cause) reads through. Cancelling the child leaves this group alone.
    /// - Completion flows up: a task of the child is a member of this group too, so `wait` waits for
    ///   it. When that has returned, the child is closed as well.
    /// - Failures flow up: a failure in the child cancels this group at once. The error itself goes
    ///   to whoever waits first, for the child or for this group.
    /// - Aborting flows down: a shutdown of this group that runs out of time, or its drop, aborts
    ///   the child's tasks too. A shutdown of the child alone that runs out of time is told to its
    ///   caller alone.
    /// - Names become paths: `orders/http/accept`.
    ///
    /// In a closed group the child is born closed and cancelled. For a part whose failures are to stay
    /// its own, run a group in a task of this one, with this group's token as its
    /// [parent](Builder::parent).
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
        Self::from_hub(self.hub.child(name.as_ref(), Location::caller()))
    }

    /// Cancels the group: its token fires, and its tasks are expected to end by themselves.
    ///
    /// That is no failure: `wait` returns `Ok` if the tasks end well. A second call does nothing, as
    /// the first cause wins.
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

    /// Returns whether the group was cancelled, for whatever cause.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.hub.shared.is_cancelled()
    }

    /// Returns why the group was cancelled; `None` if it was not.
    ///
    /// The first cause wins. A group cancelled through its parent shows the parent's cause.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.hub.shared.cause()
    }

    /// Closes the group and the groups below it: from now on spawning is refused.
    ///
    /// Tasks that run are not touched, and tasks that wait for a slot get theirs. A caller that waits
    /// in [`spawn_when_ready`](Self::spawn_when_ready) wakes and is refused.
    ///
    /// There is no way back; a second call does nothing.
    pub fn close(&self) {
        self.hub.close();
    }

    /// Returns whether the group takes no more tasks: it is closed, or a group above it is.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.hub.shared.is_closed()
    }

    /// Returns who is alive in this group and in the groups below it.
    ///
    /// Named tasks are listed one by one; the others by their place of spawn, with a count, which
    /// costs them nothing. Tasks that wait for a slot are in the list, and so are tasks stuck in
    /// their first poll. It may be called from any thread at any time.
    ///
    /// # Examples
    ///
    /// See [`Running`].
    #[must_use]
    pub fn running(&self) -> Running {
        self.hub.running()
    }

    /// Takes the first failure that nobody has been told of, without waiting for anything.
    pub(crate) fn take_failure(&self) -> Option<TaskError<E>> {
        first_of(self.hub.take_failures())
    }

    /// Keeps something until the group's wait has returned or the group is dropped.
    pub(crate) fn attach(&self, listener: Box<dyn Send>) {
        if !self.over {
            self.attached.lock().push(listener);
        }
    }
}

impl Default for TaskGroup {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

/// Afterwards tasks run on only until their runtime drops them, which it does at once, unless they
/// are closures on threads.
impl<E> Drop for TaskGroup<E> {
    fn drop(&mut self) {
        let shared = &self.hub.shared;
        shared.cancel(Cause::Dropped);
        if self.over {
            return;
        }
        shared.latch.close();
        if shared.latch.shares() > 1 {
            self.hub.abort();
        }
        // In this order: a group whose owner and members are gone is forgotten by the one above it.
        shared.orphan();
        shared.latch.leave();
    }
}

impl<E> fmt::Debug for TaskGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskGroup").field(&self.hub).finish()
    }
}

/// What listens for a group on the runtime.
pub(crate) struct AbortOnDrop(AbortHandle);

impl AbortOnDrop {
    pub(crate) fn new<T>(task: &JoinHandle<T>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
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
