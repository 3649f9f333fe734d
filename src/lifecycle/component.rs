//! [`Component`]: a part of a service that is started and stopped.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use super::context::Context;
use super::plan::{Kind, Node, Plan};
use super::plan_error::PlanError;
use crate::BoxError;
use crate::group::TaskGroup;
use crate::lock::into_inner;
use crate::panic::Panic;
use crate::periodic::{Periodic, PeriodicError, Tick};
use crate::supervise::Supervisor;

/// How long a component may take to be ready, if it says nothing else.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A part of a service that is started and stopped: a server, a worker, a database.
///
/// In its simplest form it is an async closure that gets a [`Context`], says that it is
/// [ready](Context::ready), and runs until its [token](Context::token) fires:
///
/// | it is | made by |
/// |---|---|
/// | something that runs until told to stop | [`new`](Self::new) |
/// | something that is opened and closed, started and stopped | [`resource`](Self::resource) |
/// | something to do before others start | [`job`](Self::job) |
/// | tasks that are started again when they fail | [`supervisor`](Self::supervisor) |
/// | something that is done again and again | [`periodic`](Self::periodic) |
/// | made of components | [`lifecycle`](Self::lifecycle) |
///
/// # The rules
///
/// 1. It is started when all that it comes [`after`](Self::after) are ready, and told to stop when
///    all that come after it have ended, directly or through others. What does not depend on each other starts and stops at the
///    same time.
/// 2. It has its [`start_timeout`](Self::start_timeout) to be ready. If it ends, fails or is late
///    before that, the start has failed: nothing else is started, and what has been started is
///    stopped, in reverse.
/// 3. Once ready it must not end before it was told to, unless it [may](Self::may_end): that is a
///    failure, and so are an error and a panic, of a helper too. The first failure stops the whole.
///    That holds in a lame duck too, in which all is still served; what [drains](Self::drains) may
///    end in the drain.
/// 4. Told to stop, it has its [`grace`](Self::grace), or what the budget has left if that is less.
///    Then it is forced: its tasks are aborted and joined. A forced stop is an error, and names
///    those that were running.
/// 5. It has ended when its future and all tasks of its [group](Context::group) are gone.
///
/// A component that blocks its thread cannot be forced. It is reported as still running, and the
/// [watchdog](super::Lifecycle::watchdog) is what ends the process then.
///
/// # Examples
///
/// See [`Lifecycle`](super::Lifecycle).
#[must_use = "a component does nothing until its lifecycle runs"]
pub struct Component {
    pub(super) name: Cow<'static, str>,
    // What the user gives is `Send` and nothing more; the lock, which is never taken, makes it `Sync`.
    start: Mutex<Start>,
    pub(super) place: &'static Location<'static>,
    pub(super) may_end: bool,
    after: Vec<Cow<'static, str>>,
    phase: Option<Cow<'static, str>>,
    grace: Option<Duration>,
    start_timeout: Duration,
    pub(super) drains: bool,
    kind: Kind,
    pub(super) nested: Option<Result<Plan, PlanError>>,
}

/// What a component does.
pub(super) type Work = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// Makes the future of a component; the code of the user is called in that future only.
type Start = Box<dyn FnOnce(Context, &TaskGroup) -> Work + Send>;

impl Component {
    /// Makes a component that runs until it is told to stop.
    ///
    /// `run` is called when it is started, in a task of its own, and has to call [`Context::ready`].
    ///
    /// # Examples
    ///
    /// See [`Context`].
    #[track_caller]
    pub fn new<F, W>(name: impl Into<Cow<'static, str>>, run: F) -> Self
    where
        F: FnOnce(Context) -> W + Send + 'static,
        W: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let start = |ctx, _: &TaskGroup| -> Work { Box::pin(async move { run(ctx).await }) };
        Self::of(name.into(), Kind::Component, Box::new(start))
    }

    /// Makes a component that is opened, is passive while it is used, and is closed after all that
    /// use it.
    ///
    /// It is ready when `open` has returned. What `open` returned is what `close` gets: a pool, a
    /// connection, the handle of a server that is started by one call and stopped by another. For
    /// those that use it see [`Context::provide`]. If the stop begins before `open` has returned,
    /// `open` is dropped.
    ///
    /// # Examples
    ///
    /// See [`Provided`](super::Provided).
    #[track_caller]
    pub fn resource<O, F, T, C, G>(name: impl Into<Cow<'static, str>>, open: O, close: C) -> Self
    where
        O: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<T, BoxError>> + Send + 'static,
        T: Send + 'static,
        C: FnOnce(T) -> G + Send + 'static,
        G: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let start = |ctx: Context, _: &TaskGroup| -> Work {
            Box::pin(async move {
                let opening = async { open(ctx.clone()).await };
                let Some(opened) = ctx.token().run_until_cancelled(opening).await else {
                    return Ok(());
                };
                let opened = opened?;
                ctx.ready();
                ctx.stopping().await;
                // A destructor that panics is told, after all that is open has been closed.
                let taken_out = Panic::catch(|| ctx.take_out());
                let closed = close(opened).await;
                if let Err(panic) = taken_out {
                    panic.resume();
                }
                closed
            })
        };
        Self::of(name.into(), Kind::Resource, Box::new(start))
    }

