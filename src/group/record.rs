//! What went wrong in a group, in order, and why it was cancelled.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cause::Cause;
use crate::error::TaskError;

/// The first failure is told apart from the later ones only when they are handed over: until then it
/// is simply the first in a list.
#[derive(Debug)]
pub(super) struct Record<E> {
    cause: Option<Cause>,
    failures: Vec<Recorded<E>>,
    /// Whether the owner is gone, so that nobody will ask for failures here.
    orphaned: bool,
}

/// A failure with the moment in which it happened, among all failures of the process: those of a
/// group and of the groups below it are put in one order.
#[derive(Debug)]
pub(super) struct Recorded<E> {
    moment: u64,
    error: TaskError<E>,
}

impl<E> Recorded<E> {
    pub(super) fn now(error: TaskError<E>) -> Self {
        static MOMENTS: AtomicU64 = AtomicU64::new(0);
        let moment = MOMENTS.fetch_add(1, Ordering::Relaxed);
        Self { moment, error }
    }
}

impl<E> Record<E> {
    pub(super) fn new() -> Self {
        Self {
            cause: None,
            failures: Vec::new(),
            orphaned: false,
        }
    }

    pub(super) fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// Keeps the cause unless there is one, and returns whether it was kept.
    pub(super) fn set_cause(&mut self, cause: Cause) -> bool {
        let first = self.cause.is_none();
        if first {
            self.cause = Some(cause);
        }
        first
    }

    /// Keeps failures, or gives them back if nobody will ask for them here.
    pub(super) fn keep(&mut self, mut failures: Vec<Recorded<E>>) -> Vec<Recorded<E>> {
        if !self.orphaned {
            self.failures.append(&mut failures);
        }
        failures
    }

    pub(super) fn take(&mut self) -> Vec<Recorded<E>> {
        std::mem::take(&mut self.failures)
    }

    /// Takes the failures, and will keep none from now on.
    pub(super) fn orphan(&mut self) -> Vec<Recorded<E>> {
        self.orphaned = true;
        self.take()
    }
}

/// Puts failures in order, and the later ones into the first.
pub(super) fn first_of<E>(mut failures: Vec<Recorded<E>>) -> Option<TaskError<E>> {
    failures.sort_by_key(|recorded| recorded.moment);
    let mut errors = failures.into_iter().map(|recorded| recorded.error);
    let mut first = errors.next()?;
    first.suppress(errors.collect());
    Some(first)
}
