//! [`Step`]: one step of a cleanup.

use std::borrow::Cow;
use std::fmt;
use std::future::ready;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use super::outcome::Outcome;
use super::plan::Rules;
use super::step_report::Priority;
use crate::BoxError;
use crate::group::lock::into_inner;
use crate::group::panic::Panic;

/// One step of a cleanup: a name, an async function and options.
/// [Push](crate::cleanup::Cleanup::push) it onto a
/// [`Cleanup`](crate::cleanup::Cleanup).
///
/// Without options a step has normal priority, [5 seconds](Self::DEFAULT_DEADLINE) and one attempt. If it
/// fails, the cleanup fails, and the other steps still run.
///
/// The function gets the [`Outcome`] of the active phase and returns a `Result<(), BoxError>`, so `?`
/// accepts any error. It is called only when the step's turn has come. A panic in it, in its future or in a
/// destructor of either ends only this step.
///
/// The step runs in its own task. A step that blocks its thread delays neither the cleanup nor its own
/// deadline, as long as the runtime has another free thread. On a runtime with a single thread it blocks
/// everything. [`Step::blocking`] never does.
///
/// Names are for people and need not be unique: ten connections may be ten steps named `connection`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::cleanup::Step;
///
/// # async fn deregister() -> std::io::Result<()> { Ok(()) }
/// # struct Db;
/// # impl Db { async fn commit(&self) {} async fn close(self) -> std::io::Result<()> { Ok(()) } }
/// # let db = Db;
/// let database = Step::new("database", move |outcome| async move {
///     if outcome.is_clean() {
///         db.commit().await;
///     }
///     Ok(db.close().await?)
/// });
/// let registry = Step::retrying("registry", 3, Duration::from_millis(100), |_| async {
///     Ok(deregister().await?)
/// });
/// let registry = registry
///     .best_effort()
///     .deadline(Duration::from_secs(1))
///     .critical()
///     .target("consul");
/// assert_eq!(registry.name(), "registry");
/// ```
#[must_use = "a step does nothing until it is pushed onto a cleanup"]
pub struct Step {
    name: Cow<'static, str>,
    rules: Rules,
    place: &'static Location<'static>,
    // The function is only `Send`. The lock makes the step `Sync`, so that the error of a refused push can be
    // boxed.
    work: Mutex<Work>,
}

/// An attempt under way. It yields what the function returned, or its panic.
pub(super) type Attempt = Pin<Box<dyn Future<Output = Result<Returned, Panic>> + Send>>;

type Returned = Result<(), BoxError>;
pub(super) type Closure = Box<dyn FnOnce(Outcome) -> Returned + Send>;
type StepFuture = Pin<Box<dyn Future<Output = Returned> + Send>>;

/// The function of a step.
pub(super) enum Work {
    Once(Box<dyn FnOnce(Outcome) -> StepFuture + Send>),
    Again(Box<dyn FnMut(Outcome) -> StepFuture + Send>),
    Blocking(Closure),
}

impl Step {
    /// The default deadline of a step, 5 seconds.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::cleanup::Step;
    ///
    /// assert_eq!(Step::DEFAULT_DEADLINE, Duration::from_secs(5));
    /// ```
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

    /// Makes a step that is attempted once.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::cleanup::Step;
    ///
    /// let file = tokio::fs::File::open("journal");
    /// let step = Step::new("journal", |_| async { Ok(file.await?.sync_all().await?) });
    /// assert_eq!(step.name(), "journal");
    /// ```
    #[track_caller]
    pub fn new<F, Fut>(name: impl Into<Cow<'static, str>>, function: F) -> Self
    where
        F: FnOnce(Outcome) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let work = Work::Once(Box::new(|outcome| Box::pin(function(outcome))));
        Self::with_work(name.into(), 0, Duration::ZERO, work)
    }

