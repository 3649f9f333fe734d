//! The exit status of a lifecycle, from its report.

#[cfg(test)]
mod tests;

use std::error::Error;

use crate::group::end::End;
use crate::group::verdict;
use crate::lifecycle::Report;

use super::Exit;
use super::ExitPolicy;
use super::signal_of;

impl ExitPolicy {
    /// Decides how the process ends from `report`, the report of a [lifecycle](crate::lifecycle).
    ///
    /// | what the report tells | row |
    /// |---|---|
    /// | all went well | a signal, a request, or all tasks done |
    /// | a component failed, or was not ready in time | failed |
    /// | a component panicked | panicked |
    /// | a component ended before it was ready, or before it was told to | ended early |
    /// | a component was lost with its runtime | aborted |
    /// | a component, a server or a step of the cleanup ran out of time | timed out |
    /// | a step of the cleanup failed or panicked | failed, panicked |
    ///
    /// The error of a component's task decides where it tells more than the component. For example, a
    /// component that failed to stop because its server timed out has timed out. Nested lifecycles count with
    /// their parent, and all cleanups after all components.
    ///
    /// Stderr gets a line for each error, not the whole report.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::{Component, Lifecycle};
    /// use taskgroup::process::ExitPolicy;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), taskgroup::BoxError> {
    /// let job = Component::job("migrate", |_| async { Err("no table".into()) });
    /// let report = Lifecycle::new("orders").component(job).run().await?;
    /// let exit = ExitPolicy::strict().failed(70).exit_of(&report);
    /// assert_eq!(exit.code(), 70);
    /// assert_eq!(exit.to_string(), "error: component `migrate` did not start: no table");
    /// # Ok(())
    /// # }
    /// ```
    pub fn exit_of(&self, report: &Report) -> Exit {
        let exit = self.decide(report).noted();
        let verdict = report.verdict();
        Exit { verdict, ..exit }
    }

    fn decide(&self, report: &Report) -> Exit {
        let signal = signal_of(Some(report.cause.clone()));
        if report.is_clean() {
            return self.clean(Some(&report.cause));
        }
        let errors = report.all_errors();
        let failures: Vec<_> = errors
            .iter()
            .flat_map(|error| verdict::failures_of(&**error))
            .collect();
        if failures.is_empty() {
            return Exit {
                status: self.code_of(End::TimedOut, signal.is_some()),
                report: format!("error: `{}` was forced", report.name),
                verdict: String::new(),
                raise: None,
            };
        }
        self.failure(&failures, signal.is_some())
    }
}

/// Takes what the lifecycle's [`run`](crate::lifecycle::Lifecycle::run) returns, or a function that runs a
/// lifecycle after other calls with `?`.
impl<X> From<Result<Report, X>> for Exit
where
    X: AsRef<dyn Error + Send + Sync>,
{
    fn from(result: Result<Report, X>) -> Self {
        match result {
            Ok(report) => Self::from(&report),
            Err(error) => Self::from(Err::<(), _>(error)),
        }
    }
}

impl From<&Report> for Exit {
    fn from(report: &Report) -> Self {
        ExitPolicy::in_force().exit_of(report)
    }
}

impl From<Report> for Exit {
    fn from(report: Report) -> Self {
        Self::from(&report)
    }
}
