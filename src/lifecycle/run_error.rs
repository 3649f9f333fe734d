//! [`RunError`]: why a lifecycle did not run well.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::report::Report;
use crate::group::cause::Cause;
use crate::group::end::End;
use crate::group::verdict;
use crate::group::verdict::Ended;
use crate::lifecycle::plan::error::PlanError;

/// A lifecycle did not run well: it has no plan, it did not start, or its report is not clean.
///
/// The message names everything that went wrong, in its order. [`source`](Error::source) is what is
/// behind the first of it. All of it, with all sources, is in the [report](Self::report).
///
/// # Examples
///
/// See [`Lifecycle::start`](super::Lifecycle::start) and [`Report::into_result`].
#[derive(Clone, Debug)]
pub struct RunError {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Plan(PlanError),
    Report(Arc<Report>),
}

impl RunError {
    /// Returns the report; `None` if there was no plan, so that nothing has been started.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        match &self.kind {
            Kind::Plan(_) => None,
            Kind::Report(report) => Some(report),
        }
    }

    /// Returns why there was no plan, if that is the reason.
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
    /// Names all that went wrong.
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

    /// What went wrong, here and in the nested lifecycles, in words.
    fn faults(&self) -> Vec<String> {
        let errors = self.errors.iter().map(ToString::to_string);
        let cleanup = self.cleanup.iter();
        let steps = cleanup.flat_map(|cleanup| cleanup.failures().map(ToString::to_string));
        let mut faults: Vec<_> = errors.chain(steps).collect();
        if faults.is_empty() {
            faults.extend(self.nested.iter().flat_map(Self::faults));
        }
        if faults.is_empty() && self.was_forced() {
            faults.push("had to be forced".to_owned());
        }
        faults
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
        let report = match &self.kind {
            Kind::Plan(error) => return error.fmt(f),
            Kind::Report(report) => report,
        };
        write!(f, "lifecycle `{}`: ", report.name)?;
        let faults = report.faults();
        match &report.cause {
            _ if !faults.is_empty() => f.write_str(&faults.join("; ")),
            Cause::Requested(request) if request.reason().is_none() => {
                f.write_str("was stopped before it was ready")
            }
            cause => write!(f, "was stopped before it was ready: {cause}"),
        }
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        verdict::tell(self);
        self.report()?.first_error()?.source()
    }
}

impl Ended for RunError {
    /// How the first of all that went wrong has ended; a timeout gives way to any other failure.
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

/// What [`Exit`](crate::Exit) takes.
impl AsRef<dyn Error + Send + Sync> for RunError {
    fn as_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }
}
