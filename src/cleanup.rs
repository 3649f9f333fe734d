//! Closes resources in the reverse order of opening (feature `cleanup`).
//!
//! A [`Cleanup`] stands alone, after a group or any other active phase. A [`Lifecycle`](crate::lifecycle::Lifecycle) has
//! one of its own.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::group::TaskGroup;
use crate::group::end::End;
use crate::group::lock::get_mut;
use crate::group::log;
use crate::group::panic::Panic;
use crate::group::time::Rounded;
use crate::group::time::is_late;

pub(crate) mod words;
mod outcome;
pub(crate) mod step_report;
mod plan;
mod step;
mod registry;
mod current;
mod report;

pub use self::outcome::Outcome;
pub use self::registry::{PushError, StepHandle};
pub use self::report::{CleanupError, CleanupReport};
pub use self::step::Step;
pub use self::step_report::StepReport;

use self::current::{CONFIRMATION, Current, Ended};
use self::plan::{Plan, Turn};
use self::registry::Registry;

/// Closes resources at the end of a service. Its async steps run one by one, the last pushed first, each
/// within its own deadline and all within one budget.
///
/// Use it for the passive resources of a service, such as the database, the cache and the log. They are
/// closed **after** the active phase, when nothing uses them any longer. Push a step when a resource has
/// been opened, from [anywhere](Self::handle) while the service runs. [`run`](Self::run) the steps after
/// the group's wait has returned.
///
/// The following always holds:
///
/// - Every step that is not [withdrawn](StepHandle::withdraw) runs once, with the retries it asked for, or
///   is skipped with a reason. The [report](CleanupReport) names all of them.
/// - Steps run one by one, the last pushed first. [Critical](Step::critical) ones go before all others, and
///   [low](Step::low) ones after them.
/// - Each step gets the [`Outcome`] of the active phase.
/// - A step that fails, panics or overruns does not keep other steps from running, unless it is
///   [`fatal`](Step::fatal).
/// - A step that overruns is dropped, and the next one begins when its destructors have run.
/// - The run takes at most its budget and the [guaranteed](Self::guaranteed) times of the steps that
///   [always](Step::always) run. When the budget is spent, the other steps are skipped.
/// - When the run has returned, no step is alive, except for what the report calls [still
///   running](End::StillRunning).
///
/// # Steps that block their thread
///
/// Each step runs in its own task. A step that blocks its thread, even in a destructor, still has its
/// deadline. 100 ms after it, the step is reported as still running and the next one begins. Those 100 ms
/// come on top of the budget.
///
/// On a runtime with a single thread, such as the `current_thread` flavor, a step that blocks the thread
/// also blocks the run. The run goes on when the step returns. The step then counts as done, with a
/// warning. Use [`Step::blocking`] for steps that must block. It keeps its deadline on every runtime.
///
/// # What it cannot do
///
/// - It cannot end a thread. A step that blocks one goes on until it returns or the process ends.
/// - It does not end the tasks and blocking closures that a step has spawned.
/// - It does not run when the process is killed.
///
/// The idea is Go's `defer` and Python's `AsyncExitStack`. The deadline of each step, and cutting it on an
/// overrun, follow the way an Erlang supervisor ends its children.
///
/// # Drop
///
/// Rust has no asynchronous drop, so dropping a `Cleanup` **runs no step**, not even one that always runs.
/// Steps that have not run are dropped, the one under way is aborted, and a warning in the log names them.
/// A cleanup without steps, or one that has run, is dropped silently.
///
/// # Comparison to `Drop`
///
/// A destructor closes what can be closed without waiting, and runs however a scope is left. A cleanup is
/// for resources whose closing has to be awaited, may fail and must not take forever. For a single
/// resource, `tokio::time::timeout(limit, db.close())` after the group's wait does the same.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::TaskGroup;
/// use taskgroup::cleanup::{Cleanup, Step};
///
/// # struct Db;
/// # impl Db {
/// #     async fn open() -> std::io::Result<Self> { Ok(Self) }
/// #     async fn close(self) -> std::io::Result<()> { Ok(()) }
/// # }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let mut cleanup = Cleanup::new();
/// let db = Db::open().await?;
/// cleanup.push(Step::new("database", |_| async { Ok(db.close().await?) }))?;
/// cleanup.push(Step::new("key", |_| async { Ok(()) }).always(Duration::from_millis(100)))?;
///
/// let mut group = TaskGroup::new();
/// group.task("worker").spawn(async { Ok(()) });
/// let result = group.wait().await;
///
/// let report = cleanup.run(&result, Duration::from_secs(8)).await;
/// assert_eq!(report.steps[0].name, "key", "last in, first out");
/// result?;
/// report.into_result()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a dropped cleanup runs no step"]
pub struct Cleanup {
    registry: Arc<Registry>,
    /// Where the steps run. Dropped with the cleanup, it aborts the one under way.
    group: TaskGroup,
    // A step is only `Send`. The lock, which is never taken, makes the cleanup `Sync`.
    run: Mutex<Option<Box<Going>>>,
    /// Whether dropping it with steps that have not run is an error.
    owes: bool,
}

