//! [`Cleanup`]: what has been opened, closed in reverse.

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

mod outcome;
mod step_report;
mod plan;
mod step;
mod registry;
mod current;
mod report;

pub use self::outcome::Outcome;
pub use self::registry::{PushError, StepHandle};
pub use self::report::{CleanupError, CleanupReport};
pub use self::step::Step;
pub use self::step_report::{Priority, StepReport};

use self::current::{CONFIRMATION, Current, Ended};
use self::plan::{Plan, Turn};
use self::registry::Registry;

/// Closes what was opened: async steps, the last pushed first, one by one, each within a deadline of
/// its own and all within one budget.
///
/// It is for the passive resources of a service, the database, the cache, the log: they are closed
/// **after** the active phase, when nobody uses them any more. Push a step when a resource is open,
/// from [anywhere](Self::handle) while the service runs; [`run`](Self::run) them when the group has
/// been waited for.
///
/// Whatever happens:
///
/// - Every step that is not [withdrawn](StepHandle::withdraw) runs once, with the retries it asked
///   for, or is skipped with a reason. The [report](CleanupReport) names all of them.
/// - They run one by one: critical ones first, and within a [`Priority`] the last pushed first.
/// - Each is told the [`Outcome`] of the active phase.
/// - A step that fails, panics or overruns keeps no other from running, unless it is
///   [`fatal`](Step::fatal).
/// - A step that overruns is dropped, and the next one begins when its destructors have run.
/// - The run takes its budget and the [guaranteed](Self::guaranteed) times of the steps that
///   [always](Step::always) run, at most. When the budget is spent, the others are skipped.
/// - When it has returned, nothing of a step is alive, except for what the report calls
///   [still running](End::StillRunning).
///
/// # Steps that block their thread
///
/// Each step runs in a task of its own, so one that blocks its thread, in a destructor too, has its
/// deadline all the same: 100 ms after it the step is reported as still running, and the next one
/// begins. Those 100 ms come on top of the budget. On a runtime with a single thread, such as the
/// `current_thread` flavor, a task that blocks it holds up the run too: then the run goes on when
/// the step comes back, which counts as done, with a warning. [`Step::blocking`] is for steps that must
/// block, and keeps its deadline on every runtime.
///
/// # What it cannot do
///
/// - Nothing ends a thread: a step that blocks one goes on until it comes back, or the process ends.
/// - What a step has spawned, a task or a closure on a thread, is not ended with it.
/// - Nothing runs when the process is killed.
///
/// The idea is Go's `defer` and Python's `AsyncExitStack`; that the end of each one is bounded, and
/// that an overrun is cut, is how an Erlang supervisor ends its children.
///
/// # Drop
///
/// There is no asynchronous drop, so dropping a `Cleanup` **runs no step**: those that have not
/// run are dropped, the one under way is aborted, and the log has a warning with their names. One that
/// always runs is no exception. A cleanup without steps, or one that has run, is dropped silently.
///
/// # Comparison to `Drop`
///
/// A destructor closes what can be closed without waiting, and runs whatever way a scope is left. A
/// cleanup is for what has to be awaited, may fail and must not take for ever. For one resource,
/// `tokio::time::timeout(limit, db.close())` after the group's wait does the same.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::TaskGroup;
/// use taskgroup::lifecycle::cleanup::{Cleanup, Step};
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
    // A step is `Send` and nothing more; the lock, which is never taken, makes the cleanup `Sync`.
    run: Mutex<Option<Box<Going>>>,
    /// Whether it is an error to drop it with steps that have not run.
    owes: bool,
}

/// Pushes steps onto a [`Cleanup`] from anywhere; cheap to clone.
///
/// It never keeps the cleanup alive or open. When the run has begun, or the cleanup is gone, a push
/// is refused and gives the step back.
///
/// # Examples
///
/// ```
/// use taskgroup::lifecycle::cleanup::{Cleanup, Step};
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
    /// How long it took, once nothing is left to run.
    took: Option<Duration>,
}

impl Cleanup {
    /// Makes a cleanup without steps.
    ///
    /// # Examples
    ///
    /// ```
    /// let cleanup = taskgroup::lifecycle::cleanup::Cleanup::new();
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

    /// Makes a cleanup for what may never begin: dropped before [`owe`](Self::owe), it says nothing.
    pub(crate) fn that_owes_nothing() -> Self {
        Self {
            registry: Registry::new(),
            group: TaskGroup::named("cleanup"),
            run: Mutex::new(None),
            owes: false,
        }
    }

    /// From here on its steps have to be run.
    pub(crate) fn owe(&mut self) {
        self.owes = true;
    }

    /// Runs the steps in `group`, which says then that they are running.
    pub(crate) fn run_in(&mut self, group: TaskGroup) {
        self.group = group;
    }

    /// Pushes a step: it runs before those of its priority that were pushed before.
    ///
    /// The handle can take it back; dropping the handle changes nothing.
    ///
    /// # Errors
    ///
    /// The run has begun, or the step makes no sense: an empty name, a deadline or a guaranteed time
    /// of zero, a best effort that is fatal. The error gives the step back.
    ///
    /// # Examples
    ///
    /// See [`Cleanup`] and [`StepHandle`].
    pub fn push(&self, step: Step) -> Result<StepHandle, PushError> {
        self.registry.push(step)
    }

    /// Returns the name of the step under way, and how long it has still.
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
    /// use taskgroup::lifecycle::cleanup::{Cleanup, Priority, Step};
    ///
    /// let cleanup = Cleanup::new();
    /// let step = |name| Step::new(name, |_| async { Ok(()) });
    /// cleanup.push(step("secrets").priority(Priority::Critical)).unwrap();
    /// cleanup.push(step("database")).unwrap();
    /// cleanup.push(step("cache")).unwrap();
    /// assert_eq!(cleanup.pending(), ["secrets", "cache", "database"]);
    /// ```
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        self.registry.names()
    }

    /// Returns what the run may take beyond its budget: the guaranteed times of the steps that
    /// [always](Step::always) run and whose turn has not come, together.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::lifecycle::cleanup::{Cleanup, Step};
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
    /// The clock starts when the returned future is first polled. From then on a push is refused.
    /// `outcome` is what the steps are told: `&result` of the group's wait, or an [`Outcome`].
    ///
    /// Any budget will do. With zero, only steps that [always](Step::always) run do, and the others
    /// are skipped; with [`Duration::MAX`] each step has its own deadline and there is no other.
    ///
    /// A second run does nothing and returns the same report.
    ///
    /// A failure is in the report and logged at DEBUG; a panic is logged at ERROR, the failure of a
    /// best effort at WARN, and so is a step that was done after its time, because its thread was
    /// blocked.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime whose timers are enabled. No panic of a step comes out of it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops nothing: the step under way goes on in its task, within its time, and
    /// no other one begins. The next call goes on from there, with the outcome and the budget of the
    /// first call. The clock runs on meanwhile.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::lifecycle::cleanup::{Cleanup, Outcome, Step};
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
        // Here and not in the future, which is `Send` whatever the outcome is made of.
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
    /// As [`Cleanup::push`], and when the cleanup is gone.
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

    /// Runs what there is to run. Cancel safe: all state is in `self`, in the registry and in the group.
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
        // The destructors of skipped steps, and steps that were still running a while ago.
        drop(timeout(CONFIRMATION, group.wait()).await);
        report
    }

    /// Begins a step or skips it.
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
        // Its destructor may block, too.
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

/// Drops a step that has not begun, with all it captured.
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

/// No step runs for it. The one under way is aborted with the group, after this.
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
