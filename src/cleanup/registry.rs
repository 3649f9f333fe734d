//! The steps that wait for their turn, [`StepHandle`] and [`PushError`].

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::step::Step;
use super::step_report::Priority;

use crate::group::lock::lock;

/// Withdraws a step, for a resource that was closed earlier.
///
/// Dropping the handle has no effect, and the step stays in place.
///
/// # Examples
///
/// ```
/// use taskgroup::cleanup::{Cleanup, Step};
///
/// let cleanup = Cleanup::new();
/// let close = cleanup.push(Step::new("connection", |_| async { Ok(()) })).unwrap();
///
/// let step = close.withdraw().unwrap();
/// assert_eq!(step.name(), "connection");
/// assert!(close.withdraw().is_none(), "it has been taken back already");
/// assert!(cleanup.pending().is_empty());
/// ```
pub struct StepHandle {
    registry: Arc<Registry>,
    key: Key,
}

/// A push that was refused. It contains the step.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::cleanup::{Cleanup, Outcome, Step};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut cleanup = Cleanup::new();
/// let zero = Step::new("cache", |_| async { Ok(()) }).deadline(Duration::ZERO);
/// let error = cleanup.push(zero).unwrap_err();
/// assert_eq!(error.to_string(), "cleanup step `cache` has a deadline of 0s: it could never run");
///
/// cleanup.run(Outcome::Clean, Duration::from_secs(1)).await;
/// let error = cleanup.push(error.into_step().deadline(Duration::MAX)).unwrap_err();
/// assert!(error.is_closed());
/// # }
/// ```
pub struct PushError {
    reason: Reason,
    // Boxed, to keep errors small.
    step: Box<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Closed,
    EmptyName,
    ZeroDeadline,
    ZeroGuarantee,
    FatalBestEffort,
}

/// The steps that have not begun. It is closed once, by the run or when the cleanup is dropped.
pub(super) struct Registry(Mutex<Inner>);

struct Inner {
    open: bool,
    pushed: u64,
    /// In the order in which they are to run.
    steps: BTreeMap<Key, Step>,
}

/// The place of a step in the order: critical first, and then the last pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(Priority, Reverse<u64>);

impl StepHandle {
    /// Withdraws the step, unless it has begun.
    ///
    /// This also works while the cleanup runs, until the step's turn comes. A withdrawn step never runs and
    /// is not in the report. Returns `None` if the step has begun, was skipped, was withdrawn before, or
    /// was dropped with its cleanup.
    ///
    /// # Examples
    ///
    /// See [`StepHandle`].
    #[must_use = "`None` means that it is too late"]
    pub fn withdraw(&self) -> Option<Step> {
        self.registry.lock().steps.remove(&self.key)
    }
}

impl PushError {
    /// Returns whether the cleanup is closed, because its run has begun or it was dropped.
    ///
    /// Otherwise the step is invalid, as the message says.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.reason == Reason::Closed
    }

    /// Returns the step.
    pub fn into_step(self) -> Step {
        *self.step
    }
}

impl Registry {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            open: true,
            pushed: 0,
            steps: BTreeMap::new(),
        })))
    }

    pub(super) fn push(self: &Arc<Self>, step: Step) -> Result<StepHandle, PushError> {
        let refused = |reason, step| {
            let step = Box::new(step);
            Err(PushError { reason, step })
        };
        if let Some(reason) = objection(&step) {
            return refused(reason, step);
        }
        let mut inner = self.lock();
        if !inner.open {
            return refused(Reason::Closed, step);
        }
        inner.pushed += 1;
        let key = Key(step.rules().priority, Reverse(inner.pushed));
        inner.steps.insert(key, step);
        Ok(StepHandle {
            registry: Arc::clone(self),
            key,
        })
    }

    /// Refuses further steps.
    pub(super) fn close(&self) {
        self.lock().open = false;
    }

    /// Removes the step whose turn it is.
    pub(super) fn pop(&self) -> Option<Step> {
        self.lock().steps.pop_first().map(|(_, step)| step)
    }

    /// The names of the steps, in the order in which they are to run.
    pub(super) fn names(&self) -> Vec<String> {
        let inner = self.lock();
        inner.steps.values().map(|s| s.name().to_owned()).collect()
    }

    /// The sum of the guaranteed times of the always-run steps.
    pub(super) fn guaranteed(&self) -> Duration {
        let inner = self.lock();
        let times = inner.steps.values().filter_map(guaranteed);
        times.fold(Duration::ZERO, Duration::saturating_add)
    }

    /// Locks the steps. No user code runs under this lock, so a poisoned one is still consistent.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }
}

/// What an always-run step may take beyond the budget.
fn guaranteed(step: &Step) -> Option<Duration> {
    let rules = step.rules();
    Some(rules.always?.min(rules.deadline))
}

/// Returns why a step is invalid, if it is.
fn objection(step: &Step) -> Option<Reason> {
    let rules = step.rules();
    if step.name().is_empty() {
        Some(Reason::EmptyName)
    } else if rules.deadline.is_zero() {
        Some(Reason::ZeroDeadline)
    } else if rules.always.is_some_and(|time| time.is_zero()) {
        Some(Reason::ZeroGuarantee)
    } else if rules.fatal && rules.best_effort {
        Some(Reason::FatalBestEffort)
    } else {
        None
    }
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.step.name();
        match self.reason {
            Reason::Closed => write!(f, "cleanup step `{name}` came when the cleanup was closed"),
            Reason::EmptyName => f.write_str("a cleanup step has an empty name"),
            Reason::ZeroDeadline => write!(
                f,
                "cleanup step `{name}` has a deadline of 0s: it could never run"
            ),
            Reason::ZeroGuarantee => write!(
                f,
                "cleanup step `{name}` always runs and has a guaranteed time of 0s"
            ),
            Reason::FatalBestEffort => {
                write!(f, "cleanup step `{name}` is both a best effort and fatal")
            }
        }
    }
}

impl std::error::Error for PushError {}

/// `main` prints the message of an error that it returns. `{:#?}` shows the fields.
impl fmt::Debug for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        f.debug_struct("PushError")
            .field("reason", &self.reason)
            .field("step", &self.step)
            .finish()
    }
}

impl fmt::Debug for StepHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.registry.lock();
        let name = inner
            .steps
            .get(&self.key)
            .map(|step| step.name().to_owned());
        drop(inner);
        f.debug_struct("StepHandle")
            .field("waiting", &name)
            .finish()
    }
}