/// Pushes steps onto a [`Cleanup`] from anywhere. Cheap to clone.
///
/// It never keeps the cleanup alive or open. When the run has begun, or the cleanup has been dropped, a
/// push is refused and returns the step.
///
/// # Examples
///
/// ```
/// use taskgroup::cleanup::{Cleanup, Step};
///
/// let cleanup = Cleanup::new();
/// let handle = cleanup.handle();
/// handle.push(Step::new("cache", |_| async { Ok(()) })).unwrap().withdraw();
///
/// drop(cleanup);
/// let error = handle.push(Step::new("late", |_| async { Ok(()) })).unwrap_err();
/// assert_eq!(error.into_step().name(), "late");
/// ```
#[derive(Clone)]
pub struct CleanupHandle {
    registry: Arc<Registry>,
}

/// A run that has begun.
struct Going {
    outcome: Outcome,
    budget: Duration,
    began: Instant,
    plan: Plan,
    current: Option<Current>,
    steps: Vec<StepReport>,
    /// How long the run took, once all steps have run.
    took: Option<Duration>,
}

impl Cleanup {
    /// Makes a cleanup without steps.
    ///
    /// # Examples
    ///
    /// ```
    /// let cleanup = taskgroup::cleanup::Cleanup::new();
    /// assert!(cleanup.pending().is_empty());
    /// ```
    pub fn new() -> Self {
        Self {
            registry: Registry::new(),
            group: TaskGroup::named("cleanup"),
            run: Mutex::new(None),
            owes: true,
        }
    }

    /// Makes a cleanup for a lifecycle that may never begin. Dropped before [`owe`](Self::owe), it logs no
    /// warning.
    pub(crate) fn that_owes_nothing() -> Self {
        Self {
            registry: Registry::new(),
            group: TaskGroup::named("cleanup"),
            run: Mutex::new(None),
            owes: false,
        }
    }

    /// Makes it an error from here on to drop the cleanup with steps that have not run.
    pub(crate) fn owe(&mut self) {
        self.owes = true;
    }

    /// Runs the steps in `group`, which then lists them as running.
    pub(crate) fn run_in(&mut self, group: TaskGroup) {
        self.group = group;
    }

    /// Pushes a step. It runs before the steps of the same priority that were pushed before.
    ///
    /// The handle can withdraw the step. Dropping the handle has no effect.
    ///
    /// # Errors
    ///
    /// Returns an error if the run has begun or the step is invalid. A step is invalid with an empty name,
    /// with a deadline or a guaranteed time of zero, or if it is both best-effort and fatal. The error
    /// contains the step.
    ///
    /// # Examples
    ///
    /// See [`Cleanup`] and [`StepHandle`].
    pub fn push(&self, step: Step) -> Result<StepHandle, PushError> {
        self.registry.push(step)
    }

    /// Returns the name of the step under way, and its time left.
    pub(crate) fn under_way(&mut self) -> Option<(String, Duration)> {
        let run = get_mut(&mut self.run);
        let current = run.as_ref()?.current.as_ref()?;
        let left = current.time.saturating_sub(current.started.elapsed());
        Some((current.name.to_string(), left))
    }

    /// Returns a handle that pushes steps from anywhere.
    ///
    /// # Examples
    ///
    /// See [`CleanupHandle`].
    #[must_use]
    pub fn handle(&self) -> CleanupHandle {
        CleanupHandle {
            registry: Arc::clone(&self.registry),
        }
    }

