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
use super::provided::{Outlet, Value};
use crate::BoxError;
use crate::group::TaskGroup;
use crate::group::lock::into_inner;
use crate::lifecycle::plan::error::PlanError;
use crate::supervise::Supervisor;
use crate::supervise::{Periodic, Tick};

/// The default time that a component has to become ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A part of a service that is started and stopped, such as a server, a worker or a database.
///
/// In its simplest form it is an async closure that takes a [`Context`], reports that it is
/// [ready](Context::ready), and runs until its [token](Context::token) fires. The table lists all
/// forms.
///
/// | it is | made by |
/// |---|---|
/// | something that runs until told to stop | [`new`](Self::new) |
/// | something that is opened and closed, started and stopped | [`resource`](Self::resource) |
/// | something to do before others start | [`job`](Self::job) |
/// | one of these, with values of other components | [`using`](Self::using) |
/// | tasks that are started again when they fail | [`supervisor`](Self::supervisor) |
/// | something that is done again and again | [`periodic`](Self::periodic) |
/// | made of components | [`lifecycle`](Self::lifecycle) |
///
/// # The rules
///
/// 1. A component starts when all components that it [uses](Self::using), or comes
///    [`after`](Self::after), are ready. It is told to stop when all that use it or come after it,
///    directly or through others, have ended. Independent components start and stop at the same
///    time.
/// 2. It has its [`start_timeout`](Self::start_timeout) to become ready. If it ends, fails or is
///    late before that, the start has failed. Nothing else is started, and the components that were
///    started are stopped in reverse order.
/// 3. Once ready, it must not end before it is told to, unless it [may](Self::may_end). An early
///    end is a failure, and so is an error or a panic, also of a helper. The first failure stops
///    the whole, unless the component [may fail](Self::may_fail). The same holds in a lame duck,
///    which still serves. A component that [drains](Self::drains) may end in the drain.
/// 4. When told to stop, it has its [`grace`](Self::grace), or what the budget has left if that is
///    less. Then it is forced, which aborts and joins its tasks. A forced stop is an error that
///    names the tasks that were running.
/// 5. It has ended when its future and all tasks of its [group](Context::group) are gone.
///
/// A component that blocks its thread cannot be forced. It is reported as still running, and the
/// [watchdog](super::Lifecycle::watchdog) ends the process.
///
/// # Examples
///
/// See [`Lifecycle`](super::Lifecycle).
#[must_use = "a component does nothing until its lifecycle runs"]
pub struct Component {
    pub(super) name: Cow<'static, str>,
    // The user's code is only `Send`. The lock, which is never taken, makes it `Sync`.
    start: Mutex<Start>,
    pub(super) place: &'static Location<'static>,
    pub(super) may_end: bool,
    pub(super) may_fail: bool,
    after: Vec<Cow<'static, str>>,
    pub(super) uses: Vec<Value>,
    pub(super) provides: Vec<Box<dyn Outlet>>,
    phase: Option<Cow<'static, str>>,
    grace: Option<Duration>,
    start_timeout: Duration,
    pub(super) drains: bool,
    kind: Kind,
    // Boxed, because a plan is large, rare, and moved with its component.
    pub(super) nested: Option<Box<Result<Plan, PlanError>>>,
}

/// The work of a component.
pub(super) type Work = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// Makes the future of a component. The user's code is called only in that future.
type Start = Box<dyn FnOnce(Context, &TaskGroup) -> Work + Send>;

impl Component {
    /// Makes a component of supervised tasks, under the supervisor's name.
    ///
    /// It is ready when they have been started, and ends when all of them are done. To restart a
    /// component with a [backoff](Supervisor::backoff), make it a child. If the supervisor gives
    /// up, after as many restarts as its [intensity](Supervisor::intensity) allows, the component
    /// fails. That stops the whole, unless the component [may fail](Self::may_fail).
    ///
    /// ```
    /// use taskgroup::{BoxError, CancellationToken};
    /// use taskgroup::lifecycle::Component;
    /// use taskgroup::supervise::Supervisor;
    ///
    /// async fn consumer(token: CancellationToken) -> Result<(), BoxError> {
    ///     Ok(token.cancelled().await)
    /// }
    ///
    /// let kafka = Component::supervisor(Supervisor::new("kafka").child("consumer", consumer));
    /// # drop(kafka);
    /// ```
    ///
    /// The children are named below the component, such as `orders/kafka/consumer`. Each has the
    /// [grace](Supervisor::grace) of the supervisor, but no more than what is left of the
    /// component's. They stop one after another, so set the component's grace to at least the time
    /// that all of them take together. A child whose time is up is forced, and the error names it.
    ///
    /// For children that use values of other components, see
    /// [`Using::supervisor`](super::Using::supervisor).
    #[track_caller]
    pub fn supervisor(supervisor: Supervisor) -> Self {
        let name = supervisor.name().to_owned().into();
        let start = |ctx, _: &TaskGroup| -> Work { Box::pin(supervise(ctx, supervisor)) };
        Self::of(name, Kind::Component, Box::new(start))
    }

