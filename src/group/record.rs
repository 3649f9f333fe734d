//! What went wrong in a group, in order, and why it was cancelled.

use crate::cause::Cause;
use crate::error::TaskError;

/// The first failure is told apart from the later ones only when the record is taken: until then it
/// is simply the first in a list.
#[derive(Debug)]
pub(super) struct Record<E> {
    cause: Option<Cause>,
    failures: Vec<TaskError<E>>,
}

impl<E> Record<E> {
    pub(super) fn new() -> Self {
        Self {
            cause: None,
            failures: Vec::new(),
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

    pub(super) fn extend(&mut self, failure: Option<TaskError<E>>) {
        self.failures.extend(failure);
    }

    /// Takes the first failure, with the later ones inside; the cause stays.
    pub(super) fn take(&mut self) -> Option<TaskError<E>> {
        if self.failures.is_empty() {
            return None;
        }
        let mut failures = std::mem::take(&mut self.failures).into_iter();
        let mut first = failures.next()?;
        first.suppress(failures.collect());
        Some(first)
    }
}