    /// Returns the names of the steps whose turn has not come, in the order in which they are to run.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::cleanup::{Cleanup, Step};
    ///
    /// let cleanup = Cleanup::new();
    /// let step = |name| Step::new(name, |_| async { Ok(()) });
    /// cleanup.push(step("secrets").critical()).unwrap();
    /// cleanup.push(step("database")).unwrap();
    /// cleanup.push(step("cache")).unwrap();
    /// assert_eq!(cleanup.pending(), ["secrets", "cache", "database"]);
    /// ```
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        self.registry.names()
    }

    /// Returns how much longer than its budget the run may take. This is the sum of the guaranteed times of
    /// the steps that [always](Step::always) run and whose turn has not come.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::cleanup::{Cleanup, Step};
    ///
    /// let cleanup = Cleanup::new();
    /// let erase = Step::new("key", |_| async { Ok(()) }).always(Duration::from_millis(100));
    /// cleanup.push(erase).unwrap();
    /// assert_eq!(cleanup.guaranteed(), Duration::from_millis(100));
    /// ```
    #[must_use]
    pub fn guaranteed(&self) -> Duration {
        self.registry.guaranteed()
    }

    /// Runs the steps and returns what became of them.
    ///
    /// The clock starts when the returned future is first polled. From then on pushes are refused. Each
    /// step gets the `outcome`: `&result` of the group's wait, or an [`Outcome`].
    ///
    /// Any budget is accepted. With zero, only the steps that [always](Step::always) run do so, and the
    /// others are skipped. With [`Duration::MAX`], only each step's own deadline applies.
    ///
    /// A second run returns the same report and does nothing else.
    ///
    /// Failures are in the report and are logged at DEBUG, panics at ERROR. The failure of a best-effort
    /// step is logged at WARN. So is a step that finished after its time because its thread was blocked.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime with timers enabled. Panics of steps are caught.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the step under way. It goes on in its task, within its time, and
    /// no other step begins. The next call continues from there, with the outcome and the budget of the
    /// first call. The clock keeps running in between.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::cleanup::{Cleanup, Outcome, Step};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let mut cleanup = Cleanup::new();
    /// cleanup.push(Step::new("cache", |outcome| async move {
    ///     assert_eq!(outcome, Outcome::Clean);
    ///     Ok(tokio::time::sleep(Duration::from_secs(2)).await)
    /// }))?;
    ///
    /// let short = Duration::from_secs(1);
    /// let run = cleanup.run(Outcome::Clean, Duration::from_secs(8));
    /// assert!(tokio::time::timeout(short, run).await.is_err());
    ///
    /// let report = cleanup.run(Outcome::Clean, Duration::ZERO).await;
    /// assert!(report.is_clean(), "it went on where it was");
    /// assert_eq!(report.took, Duration::from_secs(2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn run(
        &mut self,
        outcome: impl Into<Outcome>,
        budget: Duration,
    ) -> impl Future<Output = CleanupReport> + Send {
        // Converted here and not in the future, which stays `Send` whatever the outcome is made of.
        let outcome = outcome.into();
        async move {
            let run = get_mut(&mut self.run);
            let going = run.get_or_insert_with(|| {
                self.registry.close();
                Box::new(Going::new(outcome, budget))
            });
            going.finish(&self.registry, &mut self.group).await
        }
    }
}

impl CleanupHandle {
    /// Pushes a step, as [`Cleanup::push`] does.
    ///
    /// # Errors
    ///
    /// Fails as [`Cleanup::push`] does, and when the cleanup has been dropped.
    ///
    /// # Examples
    ///
    /// See [`CleanupHandle`].
    pub fn push(&self, step: Step) -> Result<StepHandle, PushError> {
        self.registry.push(step)
    }
}

impl Going {
    fn new(outcome: Outcome, budget: Duration) -> Self {
        Self {
            outcome,
            budget,
            began: Instant::now(),
            plan: Plan::new(budget),
            current: None,
            steps: Vec::new(),
            took: None,
        }
    }

    /// Runs the remaining steps. Cancel safe: all state is in `self`, in the registry and in the group.
    async fn finish(&mut self, registry: &Registry, group: &mut TaskGroup) -> CleanupReport {
        loop {
            if let Some(current) = &mut self.current {
                let ended = current.end().await;
                self.ended(ended);
            } else if let Some(step) = registry.pop() {
                self.turn(step, group);
            } else {
                break;
            }
        }
        let report = self.report();
        // Waits for the destructors of skipped steps, and for steps that were still running earlier.
        drop(timeout(CONFIRMATION, group.wait()).await);
        report
    }

    /// Begins a step, or skips it.
    fn turn(&mut self, step: Step, group: &TaskGroup) {
        match self.plan.turn(step.rules(), self.began.elapsed()) {
            Turn::Run(time) => {
                let current = Current::begin(step, time, &self.outcome, group);
                self.current = Some(current);
            }
            Turn::Skip(reason) => self.skipped(step, reason, None, group),
            Turn::OutOfTime(budget) => {
                let reason = format!("the budget of {} was spent", Rounded(budget));
                self.skipped(step, reason, Some(budget), group);
            }
        }
    }

