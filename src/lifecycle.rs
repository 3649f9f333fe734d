//! [`Lifecycle`]: components that are started in order, stopped in order, in a bounded time.
//!
//! `run/machine.rs` decides what happens next, without a clock, and `run/engine.rs` does it.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cleanup::{Cleanup, CleanupHandle};
use crate::group::running::Running;
use crate::group::trigger::Trigger;
use crate::group::trigger::sealed::Hurry;
use crate::group::{AbortOnDrop, Spawner, TaskGroup};

pub(crate) mod readiness;
mod provided;
mod uses;
mod plan;
mod haste;
mod step_kind;
mod component_state;
mod component_error;
mod report;
mod run_error;
mod event;
mod trace;
mod context;
mod component;
mod using;
mod handle;
mod run;
mod nested;
#[cfg(feature = "serde")]
mod serialize;

pub use self::component::Component;
pub use self::component_error::ComponentError;
pub use self::component_state::{ComponentState, ComponentStatus};
pub use self::context::Context;
pub use self::event::{Event, EventKind};
pub use self::handle::Handle;
pub use self::plan::budget::Budget;
pub use self::plan::error::PlanError;
pub use self::plan::{Plan, PlannedComponent};
pub use self::provided::{Provided, Provider};
pub use self::readiness::{Check, Readiness, ReadinessState};
pub use self::report::{Report, Straggler, TimelineStep};
pub use self::run::Run;
pub use self::run_error::RunError;
pub use self::step_kind::StepKind;
pub use self::uses::Uses;
pub use self::using::Using;

use self::event::Observer;
use self::haste::Haste;
use self::plan::phase::Phase;
use self::run::engine::{Engine, Parts};

/// Starts components in order, stops them in order within a bounded time, and reports what
/// happened.
///
/// A service starts from the bottom up, the database before the server that uses it. It stops the
/// other way round, so that no component calls one that is already gone. One [`Budget`] bounds the
/// whole stop, whatever its parts do.
///
/// # What happens
///
/// **Start.** Components without dependencies start at once. Every other component starts when all
/// components that it [uses](Component::using), or comes [after](Component::after), are ready. When
/// all components are ready, so is [`Readiness`]. After a failure, or a reason to stop, nothing
/// more is started, and the components that were started are stopped.
///
/// **Stop.** The first reason wins. It is a [trigger](Self::stop_on), a call, or the failure of a
/// component. The order below is the same for all of them, except for a [lost
/// heartbeat](Self::stop_on) and [force](Handle::force):
///
/// 1. The reason is recorded and logged. The [watchdog](Self::watchdog), if any, begins to count.
/// 2. Readiness turns to draining at the moment of the request, so before [`Handle::stop`] returns.
///    The one exception is a budget with a [jitter](Budget::jitter), during which the service stays
///    ready.
/// 3. In the [lame duck](Budget::lame_duck) the service still serves, until the load balancer has
///    noticed. This phase ends early when no component is left that serves. It is skipped if not
///    everything had been ready, and by [`Handle::stop_now`].
/// 4. The [drain](Budget::drain), if a component takes part in it.
/// 5. A component is told to stop when all components that come after it, directly or through
///    others, have ended. The chain may pass through jobs that are done and components that have
///    failed. Independent components are told at once. Each has its grace, or what the budget has
///    left. A component that overruns is aborted, joined and named, and the next ones are told.
/// 6. The steps of the [cleanup](Self::cleanup) run one by one, the last pushed first.
/// 7. The [`Report`], which [`Exit`](crate::Exit) turns into an exit status.
///
/// A second signal ends the process at any point, as `Signals` says.
///
/// A slow stop is logged at INFO after 5 s and then every 10 s, with the components that it waits
/// for and the time that each has left.
///
/// When the run has ended, nothing of it is alive except for the code that the report calls still
/// running, which blocks its thread. The run takes no longer than the budget, plus a millisecond
/// for each row of components that do not end even when they are forced.
///
/// # Drop
///
/// Dropping the future of the run aborts all components at once, in no order, and logs a warning
/// with their names. Readiness becomes stopped, the components' state becomes aborted, and no
/// report is made. A lifecycle that never ran is dropped silently.
///
/// # Comparison to `TaskGroup`
///
/// A [`TaskGroup`] stops all of its tasks at once, which is enough if they do not need each other.
/// A lifecycle is for the parts of a service that do. Each of its components is such a group.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::lifecycle::{Component, Lifecycle};
///
/// # #[derive(Clone)]
/// # struct Db;
/// # impl Db {
/// #     async fn open() -> std::io::Result<Self> { Ok(Self) }
/// #     async fn close(self) -> std::io::Result<()> { Ok(()) }
/// # }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let (database, db) = Component::shared(
///     "database",
///     async |_ctx| Ok(Db::open().await?),
///     async |db, _| Ok(db.close().await?),
/// );
/// let worker = Component::using(&db).run("worker", async |ctx, _db| {
///     ctx.ready();
///     Ok(ctx.stopping().await)
/// });
///
/// let lifecycle = Lifecycle::new("orders")
///     .budget(Duration::from_secs(10))
///     .component(database)
///     .component(worker.grace(Duration::from_secs(5)));
/// let handle = lifecycle.handle();
/// # tokio::spawn(async move { let _ = handle.ready().await; handle.stop("the example is over") });
/// let report = lifecycle.run().await?;
/// assert!(report.is_clean(), "{report}");
/// # Ok(())
/// # }
/// ```
#[must_use = "a lifecycle does nothing until it runs"]
pub struct Lifecycle {
    /// `None` unless it was set.
    budget: Option<Budget>,
    phases: Vec<Phase>,
    /// Behind locks that are never taken, so that a lifecycle is `Sync`.
    observers: Mutex<Vec<Observer>>,
    triggers: Mutex<Vec<Attach>>,
    checks: Mutex<Vec<Check>>,
    trigger: TaskGroup,
    work: TaskGroup,
    cleanup: Cleanup,
    guard: Mutex<Option<Guard>>,
    handle: Handle,
    /// Set once nothing more can be added.
    components: Option<Vec<Component>>,
    report: watch::Sender<Option<Arc<Report>>>,
    /// Dropped with the lifecycle. Handles notice that drop only through this field.
    _registry: handle::Registry,
}

