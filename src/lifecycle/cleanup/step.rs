//! [`Step`]: one thing to be done at the end.

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

/// One thing to be done at the end: a name, an async function and options, to be
/// [pushed](crate::lifecycle::cleanup::Cleanup::push) onto a [`Cleanup`](crate::lifecycle::cleanup::Cleanup).
///
/// Without options a step has normal priority, [5 seconds](Self::DEFAULT_DEADLINE) and one attempt,
/// and its failure makes the cleanup fail and keeps no other step from running.
///
/// The function is given the [`Outcome`] of the active phase and returns a `Result<(), BoxError>`, so
/// that `?` takes any error. It is called when the step's turn has come, never before. A panic in it,
/// in its future or in a destructor of either ends the step and nothing else.
///
/// The step runs in a task of its own. One that blocks its thread holds up neither the cleanup nor its
/// own deadline, as long as another thread of the runtime is free. On a runtime with a single thread it
/// holds up everything; [`Step::blocking`] holds up nothing anywhere.
///
/// Names are for people, and two steps may have the same: ten connections are ten times
/// `connection`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::lifecycle::cleanup::{Priority, Step};
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
///     .priority(Priority::Critical)
///     .target("consul");
/// assert_eq!(registry.name(), "registry");
/// ```
#[must_use = "a step does nothing until it is pushed onto a cleanup"]
pub struct Step {
    name: Cow<'static, str>,
    rules: Rules,
    place: &'static Location<'static>,
    // The function is `Send` and nothing more; the lock makes the step `Sync`, so that the error of
    // a refused push can be boxed.
    work: Mutex<Work>,
}

/// An attempt under way: what the function returned, or the panic of it.
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
    /// The deadline of a step that is given no other: 5 seconds.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::lifecycle::cleanup::Step;
    ///
    /// assert_eq!(Step::DEFAULT_DEADLINE, Duration::from_secs(5));
    /// ```
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

    /// Makes a step that is attempted once.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::cleanup::Step;
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

    /// Makes a step that is attempted again when it fails, at most `retries` times.
    ///
    /// The pause before the first retry is `backoff`, and each further one is twice as long; there
    /// is no jitter. Zero for either will do: no retry, or a retry at once. All attempts and pauses
    /// share the step's [deadline](Self::deadline), and a retry that could not begin within it is
    /// not waited for. Only an error is retried: a step that overruns has no time left for another
    /// attempt, and a panic is a bug that would come again.
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

    /// Makes a step that blocks its thread: it runs on a thread for blocking work, once.
    ///
    /// Nothing can end a thread. When the step's [deadline](Self::deadline) is over, the cleanup leaves it
    /// alone, reports it as [still running](crate::End::StillRunning), and goes on. This holds
    /// on every runtime, also on one with a single thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::cleanup::Step;
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

    /// Sets the time the step gets for all its attempts, never more than is left of the budget.
    ///
    /// The default is [5 seconds](Self::DEFAULT_DEADLINE). With [`Duration::MAX`] the step gets
    /// whatever is left. Zero is refused by the push.
    ///
    /// # Examples
    ///
    /// See [`Step`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.rules.deadline = deadline;
        self
    }

    /// Sets when the step's turn comes; [`Priority::Normal`] is the default.
    ///
    /// # Examples
    ///
    /// See [`Step`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.rules.priority = priority;
        self
    }

    /// Makes the step one that may fail: the cleanup is clean all the same, and the log has a warning.
    ///
    /// A panic is logged at ERROR as ever. It cannot be [fatal](Self::fatal) too; the push refuses
    /// that.
    ///
    /// # Examples
    ///
    /// See [`Step`].
    pub fn best_effort(mut self) -> Self {
        self.rules.best_effort = true;
        self
    }

    /// Makes the step one whose failure skips all steps after it, except those that
    /// [always](Self::always) run.
    ///
    /// For what the others stand on: when the journal cannot be flushed, truncating it would lose
    /// data. A fatal step that was skipped counts as failed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::End;
    /// use taskgroup::lifecycle::cleanup::{Cleanup, Outcome, Step};
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

    /// Makes the step run whatever has happened before: after the budget is spent, after a fatal
    /// failure, and when its target has been given up.
    ///
    /// For erasing secrets. `guaranteed` is the time that it gets at least, if its own
    /// [deadline](Self::deadline) is not shorter; so the run may take this much longer than its
    /// budget, see [`Cleanup::guaranteed`](crate::lifecycle::cleanup::Cleanup::guaranteed). Keep it small; zero is
    /// refused by the push. Its turn is that of any other step of its priority.
    ///
    /// It cannot run when nobody runs the cleanup, or when the process is killed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use taskgroup::lifecycle::cleanup::{Cleanup, Outcome, Step};
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

    /// Names what the step needs outside of the process, such as `consul`.
    ///
    /// When two steps in a row have failed on a target, with all their retries, the other steps that
    /// name it are skipped: it is down, and they would cost a deadline each.
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
    /// Begins an attempt, and gives what is there for the next one.
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