    fn skipped(&mut self, step: Step, why: String, limit: Option<Duration>, group: &TaskGroup) {
        self.plan.note(step.name(), step.rules(), End::Skipped);
        self.note(StepReport {
            name: step.name().to_owned(),
            priority: step.rules().priority,
            best_effort: step.rules().best_effort,
            started: None,
            ended: None,
            attempts: 0,
            end: End::Skipped,
            limit,
            message: why,
            error: None,
        });
        // The destructor of a skipped step may block too.
        let task = group.task(step.name().to_owned());
        drop(task.spawn_from(step.place(), async { Ok(discard(step)) }));
    }

    fn ended(&mut self, ended: Ended) {
        let Some(current) = self.current.take() else {
            return;
        };
        let attempts = current.attempts();
        let Current {
            name,
            rules,
            started,
            time,
            ..
        } = current;
        let at = ended.at;
        let ended = match (ended.end, ended.panic) {
            (End::Done, Some(panic)) => Ended::panicked(panic),
            (_, panic) => {
                panic
                    .iter()
                    .for_each(|panic| tell_panic_of_drop(&name, panic));
                Ended {
                    panic: None,
                    ..ended
                }
            }
        };
        let took = at - started;
        if ended.end == End::Done && is_late(took, time) {
            tell_late(&name, took, time);
        }
        self.plan.note(&name, &rules, ended.end);
        self.note(StepReport {
            name: name.into_owned(),
            priority: rules.priority,
            best_effort: rules.best_effort,
            started: Some(started - self.began),
            ended: Some(at - self.began),
            attempts,
            end: ended.end,
            limit: ended.end.is_forced().then_some(time),
            message: ended.message,
            error: ended.error,
        });
    }

    fn note(&mut self, step: StepReport) {
        tell(&step);
        self.steps.push(step);
    }

    fn report(&mut self) -> CleanupReport {
        let began = self.began;
        CleanupReport {
            outcome: self.outcome.clone(),
            budget: self.budget,
            took: *self.took.get_or_insert_with(|| began.elapsed()),
            steps: self.steps.clone(),
        }
    }
}

/// Drops a step that has not begun, with everything it captured.
fn discard(step: Step) {
    let name = Cow::<str>::Owned(step.name().to_owned());
    if let Err(panic) = Panic::catch(|| drop(step)) {
        tell_panic_of_drop(&name, &panic);
    }
}

fn tell(step: &StepReport) {
    let warns = step.best_effort && step.end != End::Done;
    log::guarded(|| match step.end {
        End::Panicked => tracing::error!(target: "taskgroup", "{step}"),
        _ if warns => tracing::warn!(target: "taskgroup", "{step}"),
        _ => tracing::debug!(target: "taskgroup", "{step}"),
    });
}

fn tell_panic_of_drop(name: &str, panic: &Panic) {
    let message = panic.message();
    log::guarded(|| {
        tracing::error!(
            target: "taskgroup",
            "cleanup step `{name}` panicked while being dropped: {message}"
        );
    });
}

fn tell_late(name: &str, took: Duration, time: Duration) {
    log::guarded(|| {
        tracing::warn!(
            target: "taskgroup",
            "cleanup step `{name}` was done after {}, its time was {}",
            Rounded(took),
            Rounded(time)
        );
    });
}

fn tell_forgotten(names: &[String]) {
    let (count, names) = (names.len(), names.join("`, `"));
    log::guarded(|| {
        tracing::warn!(
            target: "taskgroup",
            "cleanup was dropped with {count} of its steps not run: `{names}`"
        );
    });
}

impl Default for Cleanup {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs no steps. The step under way is aborted afterwards, with the group.
impl Drop for Cleanup {
    fn drop(&mut self) {
        self.registry.close();
        let run = get_mut(&mut self.run);
        let current = run.as_mut().and_then(|going| going.current.take());
        let mut forgotten = Vec::new();
        forgotten.extend(current.as_ref().map(|current| current.name.to_string()));
        forgotten.extend(self.registry.names());
        if self.owes && !forgotten.is_empty() {
            tell_forgotten(&forgotten);
        }
        while let Some(step) = self.registry.pop() {
            discard(step);
        }
    }
}

impl fmt::Debug for Cleanup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cleanup")
            .field("pending", &self.registry.names())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CleanupHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CleanupHandle")
            .field("pending", &self.registry.names())
            .finish()
    }
}
