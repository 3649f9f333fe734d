//! [`Run`]: a started lifecycle.

use std::fmt;
use std::sync::Arc;

mod machine;
mod traits;
mod slot;
mod critical;
mod ledger;
mod waiting;
mod herald;
pub(super) mod engine;

use super::handle::Handle;
use super::report::Report;
use crate::group::AbortOnDrop;

/// A lifecycle whose components have all become ready. [`Lifecycle::start`](super::Lifecycle::start) makes
/// it.
///
/// It runs in its own task, and stops like any other lifecycle: on a trigger, by a call on a
/// [handle](Self::handle), or when a component fails.
///
/// # Drop
///
/// Dropping it aborts all components at once, in no order, like dropping the future of
/// [`Lifecycle::run`](super::Lifecycle::run). A warning in the log names them. Their tasks are gone once
/// the runtime has dropped them. Dropping it after the end of the run has no effect.
///
/// # Examples
///
/// See [`Lifecycle::start`](super::Lifecycle::start).
#[must_use = "a run that is dropped is aborted"]
pub struct Run {
    handle: Handle,
    _task: AbortOnDrop,
}

impl Run {
    pub(super) fn new(handle: Handle, task: AbortOnDrop) -> Self {
        Self {
            handle,
            _task: task,
        }
    }

    /// Returns a handle that observes and stops the run from anywhere. The handle does not own the run.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until the run has ended, and returns the report.
    ///
    /// # Panics
    ///
    /// If the runtime of the run was shut down before the end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, and can be called again. Dropping the future loses nothing, and the run goes on.
    pub async fn wait(&mut self) -> Report {
        let report = self.handle.report().await;
        report.map_or_else(|| self.is_lost(), Arc::unwrap_or_clone)
    }

    /// Stops the run for this reason, waits until it has ended, and returns the report.
    ///
    /// Equivalent to [`Handle::stop`] and then [`wait`](Self::wait).
    ///
    /// # Panics
    ///
    /// If the runtime of the run was shut down before the end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the run, see [Drop](#drop).
    pub async fn stop(mut self, reason: impl Into<crate::group::StopRequest>) -> Report {
        self.handle.stop(reason);
        self.wait().await
    }

    /// Stops the run without jitter and lame duck, waits until it has ended, and returns the report.
    ///
    /// Equivalent to [`Handle::stop_now`] and then [`wait`](Self::wait).
    ///
    /// # Panics
    ///
    /// If the runtime of the run was shut down before the end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the run, see [Drop](#drop).
    pub async fn stop_now(mut self, reason: impl Into<crate::group::StopRequest>) -> Report {
        self.handle.stop_now(reason);
        self.wait().await
    }

    /// Aborts what is left, waits until the run has ended, and returns the report.
    ///
    /// Equivalent to [`Handle::force`] and then [`wait`](Self::wait). Unlike a drop, it joins the aborted
    /// components, runs the cleanup, and reports what was forced.
    ///
    /// # Panics
    ///
    /// If the runtime of the run was shut down before the end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the run, see [Drop](#drop).
    pub async fn force(mut self, reason: impl Into<crate::group::StopRequest>) -> Report {
        self.handle.force(reason);
        self.wait().await
    }

    fn is_lost(&self) -> Report {
        panic!("{:?} was dropped with its runtime", self.handle)
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Run").field(&self.handle).finish()
    }
}
