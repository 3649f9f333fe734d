//! [`Report`]: what a lifecycle did.

mod timeline;
mod straggler;
mod text;
#[cfg(feature = "svg")]
mod svg;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::component_error::ComponentError;
use super::component_state::ComponentStatus;
use crate::BoxError;
use crate::cleanup::CleanupReport;
use crate::cleanup::StepReport;
use crate::group::cause::Cause;
use crate::group::end::End;

pub use self::straggler::Straggler;
pub use self::timeline::TimelineStep;

/// What a lifecycle did: why it stopped, what went wrong, and when each step was done. Plain data.
///
/// The exit status follows from it, see [`ExitPolicy::exit_of`](crate::process::ExitPolicy::exit_of).
///
/// # What it prints
///
/// The text begins with a verdict on one line and a row for each step, with a `!` before the steps that
/// went wrong. Then come the errors, first one first, the tasks that were cut, and the steps of the cleanup
/// that were not done. The reports of nested lifecycles follow, indented.
///
/// ```text
/// orders: FORCED, stopped in 7.012s of 28s: received SIGTERM; 3 in flight
///   started 2 components in 120ms
///     0.000s  lame duck        |###############.....|  5.000s  done
///   ! 5.000s  stop       http  |..............######|  2.002s  timed out after 2s
///     7.002s  stop       db    |...................#|  0.010s  done
/// error: component `http` did not stop within 2s and was forced
/// forced: component `http`: task `orders/http/conn` (src/main.rs:42) for 9.1s
/// ```
///
/// A row shows when the step began, counted from the begin of the stop, and then the step. A bar shows when
/// it ran within the stop. How long it took and how it ended follow. The steps of the start are a single
/// line, unless the start failed or was cut short. Then each has a row with a negative time, and the bar
/// begins with the first of them.
///
/// Times are cut to milliseconds, and line breaks are printed as spaces. Long names and results are cut
/// short in the rows, and the lines below the rows have the whole text. The same data always gives the same
/// text, without a line break at the end.
///
/// # Serialisation
///
/// With the feature `serde` it is `Serialize`, and so is everything that it contains. The fields keep their
/// names, with these differences, which suit a log pipeline:
///
/// - A duration is a number of seconds, in a field whose name ends in `_seconds`. [`Duration::MAX`], which
///   means no limit, is `null`.
/// - An enum without data is its name in snake case. The state of a component that has ended is the name of
///   its end: `"timed_out"`. A [`Cause`] and an [`Outcome`](crate::cleanup::Outcome) are objects with their
///   name as `kind`, and a `message`: `{"kind":"signal","message":"received SIGTERM"}`.
/// - A report also has `clean`, `forced` and `took_seconds`. An error also has its `end`, and as `text` the
///   whole line that it prints.
///
/// `tests/report.json` in the sources is a report with every word of the format.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::lifecycle::{Component, Lifecycle, StepKind};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), taskgroup::BoxError> {
/// let deaf = Component::new("deaf", |ctx| async move {
///     ctx.ready();
///     std::future::pending().await
/// });
/// let lifecycle = Lifecycle::new("orders").component(deaf.grace(Duration::from_secs(2)));
/// let handle = lifecycle.handle();
/// # tokio::spawn(async move { let _ = handle.ready().await; handle.stop("a deployment") });
/// let report = lifecycle.run().await?;
///
/// assert!(report.was_forced() && !report.is_clean());
/// assert_eq!(report.took(), Duration::from_secs(2));
/// let error = report.first_error().unwrap();
/// assert_eq!(error.to_string(), "component `deaf` did not stop within 2s and was forced");
/// assert!(error.is_forced() && error.task_error().is_none());
/// assert_eq!(report.stragglers[0].task.as_deref(), Some("orders/deaf/run"));
/// let stop = report.timeline.iter().find(|step| step.kind == StepKind::Stop).unwrap();
/// assert_eq!((&*stop.subject, stop.took()), ("deaf", Duration::from_secs(2)));
/// println!("{report}"); // a timeline
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The name of the lifecycle.
    pub name: String,
    /// The first cause of the stop.
    pub cause: Cause,
    /// What went wrong with components, in the order in which it happened.
    pub errors: Vec<ComponentError>,
    /// What was done, sorted by the begin of each step.
    pub timeline: Vec<TimelineStep>,
    /// The components in the order of the plan, each with its state.
    pub components: Vec<ComponentStatus>,
    /// The tasks that had to be cut.
    pub stragglers: Vec<Straggler>,
    /// How many requests and jobs were in flight when the stop began, as far as known.
    pub in_flight: usize,
    /// When the stop began, since the start of the run.
    pub stop_began: Duration,
    /// When the run ended, since its start.
    pub ended: Duration,
    /// The time that the stop was given. [`Duration::MAX`] means no limit.
    pub budget: Duration,
    /// What became of the steps of the cleanup, if there was one.
    pub cleanup: Option<CleanupReport>,
    /// The reports of the nested lifecycles, in the order of the plan.
    pub nested: Vec<Report>,
}

