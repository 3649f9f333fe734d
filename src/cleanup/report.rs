//! [`CleanupReport`]: what became of all steps, and [`CleanupError`].

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::outcome::Outcome;
use super::step_report::StepReport;
use crate::cleanup::words;
use crate::cleanup::words::one_line;
use crate::group::chain;
use crate::group::end::End;
use crate::group::time::Rounded;
use crate::group::verdict;
use crate::group::verdict::Ended;

/// What a [`Cleanup`](crate::cleanup::Cleanup) did, step by step in the order of their turns.
/// Plain data.
///
/// It prints as a table with a line for each step, without a line break at the end. Times are cut to
/// milliseconds there, and line breaks are printed as spaces.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::End;
/// use taskgroup::cleanup::{Cleanup, Outcome, Step};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let mut cleanup = Cleanup::new();
/// cleanup.push(Step::new("database", |_| async { Ok(()) }))?;
/// cleanup.push(Step::new("cache", |_| std::future::pending()))?;
///
/// let report = cleanup.run(Outcome::Clean, Duration::from_secs(20)).await;
/// assert_eq!(report.steps[0].end, End::TimedOut);
/// assert_eq!(report.steps[0].limit, Some(Duration::from_secs(5)));
/// assert_eq!(report.steps[1].end, End::Done);
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
#[derive(Clone, Debug)]
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
/// The message names the first step, as in ``cleanup step `database` failed``, and then the other failures
/// with their reasons. [`source`](Error::source) is the error that the first step returned, or its panic.
/// `{:#}` prints each step with its reason on one line.
///
/// # Examples
///
/// See [`CleanupReport::into_result`].
#[derive(Clone)]
pub struct CleanupError {
    first: Box<StepReport>,
    report: Box<CleanupReport>,
}

impl CleanupReport {
    /// Returns whether every step was done, apart from best-effort steps.
    ///
    /// A skipped step was not done.
    ///
    /// # Examples
    ///
    /// See [`into_result`](Self::into_result).
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failures().next().is_none()
    }

    /// Returns the steps that keep the cleanup from being clean, in their order.
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
    /// The error names all [failures](Self::failures). Its source is the error of the first one.
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
    /// cleanup.push(Step::new("cache", |_| async { Err("is gone".into()) }).best_effort())?;
    /// cleanup.push(Step::new("database", |_| async { Err(std::io::Error::other("disk full").into()) }))?;
    ///
    /// let report = cleanup.run(Outcome::Clean, Duration::from_secs(20)).await;
    /// assert!(!report.is_clean());
    /// assert_eq!(report.failures().count(), 1, "a best effort is none");
    /// let error = report.into_result().unwrap_err();
    /// assert_eq!(error.to_string(), "cleanup step `database` failed");
    /// assert_eq!(format!("{error:#}"), "cleanup step `database` failed: disk full");
    /// assert!(error.step().error().unwrap().is::<std::io::Error>());
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

    /// Returns how the first step that failed has ended. Any other failure goes before a timeout.
    #[must_use]
    pub fn end(&self) -> End {
        let ends = self.report.failures().map(|step| step.end);
        // A step that was skipped because of another one does not determine the result.
        let mut other = ends.filter(|end| *end != End::Skipped && !end.is_forced());
        let mut late = self.report.failures().filter(|step| step.is_out_of_time());
        match (other.next(), late.next()) {
            (Some(end), _) => end,
            (None, Some(step)) if step.end == End::Skipped => End::TimedOut,
            (None, Some(step)) => step.end,
            (None, None) => End::Failed,
        }
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
        one_line(&(words::ended(step.end, step.limit, &step.message) + &tries)),
    ]
}

impl CleanupError {
    /// The other steps that failed, each with its reason.
    fn others(&self) -> impl Iterator<Item = String> {
        self.report.failures().skip(1).map(ToString::to_string)
    }
}

impl fmt::Display for CleanupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        chain::show_all(f, &self.first.what(), self.first.error(), self.others())
    }
}

impl fmt::Debug for CleanupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f
                .debug_struct("CleanupError")
                .field("report", &self.report)
                .finish_non_exhaustive();
        }
        chain::explain(f, &self.first.what(), self.first.error(), self.others())
    }
}

impl Error for CleanupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        verdict::tell(self);
        self.first.error()
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

/// For [`Exit`](crate::Exit).
impl AsRef<dyn Error + Send + Sync> for CleanupError {
    fn as_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }
}
