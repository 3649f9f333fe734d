//! [`StepReport`]: what became of one step.

use std::fmt;
use std::time::Duration;

use crate::group::time::Rounded;

/// Which steps go first, in the order of the variants; within one, the last pushed goes first.
///
/// # Examples
///
/// ```
/// use taskgroup::lifecycle::cleanup::Priority;
///
/// assert!(Priority::Critical < Priority::Normal, "what is less goes first");
/// assert_eq!(Priority::default(), Priority::Normal);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Before all others: what must not be lost when time is short.
    Critical,
    /// The default.
    #[default]
    Normal,
    /// After all others: what may be skipped when time is short.
    Low,
}

/// What became of one step of a [`Cleanup`](crate::lifecycle::cleanup::Cleanup); plain data.
///
/// # Examples
///
/// See [`CleanupReport`](crate::lifecycle::cleanup::CleanupReport).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepReport {
    /// Its name.
    pub name: String,
    /// Its priority.
    pub priority: Priority,
    /// Whether it was a best effort, whose failure is none of the cleanup.
    pub best_effort: bool,
    /// When its first attempt began, since the run began; `None` if it was skipped.
    pub started: Option<Duration>,
    /// When its last attempt ended or was cut, since the run began; `None` if it was skipped.
    pub ended: Option<Duration>,
    /// How many attempts have begun.
    pub attempts: u32,
    /// How it ended.
    pub result: StepResult,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepResult {
    /// It did its work.
    Done,
    /// Its last attempt returned this error, with the sources of it.
    Failed(String),
    /// It had not ended after this time and was dropped.
    TimedOut(Duration),
    /// It had not ended after this time and could not be dropped: it blocks its thread.
    StillRunning(Duration),
    /// It panicked with this message, or a destructor of it did.
    Panicked(String),
    /// It has never begun.
    Skipped(SkipReason),
}

/// Why a step was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// The budget, of this much, was spent.
    BudgetSpent(Duration),
    /// The fatal step of this name had not been done.
    AfterFatal(String),
    /// Two steps in a row had failed on this target.
    TargetGivenUp(String),
}

impl StepReport {
    /// Returns whether this keeps the cleanup from being clean: not done, and no best effort.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.result != StepResult::Done && !self.best_effort
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Low => "low",
        })
    }
}

impl fmt::Display for StepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cleanup step `{}` {}", self.name, self.result)
    }
}

impl fmt::Display for StepResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(error) => write!(f, "failed: {error}"),
            Self::TimedOut(time) => write!(f, "timed out after {}", Rounded(*time)),
            Self::StillRunning(time) => write!(f, "still running after {}", Rounded(*time)),
            Self::Panicked(message) => write!(f, "panicked: {message}"),
            Self::Skipped(reason) => write!(f, "skipped: {reason}"),
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BudgetSpent(budget) => write!(f, "the budget of {} was spent", Rounded(*budget)),
            Self::AfterFatal(step) => write!(f, "fatal step `{step}` was not done"),
            Self::TargetGivenUp(target) => write!(f, "target `{target}` was given up"),
        }
    }
}
