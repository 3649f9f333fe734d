//! [`StepReport`]: what became of one step.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::cleanup::words;
use crate::group::end::End;

/// The order of the steps, as in the variants. Within a priority, the last pushed goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    Critical,
    Normal,
    Low,
}

/// What became of one step of a [`Cleanup`](crate::cleanup::Cleanup). Plain data, and the step's
/// error.
///
/// # Examples
///
/// See [`CleanupReport`](crate::cleanup::CleanupReport).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StepReport {
    /// Its name.
    pub name: String,
    pub(crate) priority: Priority,
    /// Whether the step was best-effort. Its failure does not fail the cleanup.
    pub best_effort: bool,
    /// When its first attempt began, since the begin of the run. `None` if it was skipped.
    pub started: Option<Duration>,
    /// When its last attempt ended or was cut, since the begin of the run. `None` if it was skipped.
    pub ended: Option<Duration>,
    /// How many attempts have begun.
    pub attempts: u32,
    /// How it ended.
    ///
    /// It is [`Skipped`](End::Skipped) if no attempt has begun. It is [`StillRunning`](End::StillRunning)
    /// if its time was over and it could not be dropped because it blocked its thread.
    pub end: End,
    /// The time limit that was exceeded. It is that of the step, or the budget of the run if that was spent
    /// before the step could begin.
    pub limit: Option<Duration>,
    /// The error of the last attempt with its sources, the message of the panic, or why the step was
    /// skipped. Empty if the end says it all.
    pub message: String,
    pub(super) error: Option<StepError>,
}

/// The error that the last attempt of a step returned, or its panic.
pub(super) type StepError = Arc<dyn Error + Send + Sync>;

impl StepReport {
    /// Returns the error that the last attempt returned, or its [`Panic`](crate::group::Panic).
    ///
    /// # Examples
    ///
    /// See [`CleanupReport::into_result`](crate::cleanup::CleanupReport::into_result).
    #[must_use]
    pub fn error(&self) -> Option<&(dyn Error + 'static)> {
        self.error.as_deref().map(|error| error as _)
    }

    /// Returns whether the step keeps the cleanup from being clean: it was not done, and is not
    /// best-effort.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.end != End::Done && !self.best_effort
    }

    /// Whether it was cut, or never begun, because time ran out.
    pub(crate) fn is_out_of_time(&self) -> bool {
        self.limit.is_some()
    }

    /// What happened, without the error.
    pub(crate) fn what(&self) -> String {
        let message = match self.error {
            Some(_) => "",
            None => &*self.message,
        };
        let how = words::ended(self.end, self.limit, message);
        format!("cleanup step `{}` {how}", self.name)
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
        let how = words::ended(self.end, self.limit, &self.message);
        write!(f, "cleanup step `{}` {how}", self.name)
    }
}