    /// Makes a component that calls `run` again and again, under the name of `periodic`.
    ///
    /// It is ready at once.
    ///
    /// The [grace](Periodic::grace) and the [last run](Periodic::last_run) of `periodic` have no
    /// more than what is left of the component's grace, and a longer one does not lengthen them. Set
    /// the component's grace to at least the sum of both.
    #[track_caller]
    pub fn periodic<F, W>(periodic: Periodic, run: F) -> Self
    where
        F: FnMut(Tick) -> W + Send + 'static,
        W: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let name = periodic.name().to_owned().into();
        let start = |ctx: Context, _: &TaskGroup| -> Work {
            Box::pin(async move {
                let limit = ctx.clone();
                let again = periodic.run_within(ctx.token(), run, move || limit.end_by())?;
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
            may_fail: false,
            after: Vec::new(),
            uses: Vec::new(),
            provides: Vec::new(),
            phase: None,
            grace: None,
            start_timeout: START_TIMEOUT,
            drains: false,
            kind,
            nested: None,
        }
    }

    /// Starts it after these components are ready, and stops it before they stop.
    ///
    /// Use it for order alone. A component comes after those that it [uses](Self::using) anyway.
    ///
    /// A second call adds to the first. The names may be those of components that are added later.
    pub fn after<N: Into<Cow<'static, str>>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.after.extend(names.into_iter().map(Into::into));
        self
    }

    /// Puts the component into a [phase](super::Lifecycle::phase) of the stop.
    pub fn phase(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.phase = Some(name.into());
        self
    }

    /// Sets the time that it has to stop before it is forced.
    ///
    /// By default it has a share of what the others leave of the [budget](super::Budget), which the
    /// [plan](super::Plan) shows. With zero it is told and forced at once. [`Duration::MAX`] needs
    /// a budget without end.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Sets the time that it has to become ready, by default 30 s. The plan refuses zero.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Lets it end with `Ok` before it is told to, for work that finishes by itself.
    pub fn may_end(mut self) -> Self {
        self.may_end = true;
        self
    }

    /// Lets everything else go on when it fails. Use it for a cache or a metrics exporter.
    ///
    /// By default the first failure of a component stops the whole. The failure of one that may
    /// fail is an event and a WARN line in the log. Its helpers are told and have its grace to end.
    /// Its [state](super::ComponentState) then tells how it ended, and the components after it go
    /// on. This holds for an error, a panic and an early end. A failure before all components are
    /// ready still fails the start and stops the whole. A component that is
    /// [added](super::Handle::add) after that may fail to start too. The components that wait for
    /// it, by name or by value, are then never started.
    ///
    /// The failure is listed in the [report](super::Report), whose order and cause it does not
    /// change. The report is not clean. For a failure that should not count, let the component
    /// catch it, and make it [`may_end`](Self::may_end).
    ///
    /// To restart a task after it has failed, make it a child of a
    /// [`supervisor`](Self::supervisor). With both, the others go on when the supervisor has given
    /// up.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::End;
    /// use taskgroup::lifecycle::{Component, ComponentState, Lifecycle, ReadinessState};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let cache = Component::new("cache", async |ctx| {
    ///     ctx.ready();
    ///     ctx.readiness().wait_for(ReadinessState::Ready).await;
    ///     Err("the connection was reset".into())
    /// });
    /// let http = Component::new("http", async |ctx| {
    ///     ctx.ready();
    ///     Ok(ctx.stopping().await)
    /// });
    /// let run = Lifecycle::new("orders")
    ///     .component(cache.may_fail())
    ///     .component(http.after(["cache"]))
    ///     .start()
    ///     .await?;
    /// let handle = run.handle().clone();
    /// assert_eq!(handle.ended("cache").await, Some(End::Failed));
    /// assert_eq!(handle.state("http"), Some(ComponentState::Running));
    ///
    /// let report = run.stop("enough").await;
    /// assert_eq!(report.first_error().unwrap().component, "cache");
    /// assert_eq!(report.cause.to_string(), "cancelled on request: enough");
    /// # Ok(())
    /// # }
    /// ```
    pub fn may_fail(mut self) -> Self {
        self.may_fail = true;
        self
    }

    /// Lets it take part in the drain of a two-phase stop, in which everything drains before
    /// anything closes.
    ///
    /// It waits for [`Context::draining`] and calls [`Context::drained`]. No component is told to
    /// stop before all of these have drained or the [time for it](super::Budget::drain) is over,
    /// which is an error. A component that ends with `Ok` in the drain has drained. One that is not
    /// ready, or has failed, when the drain begins does not take part.
    pub fn drains(mut self) -> Self {
        self.drains = true;
        self
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes its future, which does nothing until it is polled.
    pub(super) fn work(self, ctx: Context, group: &TaskGroup) -> Work {
        into_inner(self.start)(ctx, group)
    }

    pub(super) fn is_resource(&self) -> bool {
        self.kind == Kind::Resource
    }

    pub(super) fn is_job(&self) -> bool {
        self.kind == Kind::Job
    }

    pub(super) fn is_lifecycle(&self) -> bool {
        self.kind == Kind::Lifecycle
    }

    pub(super) fn node(&self) -> Result<Node, PlanError> {
        let nested = self.nested.as_deref().cloned().transpose()?;
        let inside = nested.as_ref();
        // A nested lifecycle uses the values that it lacks, and provides all that it has.
        let uses = inside.into_iter().flat_map(Plan::not_provided);
        let provides = inside.into_iter().flat_map(Plan::provided);
        Ok(Node {
            name: self.name.clone(),
            after: self.after.clone(),
            uses: self.uses.iter().chain(uses).cloned().collect(),
            provides: self
                .provides
                .iter()
                .map(|outlet| outlet.value())
                .chain(provides.cloned())
                .collect(),
            phase: self.phase.clone(),
            grace: self.grace,
            start_timeout: self.start_timeout,
            drains: self.drains,
            nested: nested.map(Box::new),
            kind: self.kind,
            gone: false,
        })
    }
}

/// Runs supervised tasks as those of the component itself.
pub(super) async fn supervise(ctx: Context, supervisor: Supervisor) -> Result<(), BoxError> {
    let limit = ctx.clone();
    let group = ctx.group().clone();
    let supervised = supervisor.run_within(group, move || limit.end_by())?;
    ctx.ready();
    Ok(supervised.await?)
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
