//! [`RunError`]: why a lifecycle did not run well.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::report::Report;
use crate::cleanup::CleanupReport;
use crate::group::cause::Cause;
use crate::group::chain;
use crate::group::end::End;
use crate::group::verdict;
use crate::group::verdict::Ended;
use crate::lifecycle::plan::error::PlanError;

/// The error of a lifecycle that has no plan, did not start, or whose report is not clean.
///
/// The message names the first error and then the others, each with its reason.
/// [`source`](Error::source) is the reason of the first. `{:#}` prints each error with its reason
/// on one line, in order. The [report](Self::report) has all of them, with all sources.
///
/// # Examples
///
/// See [`Lifecycle::start`](super::Lifecycle::start) and [`Report::into_result`].
#[derive(Clone)]
pub struct RunError {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Plan(PlanError),
    Report(Arc<Report>),
}

/// A failure and its reason.
type Fault<'a> = (String, Option<&'a (dyn Error + 'static)>);

impl RunError {
    /// Returns the report. `None` if the plan was invalid and nothing was started.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        match &self.kind {
            Kind::Plan(_) => None,
            Kind::Report(report) => Some(report),
        }
    }

    /// Returns the error of the plan, if that is the reason.
    #[must_use]
    pub fn plan_error(&self) -> Option<&PlanError> {
        match &self.kind {
            Kind::Plan(error) => Some(error),
            Kind::Report(_) => None,
        }
    }
}

impl Report {
    /// Returns `Ok` if the report is [clean](Self::is_clean).
    ///
    /// # Errors
    ///
    /// Returns an error that names every failure.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Component, Lifecycle};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let locked = || async { Err("locked".into()) };
    /// let report = Lifecycle::new("orders")
    ///     .component(Component::job("migrate", move |_| locked()))
    ///     .component(Component::job("index", move |_| locked()))
    ///     .run()
    ///     .await?;
    /// let error = report.into_result().unwrap_err().to_string();
    /// assert!(error.contains("component `migrate`") && error.contains("component `index`"), "{error}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_result(self) -> Result<(), RunError> {
        if self.is_clean() {
            return Ok(());
        }
        Err(self.into())
    }

    /// The failures here or, without any, in the nested lifecycles.
    fn faults(&self) -> Vec<Fault<'_>> {
        let errors = self.errors.iter().map(|error| (error.what(), error.why()));
        let steps = self.cleanup.iter().flat_map(CleanupReport::failures);
        let mut faults: Vec<_> = errors
            .chain(steps.map(|step| (step.what(), step.error())))
            .collect();
        if faults.is_empty() {
            faults.extend(self.nested.iter().flat_map(Self::faults));
        }
        if faults.is_empty() && self.was_forced() {
            faults.push(("had to be forced".to_owned(), None));
        }
        faults
    }

    /// The first failure, with the name of the lifecycle, and all others with their reasons.
    fn first_and_others(&self) -> (Fault<'_>, Vec<String>) {
        let mut faults = self.faults().into_iter();
        let (what, why) = faults.next().unwrap_or_else(|| {
            let what = match &self.cause {
                Cause::Requested(request) if request.reason().is_none() => {
                    "was stopped before it was ready".to_owned()
                }
                cause => format!("was stopped before it was ready: {cause}"),
            };
            (what, None)
        });
        let others = faults.map(|(what, why)| chain::line(&what, why)).collect();
        ((format!("lifecycle `{}`: {what}", self.name), why), others)
    }
}

impl From<Report> for RunError {
    fn from(report: Report) -> Self {
        let kind = Kind::Report(Arc::new(report));
        Self { kind }
    }
}

impl From<PlanError> for RunError {
    fn from(error: PlanError) -> Self {
        let kind = Kind::Plan(error);
        Self { kind }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Plan(error) => fmt::Display::fmt(error, f),
            Kind::Report(report) => {
                let ((what, why), others) = report.first_and_others();
                chain::show_all(f, &what, why, others)
            }
        }
    }
}

impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Plan(error) => fmt::Debug::fmt(error, f),
            Kind::Report(report) if f.alternate() => {
                f.debug_tuple("RunError").field(report).finish()
            }
            Kind::Report(report) => {
                let ((what, why), others) = report.first_and_others();
                chain::explain(f, &what, why, others)
            }
        }
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        verdict::tell(self);
        self.report()?.first_and_others().0.1
    }
}

impl Ended for RunError {
    /// How the component with the first failure has ended. A timeout gives way to any other
    /// failure.
    fn end(&self) -> End {
        let Some(report) = self.report() else {
            return End::Failed;
        };
        let errors = report.all_errors();
        let failures: Vec<_> = errors
            .iter()
            .flat_map(|error| verdict::failures_of(&**error))
            .collect();
        match verdict::decisive(&failures) {
            Some((end, _)) => end,
            None if report.was_forced() => End::TimedOut,
            None => End::Failed,
        }
    }

    fn cause(&self) -> Option<&Cause> {
        self.report().map(|report| &report.cause)
    }

    fn as_error(&self) -> &(dyn Error + 'static) {
        self
    }
}

/// Lets [`Exit`](crate::Exit) take the error.
impl AsRef<dyn Error + Send + Sync> for RunError {
    fn as_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }
}