    /// Makes a step that is retried when it fails, at most `retries` times.
    ///
    /// The pause before the first retry is `backoff`, and each further pause is twice as long, without
    /// jitter. Either may be zero, for no retry or for one without a pause. All attempts and pauses share
    /// the step's [deadline](Self::deadline). The step does not wait for a retry that could not begin
    /// within it. Only errors are retried. A step that overruns has no time left, and a panic is a bug that
    /// would happen again.
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
    /// let mut failures = 2;
    /// cleanup.push(Step::retrying("lease", 3, Duration::from_millis(100), move |_| {
    ///     let refused = failures > 0;
    ///     failures -= 1;
    ///     async move { if refused { Err("busy".into()) } else { Ok(()) } }
    /// }))?;
    ///
    /// let report = cleanup.run(Outcome::Clean, Duration::from_secs(10)).await;
    /// assert!(report.is_clean());
    /// assert_eq!(report.steps[0].attempts, 3);
    /// assert_eq!(report.took, Duration::from_millis(100 + 200));
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn retrying<F, Fut>(
        name: impl Into<Cow<'static, str>>,
        retries: u32,
        backoff: Duration,
        mut function: F,
    ) -> Self
    where
        F: FnMut(Outcome) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let work = Work::Again(Box::new(move |outcome| Box::pin(function(outcome))));
        Self::with_work(name.into(), retries, backoff, work)
    }

    /// Makes a step that blocks its thread. It runs once, on a thread for blocking work.
    ///
    /// A thread cannot be ended. When the step's [deadline](Self::deadline) is over, the cleanup leaves it
    /// alone, reports it as [still running](crate::End::StillRunning) and goes on. This holds on every
    /// runtime, including one with a single thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::cleanup::Step;
    ///
    /// let step = Step::blocking("journal", |_| {
    ///     std::fs::File::open("journal")?.sync_all()?;
    ///     Ok(())
    /// });
    /// assert_eq!(step.name(), "journal");
    /// ```
    #[track_caller]
    pub fn blocking<F>(name: impl Into<Cow<'static, str>>, closure: F) -> Self
    where
        F: FnOnce(Outcome) -> Result<(), BoxError> + Send + 'static,
    {
        let work = Work::Blocking(Box::new(closure));
        Self::with_work(name.into(), 0, Duration::ZERO, work)
    }

    #[track_caller]
    fn with_work(name: Cow<'static, str>, retries: u32, backoff: Duration, work: Work) -> Self {
        let rules = Rules {
            priority: Priority::Normal,
            deadline: Self::DEFAULT_DEADLINE,
            retries,
            backoff,
            best_effort: false,
            fatal: false,
            always: None,
            target: None,
        };
        Self {
            name,
            rules,
            place: Location::caller(),
            work: Mutex::new(work),
        }
    }

    /// Sets the time for all attempts of the step. It never gets more than is left of the budget.
    ///
    /// The default is [5 seconds](Self::DEFAULT_DEADLINE). With [`Duration::MAX`] the step gets whatever is
    /// left. The push refuses zero.
    ///
    /// # Examples
    ///
    /// See [`Step`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.rules.deadline = deadline;
        self
    }

    /// Runs the step before all others, for steps that must run even when time is short.
    ///
    /// Among critical steps the last pushed goes first. A later call of [`low`](Self::low) takes this back.
    ///
    /// # Examples
    ///
    /// See [`Step`].
    pub fn critical(mut self) -> Self {
        self.rules.priority = Priority::Critical;
        self
    }

    /// Runs the step after all others, for steps that may be skipped when time is short.
    ///
    /// Among low steps the last pushed goes first. A later call of [`critical`](Self::critical) takes this
    /// back.
    pub fn low(mut self) -> Self {
        self.rules.priority = Priority::Low;
        self
    }

    /// Allows the step to fail. A failure is logged as a warning, and the cleanup is still clean.
    ///
    /// A panic is still logged at ERROR. The push refuses a best-effort step that is also
    /// [fatal](Self::fatal).
    ///
    /// # Examples
    ///
    /// See [`Step`].
    pub fn best_effort(mut self) -> Self {
        self.rules.best_effort = true;
        self
    }

    /// Makes a failure of the step skip all steps after it, except those that [always](Self::always) run.
    ///
    /// Use it for a step that the others rely on. For example, when the journal cannot be flushed,
    /// truncating it would lose data. A fatal step that was skipped counts as failed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::End;
    /// use taskgroup::cleanup::{Cleanup, Outcome, Step};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let mut cleanup = Cleanup::new();
    /// cleanup.push(Step::new("truncate", |_| async { unreachable!() }))?;
    /// cleanup.push(Step::new("flush", |_| async { Err("disk full".into()) }).fatal())?;
    ///
    /// let report = cleanup.run(Outcome::Clean, Duration::from_secs(8)).await;
    /// assert_eq!(report.steps[1].end, End::Skipped);
    /// assert_eq!(report.steps[1].message, "fatal step `flush` was not done");
    /// # Ok(())
    /// # }
    /// ```
    pub fn fatal(mut self) -> Self {
        self.rules.fatal = true;
        self
    }

    /// Makes the step run even after the budget is spent, after a fatal failure, or when its target has
    /// been given up.
    ///
    /// Use it for example to erase secrets. The step gets at least the time `guaranteed`, unless its own
    /// [deadline](Self::deadline) is shorter. So the run may exceed its budget by this much, see
    /// [`Cleanup::guaranteed`](crate::cleanup::Cleanup::guaranteed). Keep it small. The push
    /// refuses zero. The step's turn still depends on its priority.
    ///
    /// It does not run if the cleanup is never run, or if the process is killed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::cleanup::{Cleanup, Outcome, Step};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let mut cleanup = Cleanup::new();
    /// let erase = Step::new("key", |_| async { Ok(()) });
    /// cleanup.push(erase.always(Duration::from_millis(100)))?;
    ///
    /// let report = cleanup.run(Outcome::Clean, Duration::ZERO).await;
    /// assert!(report.is_clean(), "it has run, without a budget");
    /// # Ok(())
    /// # }
    /// ```
    pub fn always(mut self, guaranteed: Duration) -> Self {
        self.rules.always = Some(guaranteed);
        self
    }

    /// Names the external service that the step needs, such as `consul`.
    ///
    /// When two steps in a row have failed on a target, with all their retries, the target counts as down.
    /// The remaining steps that name it are skipped, since each would cost a deadline.
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
    /// for service in ["orders", "billing", "search"] {
    ///     let deregister = Step::new(service, |_| std::future::pending());
    ///     cleanup.push(deregister.deadline(Duration::from_secs(1)).target("consul"))?;
    /// }
    /// let report = cleanup.run(Outcome::Clean, Duration::from_secs(8)).await;
    /// assert_eq!(report.took, Duration::from_secs(2), "the third one was skipped");
    /// # Ok(())
    /// # }
    /// ```
    pub fn target(mut self, target: impl Into<Cow<'static, str>>) -> Self {
        self.rules.target = Some(target.into());
        self
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Where the step was made.
    pub(super) fn place(&self) -> &'static Location<'static> {
        self.place
    }

    pub(super) fn into_parts(self) -> (Cow<'static, str>, Rules, Work) {
        let work = into_inner(self.work);
        (self.name, self.rules, work)
    }
}

impl Work {
    /// Begins an attempt, and returns the work for the next one.
    pub(super) fn attempt(self, outcome: Outcome) -> (Attempt, Option<Self>) {
        match self {
            Self::Once(function) => {
                let attempt = Panic::catch_future(async move { function(outcome).await });
                (Box::pin(attempt), None)
            }
            Self::Again(mut function) => {
                let attempt: Attempt = match Panic::catch(|| function(outcome)) {
                    Ok(future) => Box::pin(Panic::catch_future(future)),
                    Err(panic) => Box::pin(ready(Err(panic))),
                };
                (attempt, Some(Self::Again(function)))
            }
            Self::Blocking(closure) => {
                let attempt = Panic::catch_future(async move { closure(outcome) });
                (Box::pin(attempt), None)
            }
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step")
            .field("name", &self.name)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
