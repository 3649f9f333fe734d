//! [`CleanupReport`]: what became of all steps, and [`CleanupError`].

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::outcome::Outcome;
use super::step_report::SkipReason;
use super::step_report::StepReport;
use super::step_report::StepResult;
use crate::group::end::End;
use crate::group::time::Rounded;
use crate::group::verdict;
use crate::group::verdict::Ended;

/// What a [`Cleanup`](crate::lifecycle::cleanup::Cleanup) did, step by step in the order of their turns; plain data.
///
/// It prints as a table with a line for each step, which does not end in a line break. Times are cut
/// to milliseconds there, and whatever would break a line is a space.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::lifecycle::cleanup::{Cleanup, Outcome, Step, StepResult};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let mut cleanup = Cleanup::new();
/// cleanup.push(Step::new("database", |_| async { Ok(()) }))?;
/// cleanup.push(Step::new("cache", |_| std::future::pending()))?;
///
/// let report = cleanup.run(Outcome::Clean, Duration::from_secs(20)).await;
/// assert_eq!(report.steps[0].result, StepResult::TimedOut(Duration::from_secs(5)));
/// assert_eq!(report.steps[1].result, StepResult::Done);
/// assert_eq!(
///     report.to_string(),
///     "\
/// cleanup took 5s of 20s; the active phase was clean
///   step      priority  began  took  result
///   cache     normal    0s     5s    timed out after 5s
///   database  normal    5s     0s    done"
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanupReport {
    /// How the active phase ended, as the steps were told.
    pub outcome: Outcome,
    /// The budget of the run.
    pub budget: Duration,
    /// How long the run took.
    pub took: Duration,
    /// The steps in the order of their turns.
    pub steps: Vec<StepReport>,
}

/// The error of a cleanup that was not clean: its first failure, and the whole report.
///
/// The message names the step: ``cleanup step `database` failed: disk full``.
///
/// # Examples
///
/// See [`CleanupReport::into_result`].
#[derive(Clone, PartialEq, Eq)]
pub struct CleanupError {
    first: Box<StepReport>,
    report: Box<CleanupReport>,
}

impl CleanupReport {
    /// Returns whether every step was done, except for those that were a best effort.
    ///
    /// A step that was skipped was not done.
    ///
    /// # Examples
    ///
    /// See [`into_result`](Self::into_result).
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failures().next().is_none()
    }

    /// Returns the steps that keep it from being clean, in their order.
    ///
    /// # Examples
    ///
    /// See [`into_result`](Self::into_result).
    pub fn failures(&self) -> impl Iterator<Item = &StepReport> {
        self.steps.iter().filter(|step| step.is_failure())
    }

    /// Returns `Ok` if the cleanup was clean.
    ///
    /// # Errors
    ///
    /// Names the first of the [failures](Self::failures).
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
    /// cleanup.push(Step::new("cache", |_| async { Err("is gone".into()) }).best_effort())?;
    /// cleanup.push(Step::new("database", |_| async { Err("disk full".into()) }))?;
    ///
    /// let report = cleanup.run(Outcome::Clean, Duration::from_secs(20)).await;
    /// assert!(!report.is_clean());
    /// assert_eq!(report.failures().count(), 1, "a best effort is none");
    /// let error = report.into_result().unwrap_err();
    /// assert_eq!(error.to_string(), "cleanup step `database` failed: disk full");
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_result(self) -> Result<(), CleanupError> {
        let Some(first) = self.failures().next().cloned() else {
            return Ok(());
        };
        Err(CleanupError {
            first: Box::new(first),
            report: Box::new(self),
        })
    }
}

impl CleanupError {
    /// Returns the first step that failed.
    #[must_use]
    pub fn step(&self) -> &StepReport {
        &self.first
    }

    /// Returns how the first step that failed has ended; a timeout gives way to any other failure.
    #[must_use]
    pub fn end(&self) -> End {
        let ends: Vec<_> = self.report.failures().filter_map(end_of).collect();
        let other = ends.iter().find(|end| !end.is_forced());
        other.or(ends.first()).copied().unwrap_or(End::Failed)
    }

    /// Returns the report of all steps.
    #[must_use]
    pub fn report(&self) -> &CleanupReport {
        &self.report
    }
}

impl fmt::Display for CleanupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (took, budget) = (Rounded(self.took), Rounded(self.budget));
        write!(f, "cleanup took {took} of {budget}")?;
        let outcome = one_line(&self.outcome.to_string());
        write!(f, "; the active phase was {outcome}")?;
        if self.steps.is_empty() {
            return Ok(());
        }
        let head = ["step", "priority", "began", "took", "result"].map(str::to_owned);
        let rows: Vec<_> = [head]
            .into_iter()
            .chain(self.steps.iter().map(row))
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths = [0, 1, 2, 3].map(|column| width(column).unwrap_or(0));
        rows.iter().try_for_each(|row| {
            f.write_str("\n")?;
            for (cell, width) in row.iter().zip(widths) {
                write!(f, "  {cell:width$}")?;
            }
            write!(f, "  {}", row[4])
        })
    }
}

/// The cells of a step.
fn row(step: &StepReport) -> [String; 5] {
    let took = step.ended.zip(step.started).map(|(end, start)| end - start);
    let time = |time: Option<Duration>| match time {
        Some(time) => Rounded(time).to_string(),
        None => "-".to_owned(),
    };
    let tries = match step.attempts {
        0 | 1 => String::new(),
        attempts => format!(" ({attempts} attempts)"),
    };
    [
        one_line(&step.name),
        step.priority.to_string(),
        time(step.started),
        time(took),
        one_line(&format!("{}{tries}", step.result)),
    ]
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// How a step ended. One that was skipped for want of another says nothing of its own.
fn end_of(step: &StepReport) -> Option<End> {
    match step.result {
        StepResult::Panicked(_) => Some(End::Panicked),
        StepResult::TimedOut(_) | StepResult::Skipped(SkipReason::BudgetSpent(_)) => {
            Some(End::TimedOut)
        }
        StepResult::StillRunning(_) => Some(End::StillRunning),
        StepResult::Skipped(_) => None,
        _ => Some(End::Failed),
    }
}

impl fmt::Display for CleanupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        match self.report.failures().count() {
            0 | 1 => Ok(()),
            2 => f.write_str("; one more step was not done"),
            count => write!(f, "; {} more steps were not done", count - 1),
        }
    }
}

impl fmt::Debug for CleanupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CleanupError")
            .field("message", &format_args!("{self}"))
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

impl Error for CleanupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        verdict::tell(self);
        None
    }
}

impl Ended for CleanupError {
    fn end(&self) -> End {
        self.end()
    }

    fn as_error(&self) -> &(dyn Error + 'static) {
        self
    }
}

/// What [`Exit`](crate::Exit) takes.
impl AsRef<dyn Error + Send + Sync> for CleanupError {
    fn as_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }
}