/// Guards the stop of a lifecycle. It is given the time that the stop may take, the triggers, and
/// the tasks.
type Guard = Box<dyn FnOnce(Duration, &Spawner, Spawner) -> io::Result<()> + Send>;

/// Attaches a trigger once the lifecycle runs.
type Attach = Box<dyn FnOnce(&TaskGroup, &Handle) + Send>;

impl Lifecycle {
    /// Makes a lifecycle without components, with the [local](Budget::local) budget.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        let name = name.into();
        let trigger = TaskGroup::named(&name);
        let work = TaskGroup::named(&name);
        let (report, reported) = watch::channel(None);
        let handle = Handle {
            report: reported,
            shared: Arc::new(handle::Shared {
                name,
                trigger: trigger.spawner(),
                work: work.spawner().into(),
                haste: watch::Sender::default(),
                readiness: Readiness::drain_on(trigger.token()),
                all_ready: CancellationToken::new(),
                settled: CancellationToken::new(),
                registry: Some(Vec::new()).into(),
                live: Mutex::default(),
                late_observers: Mutex::default(),
                states: Mutex::default(),
                changes: watch::Sender::default(),
            }),
        };
        let registry = handle::Registry(Arc::clone(&handle.shared));
        Self {
            budget: None,
            phases: Vec::new(),
            observers: Mutex::default(),
            triggers: Mutex::default(),
            checks: Mutex::default(),
            trigger,
            work,
            // A lifecycle may be dropped before it runs, for example if only its plan was needed.
            cleanup: Cleanup::that_owes_nothing(),
            guard: Mutex::default(),
            handle,
            components: None,
            report,
            _registry: registry,
        }
    }

    /// Sets the time that the whole stop may take, and its parts. The default is [`Budget::local`],
    /// 10 s.
    pub fn budget(mut self, budget: impl Into<Budget>) -> Self {
        self.budget = Some(budget.into());
        self
    }

    /// Adds a component. The order of the calls does not matter.
    pub fn component(self, component: Component) -> Self {
        // It cannot be refused before the run.
        let _ = self.handle.add(component);
        self
    }

    /// Adds a phase of the stop. All components of a phase have ended before the first one of the next phase is
    /// told to stop.
    ///
    /// Phases stop in the order in which they are added, and start in the reverse order. Use them for an order
    /// between many components: stop everything that accepts, then everything that works, then everything that
    /// stores. Between two components, a dependency is enough. [`Component::phase`] puts a component into a
    /// phase. One without a phase follows its dependencies alone. A phase may be empty.
    ///
    /// # The budget of a phase
    ///
    /// `budget` is how long the components of the phase may take together. With `None` only the budget of the
    /// whole stop limits them.
    ///
    /// On each chain of components of the phase that stop one after another, the graces add up to this time
    /// at most. The components that ask for no grace share what the others leave of it, and graces that do
    /// not fit are an error of the plan. A component without a phase that has to stop between two of this
    /// phase counts with them.
    ///
    /// The graces that components get in this phase are fixed for the budget of the whole stop. If the
    /// phase needs less than its budget, the rest goes to the other components.
    ///
    /// Zero leaves no time for a component that asks for no grace, which is an error of the plan.
    /// [`Duration::MAX`] means no limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::lifecycle::{Component, Lifecycle};
    ///
    /// # let idle = |name: &'static str| Component::new(name, async |ctx| Ok(ctx.stopping().await));
    /// let plan = Lifecycle::new("orders")
    ///     .phase("accept", Duration::from_secs(5))
    ///     .phase("close", None)
    ///     .component(idle("http").phase("accept"))
    ///     .component(idle("database").phase("close"))
    ///     .plan()?;
    /// let phases: Vec<_> = plan.phases().collect();
    /// assert_eq!(phases, [("accept", Some(Duration::from_secs(5))), ("close", None)]);
    /// # Ok::<(), taskgroup::BoxError>(())
    /// ```
    pub fn phase(
        mut self,
        name: impl Into<Cow<'static, str>>,
        budget: impl Into<Option<Duration>>,
    ) -> Self {
        self.phases.push(Phase::new(name, budget));
        self
    }

    /// Stops on `trigger`: a signal, a file that appears, a lost heartbeat, or a future that yields
    /// a reason.
    ///
    /// Several triggers may be set, and the first to fire wins. A trigger counts from the start of
    /// the run, when its future is first polled.
    ///
    /// A lost heartbeat is an error of the report, and
    /// [urgent](crate::process::Heartbeat#in-a-lifecycle). All components are told at once, without
    /// a jitter, a lame duck or a drain.
    pub fn stop_on(self, trigger: impl Trigger) -> Self {
        handle::lock(&self.triggers).push(Box::new(move |group, handle| {
            let shared = Arc::clone(&handle.shared);
            let hurry = move |hurry| {
                shared.hurry(match hurry {
                    Hurry::Urgent => Haste::Urgent,
                    Hurry::Force => Haste::Force,
                });
            };
            group.attach(trigger.listen_to_hurry(&group.spawner(), hurry));
        }));
        self
    }

    /// Calls `observer` with each event, in order.
    ///
    /// The run does not wait for the observer. An observer that blocks holds up the other observers
    /// and the log, but no component. On a multi-thread runtime it is called on a thread of its
    /// own. On a single-thread runtime it is called in a task, where blocking holds up everything,
    /// so send slow work through a channel.
    ///
    /// When the run returns, every event has been delivered, unless an observer or the log has
    /// blocked for longer than the budget and a second. A panic of an observer is caught and
    /// changes nothing. Several observers may be set.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Component, EventKind, Lifecycle};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let (sender, mut ends) = tokio::sync::mpsc::unbounded_channel();
    /// Lifecycle::new("orders")
    ///     .component(Component::job("migrate", |_| async { Ok(()) }))
    ///     .observe(move |event| {
    ///         if let EventKind::Ended { end, .. } = event.kind {
    ///             sender.send(format!("{} is {end}", event.component.as_deref().unwrap())).unwrap();
    ///         }
    ///     })
    ///     .run()
    ///     .await?;
    /// assert_eq!(ends.recv().await.unwrap(), "orders/migrate is done");
    /// # Ok(())
    /// # }
    /// ```
    pub fn observe(self, observer: impl FnMut(&Event) + Send + 'static) -> Self {
        handle::lock(&self.observers).push(Box::new(observer));
        self
    }

    /// Adds a readiness check, which runs from the start until the service drains.
    ///
    /// While it fails the service is not ready. `/readyz` names it, the health service says
    /// `NOT_SERVING`, and nothing is stopped. In a nested lifecycle the check counts for the
    /// outermost one.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Check, Component, Lifecycle};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let lifecycle = Lifecycle::new("orders")
    ///     .check(Check::new("database", async || Ok(())))
    ///     .component(Component::new("http", |ctx| async move {
    ///         ctx.ready();
    ///         Ok(ctx.stopping().await)
    ///     }));
    /// let handle = lifecycle.handle();
    /// let run = tokio::spawn(lifecycle.run());
    /// assert!(handle.ready().await.is_ok());
    /// # tokio::task::yield_now().await;
    /// assert!(handle.readiness().is_ready());
    /// handle.stop("enough");
    /// assert!(run.await??.is_clean());
    /// # Ok(())
    /// # }
    /// ```
    pub fn check(self, check: Check) -> Self {
        handle::lock(&self.checks).push(check);
        self
    }

    /// Returns the token that fires when all components are ready that do not wait for another process.
    #[cfg(all(feature = "restart", unix))]
    pub(crate) fn settled(&self) -> CancellationToken {
        self.handle.shared.settled.clone()
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.handle.shared.name
    }

    /// Returns a handle that watches and stops the lifecycle from anywhere.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Returns a handle to push steps that run when all components have ended, the last one first.
    #[must_use]
    pub fn cleanup(&self) -> CleanupHandle {
        self.cleanup.handle()
    }

    /// Returns whether the service wants traffic, for `/readyz` and the health service.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.handle.shared.readiness
    }

    /// Returns the tasks that are running now.
    #[must_use]
    pub fn running(&self) -> Running {
        self.work.running()
    }

    /// Returns what is going to happen, with the order, the graces and the parts of the budget.
    ///
    /// # Errors
    ///
    /// Returns an error if the components form a cycle, if a name is unknown or duplicated, if no
    /// component provides a value, or if the budget is too small for its parts. [`PlanError`] lists
    /// the rest.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Component, Lifecycle};
    ///
    /// let egg = Component::job("egg", |_| async { Ok(()) }).after(["hen"]);
    /// let hen = Component::job("hen", |_| async { Ok(()) }).after(["egg"]);
    /// let error = Lifecycle::new("orders").component(hen).component(egg).plan().unwrap_err();
    /// assert!(error.to_string().contains("`hen` → `egg` → `hen`"), "{error}");
    /// ```
    pub fn plan(&self) -> Result<Plan, PlanError> {
        self.plan_inside()?.complete()
    }

    /// The plan of a nested lifecycle, whose outer one may provide what is missing here.
    fn plan_inside(&self) -> Result<Plan, PlanError> {
        let registry = handle::lock(&self.handle.shared.registry);
        let components = self.components.as_ref().or(registry.as_ref());
        let nodes = components.into_iter().flatten().map(Component::node);
        let nodes = nodes.collect::<Result<_, _>>()?;
        let name = self.handle.shared.name.clone();
        let phases = self.phases.clone();
        match &self.budget {
            Some(budget) => Plan::new(name, nodes, phases, budget.clone()),
            None => Plan::new(name, nodes, phases, Budget::default()).map(Plan::yielding),
        }
    }

    /// Starts all components, waits for a reason to stop, stops all, and returns the report.
    ///
    /// Without a [trigger](Self::stop_on) it ends when a component fails, by a call through a
    /// [handle](Self::handle) or a [context](Context::stop), or when nothing is left to do.
    ///
    /// Nothing is left to do when all components except for [resources](Component::resource) have
    /// ended, such as the jobs that use a database. The lifecycle then stops without a jitter or a
    /// lame duck, closes its resources, and is clean. Its cause is
    /// [`Cause::Done`](crate::Cause::Done). A lifecycle that has only resources waits for the stop,
    /// and so does one inside another, whose components may use its resources.
    ///
    /// # Errors
    ///
    /// Returns an error, before anything is started, if the [plan](Self::plan) is invalid or the
    /// thread of the [watchdog](Self::watchdog) cannot be started. The report tells how the
    /// components fared.
    ///
    /// # Panics
    ///
    /// Panics outside of a Tokio runtime whose timers are enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts all components at once, as [Drop](#drop) says. Spawn it where
    /// that must not happen.
    pub async fn run(self) -> Result<Report, PlanError> {
        let this = self.closed();
        let plan = this.plan()?;
        let this = this.guarded(&plan)?;
        let work = this.work.spawner();
        let (engine, _work) = this.engine(plan, work, None);
        Ok(engine.run().await)
    }

    /// Starts all components, and returns when all are ready. The run goes on in its own task.
    ///
    /// A lifecycle of jobs alone may have ended by then.
    ///
    /// # Errors
    ///
    /// Returns an error, before anything is started, if the [plan](Self::plan) is invalid. Also
    /// returns an error if not everything became ready, because a component failed or a stop was
    /// requested. All components that had been started are then stopped, and the error has the
    /// [report](RunError::report).
    ///
    /// # Panics
    ///
    /// Panics outside of a Tokio runtime whose timers are enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts all components, as dropping the [`Run`] does.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Component, Lifecycle};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let worker = Component::new("worker", async |ctx| {
    ///     ctx.ready();
    ///     Ok(ctx.stopping().await)
    /// });
    /// let run = Lifecycle::new("orders").component(worker).start().await?;
    /// // … all is ready here …
    /// run.stop("enough").await.into_result()?;
    ///
    /// let broken = Component::job("migrate", async |_| Err("the table is locked".into()));
    /// let error = Lifecycle::new("orders").component(broken).start().await.unwrap_err();
    /// assert!(error.to_string().starts_with("lifecycle `orders`: component `migrate` did not start"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start(self) -> Result<Run, RunError> {
        let this = self.closed();
        let plan = this.plan()?;
        let this = this.guarded(&plan)?;
        let (handle, work) = (this.handle(), this.work.spawner());
        let (engine, work) = this.engine(plan, work, None);
        let task = tokio::spawn(async move {
            let _work = work;
            engine.run().await
        });
        let mut run = Run::new(handle, AbortOnDrop::new(&task));
        if run.handle().ready().await.is_ok() {
            return Ok(run);
        }
        Err(run.wait().await.into())
    }

    /// Closes the lifecycle to further additions.
    fn closed(mut self) -> Self {
        if self.components.is_none() {
            self.components = handle::lock(&self.handle.shared.registry).take();
        }
        self
    }

    /// Lets `guard` watch over the stop, in place of the previous one.
    pub(crate) fn guard_with(
        mut self,
        guard: impl FnOnce(Duration, &Spawner, Spawner) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let guard: Guard = Box::new(guard);
        self.guard = Some(guard).into();
        self
    }

    pub(crate) fn work(&self) -> &TaskGroup {
        &self.work
    }

    fn guarded(self, plan: &Plan) -> Result<Self, PlanError> {
        let guard = handle::lock(&self.guard).take();
        if let Some(guard) = guard {
            let (trigger, work) = (self.trigger.spawner(), self.work.spawner());
            guard(plan.budget().total(), &trigger, work)
                .map_err(|error| PlanError::no_watchdog(&error))?;
        }
        Ok(self)
    }

    fn engine(mut self, plan: Plan, work: Spawner, outer: Option<Context>) -> (Engine, TaskGroup) {
        self.cleanup.owe();
        let triggers = std::mem::take(&mut *handle::lock(&self.triggers));
        let observers = std::mem::take(&mut *handle::lock(&self.observers));
        let checks = std::mem::take(&mut *handle::lock(&self.checks));
        for attach in triggers {
            attach(&self.trigger, &self.handle);
        }
        let engine = Engine::new(Parts {
            plan: Arc::new(plan),
            components: self.components.unwrap_or_default(),
            observers,
            checks,
            trigger: self.trigger,
            work,
            cleanup: self.cleanup,
            shared: self.handle.shared,
            report: self.report,
            outer,
        });
        (engine, self.work)
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle")
            .field("name", &self.name())
            .field("budget", &self.budget)
            .field("phases", &self.phases)
            .finish_non_exhaustive()
    }
}