    /// Makes a component that is ready when it has ended: a migration, a warm-up.
    ///
    /// If the stop begins before that, its token fires, and it has its grace to end.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::{Component, Lifecycle};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let report = Lifecycle::new("orders")
    ///     .component(Component::job("migrate", |_| async { Err("table `orders` is locked".into()) }))
    ///     .component(Component::new("http", |_| async { unreachable!() }).after(["migrate"]))
    ///     .run()
    ///     .await?;
    /// let error = report.first_error().unwrap();
    /// assert_eq!(
    ///     format!("{error:#}"),
    ///     "component `migrate` did not start: table `orders` is locked"
    /// );
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn job<F, W>(name: impl Into<Cow<'static, str>>, run: F) -> Self
    where
        F: FnOnce(Context) -> W + Send + 'static,
        W: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let start = |ctx, _: &TaskGroup| -> Work { Box::pin(async move { run(ctx).await }) };
        Self::of(name.into(), Kind::Job, Box::new(start)).may_end()
    }

    /// Makes a component of supervised tasks, under the supervisor's name.
    ///
    /// It is ready when they have been started. A supervisor whose children are all done has ended.
    ///
    /// The [grace](Supervisor::grace) of the supervisor is that of each child, and stays as it is:
    /// let that of the component be no less than what all children take together, one after
    /// another, or they are forced.
    #[track_caller]
    pub fn supervisor(supervisor: Supervisor) -> Self {
        let name = supervisor.name().to_owned().into();
        let start = |ctx: Context, group: &TaskGroup| -> Work {
            let supervised = supervisor.run::<BoxError>(group);
            Box::pin(async move {
                let supervised = supervised?;
                ctx.ready();
                supervised.await
            })
        };
        Self::of(name, Kind::Component, Box::new(start))
    }

    /// Makes a component that does `run` again and again, under the name of `periodic`.
    ///
    /// It is ready at once.
    ///
    /// The [grace](Periodic::grace) and the [last run](Periodic::last_run) of `periodic` stay as
    /// they are: let that of the component be no less than both together, or what is under way is
    /// forced. A longer one does not lengthen them.
    #[track_caller]
    pub fn periodic<F, W>(periodic: Periodic, run: F) -> Self
    where
        F: FnMut(Tick) -> W + Send + 'static,
        W: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let name = periodic.name().to_owned().into();
        let start = |ctx: Context, _: &TaskGroup| -> Work {
            Box::pin(async move {
                let again = periodic.run::<PeriodicError, _, _>(ctx.token(), run)?;
                ctx.ready();
                Ok(again.await?)
            })
        };
        Self::of(name, Kind::Component, Box::new(start))
    }

    #[track_caller]
    pub(super) fn of(name: Cow<'static, str>, kind: Kind, start: Start) -> Self {
        Self {
            name,
            start: Mutex::new(start),
            place: Location::caller(),
            may_end: false,
            after: Vec::new(),
            phase: None,
            grace: None,
            start_timeout: START_TIMEOUT,
            drains: false,
            kind,
            nested: None,
        }
    }

    /// Names what this component uses: it starts after these are ready, and stops before they do.
    ///
    /// A second call adds to the first. The names may be those of components that are added later.
    pub fn after<N: Into<Cow<'static, str>>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.after.extend(names.into_iter().map(Into::into));
        self
    }

    /// Puts the component into a [phase](super::Phase) of the stop.
    pub fn phase(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.phase = Some(name.into());
        self
    }

    /// Sets the time it has to stop, before it is forced.
    ///
    /// Without one it has a share of what the others leave of the [budget](super::Budget); the
    /// [plan](super::Plan) says which. With zero it is told and forced at once; [`Duration::MAX`]
    /// needs a budget without end.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Sets the time it has to be ready; 30 s by default. Zero is refused by the plan.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Lets it end with `Ok` before it was told to: work that is done at some time.
    pub fn may_end(mut self) -> Self {
        self.may_end = true;
        self
    }

    /// Lets it take part in the drain of a two-phase stop: everything drains, then everything closes.
    ///
    /// It waits for [`Context::draining`] and calls [`Context::drained`]. No component is told to
    /// stop before all that drain have done so, or the [time for it](super::Budget::drain) is over,
    /// which is an error. One that ends with `Ok` in the drain has drained. One that is not ready,
    /// or has failed, when the drain begins takes no part in it.
    pub fn drains(mut self) -> Self {
        self.drains = true;
        self
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes its future, which does nothing yet.
    pub(super) fn work(self, ctx: Context, group: &TaskGroup) -> Work {
        into_inner(self.start)(ctx, group)
    }

    pub(super) fn is_job(&self) -> bool {
        self.kind == Kind::Job
    }

    pub(super) fn node(&self) -> Result<Node, PlanError> {
        Ok(Node {
            name: self.name.clone(),
            after: self.after.clone(),
            phase: self.phase.clone(),
            grace: self.grace,
            start_timeout: self.start_timeout,
            drains: self.drains,
            nested: self.nested.clone().transpose()?,
            kind: self.kind,
        })
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component")
            .field("name", &self.name)
            .field("after", &self.after)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}