impl Report {
    /// Returns the first error of a component of this lifecycle.
    ///
    /// Returns `None` if no component failed. Steps of the cleanup that were not done are in
    /// [`cleanup`](Self::cleanup).
    ///
    /// # Examples
    ///
    /// See [`Report`].
    #[must_use]
    pub fn first_error(&self) -> Option<&ComponentError> {
        self.errors.first()
    }

    /// Returns whether the lifecycle and all nested lifecycles had no errors, forced nothing and had a
    /// clean cleanup.
    ///
    /// # Examples
    ///
    /// See [`Report`].
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let cleaned_up = self.cleanup.as_ref().is_none_or(CleanupReport::is_clean);
        self.errors.is_empty()
            && !self.was_forced()
            && cleaned_up
            && self.nested.iter().all(Self::is_clean)
    }

    /// Returns whether anything had to be cut or is still running, here or in a nested lifecycle. This may
    /// be a component, a server, or a step of the cleanup that ran out of time and was not best-effort.
    ///
    /// # Examples
    ///
    /// See [`Report`].
    #[must_use]
    pub fn was_forced(&self) -> bool {
        let mut components = self.components.iter();
        let mut steps = self.cleanup.iter().flat_map(CleanupReport::failures);
        !self.stragglers.is_empty()
            || self.errors.iter().any(ComponentError::is_forced)
            || components.any(|component| component.state.end().is_some_and(End::is_forced))
            || steps.any(StepReport::is_out_of_time)
            || self.nested.iter().any(Self::was_forced)
    }

    /// Returns how long the stop took.
    ///
    /// # Examples
    ///
    /// See [`Report`].
    #[must_use]
    pub fn took(&self) -> Duration {
        self.ended.saturating_sub(self.stop_began)
    }

    /// All errors, including those of nested lifecycles: components first, then the cleanups.
    pub(crate) fn all_errors(&self) -> Vec<BoxError> {
        let reports = self.with_nested();
        let cleanups = reports.iter().filter_map(|report| {
            let cleanup = report.cleanup.clone()?;
            cleanup.into_result().err().map(BoxError::from)
        });
        let components = reports.iter().flat_map(|report| &report.errors);
        components
            .map(|error| error.clone().into())
            .chain(cleanups)
            .collect()
    }

    /// This report and all that are nested in it, the outer ones first.
    fn with_nested(&self) -> Vec<&Self> {
        let nested = self.nested.iter().flat_map(Self::with_nested);
        std::iter::once(self).chain(nested).collect()
    }

    /// Whether there was a failure other than a lack of time.
    fn has_failed(&self) -> bool {
        let mut steps = self.cleanup.iter().flat_map(CleanupReport::failures);
        self.errors.iter().any(|error| !error.is_forced())
            || steps.any(|step| !step.is_out_of_time())
            || self.nested.iter().any(Self::has_failed)
    }
}
