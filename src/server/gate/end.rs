//! The common end of all servers behind the gate.

use std::borrow::Cow;
use std::time::Duration;

use super::options::Cuts;
use super::sequence::Plan;
use crate::BoxError;
use crate::group::log;
use crate::server::drain::{Counts, DrainReport};
use crate::server::sidecar::error::SidecarError;

/// How a server ended.
#[derive(Debug)]
pub(crate) enum Outcome<R> {
    /// It returned before it was asked to stop.
    Early(R),
    /// It was stopped. `Some` if it returned, and `None` if it had to be dropped.
    Stopped(Counts, Option<R>),
}

pub(crate) type OnReport = Box<dyn FnOnce(&DrainReport) + Send>;

/// Returns the timeout as a limit, or `None` if it is unlimited.
pub(crate) fn limited(timeout: Duration) -> Option<Duration> {
    (timeout < Duration::MAX).then_some(timeout)
}

/// Turns the end of a server into its result, after a call with the report.
pub(crate) fn conclude<E: Into<BoxError>>(
    name: Cow<'static, str>,
    plan: &Plan,
    cuts: Cuts,
    on_report: Option<OnReport>,
    outcome: Outcome<Result<(), E>>,
) -> Result<(), SidecarError> {
    let grace = plan.grace;
    let (counts, end) = match outcome {
        Outcome::Early(end) => {
            return Err(SidecarError::early(name, grace, end.map_err(Into::into)));
        }
        Outcome::Stopped(counts, end) => (counts, end),
    };
    let report = DrainReport::new(name.clone(), counts);
    if let Some(on_report) = on_report {
        on_report(&report);
    }
    if let Some(Err(error)) = end {
        return Err(SidecarError::failed_draining(name, grace, error.into()));
    }
    let is_over = report.is_over() && report.took() <= plan.bound();
    if report.is_clean() {
        log::guarded(|| tracing::info!(target: "taskgroup", "{report}"));
        Ok(())
    } else if cuts == Cuts::AreLogged && is_over {
        log::guarded(|| tracing::warn!(target: "taskgroup", "{report}"));
        Ok(())
    } else {
        Err(SidecarError::cut(name, grace, report))
    }
}
