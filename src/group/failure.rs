//! A [`Failure`] is the failed end of a task, a server or a child, with its error or its panic.

use std::error::Error;

use crate::BoxError;
use crate::group::cancelled::Cancelled;
use crate::group::end::End;
use crate::group::panic::Panic;

/// How to look at an `E` as an error. A group stores this function when it is made.
///
/// It is a function pointer, because coherence rejects a blanket impl over both `E: Error` and report
/// types such as `anyhow::Error`, which do not implement `Error`.
pub(crate) type View<E> = fn(&E) -> &(dyn Error + 'static);

/// An [`End`] that is a failure, with what belongs to it. The names are those of the `End`.
///
/// Groups, servers and supervisors all use it. Their errors add the subject.
#[derive(Debug)]
pub(crate) enum Failure<E = BoxError> {
    /// It returned this error.
    Failed(E),
    /// It panicked, or a destructor did while its future was being dropped.
    Panicked(Panic),
    /// It returned `Ok` although it should have run until it was told to stop.
    EndedEarly,
    /// It was dropped before it ended, and no caller asked for that. For example, its runtime shut down.
    Aborted,
}

impl<E> Failure<E> {
    pub(crate) fn end(&self) -> End {
        match self {
            Self::Failed(_) => End::Failed,
            Self::Panicked(_) => End::Panicked,
            Self::EndedEarly => End::EndedEarly,
            Self::Aborted => End::Aborted,
        }
    }

    /// The error or the panic.
    pub(crate) fn why(&self, view: View<E>) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => Some(view(error)),
            Self::Panicked(panic) => Some(panic),
            Self::EndedEarly | Self::Aborted => None,
        }
    }

    /// Returns whether this error only says that the task was cancelled.
    pub(crate) fn is_cancellation(&self, view: View<E>) -> bool {
        matches!(self, Self::Failed(error) if Cancelled::is_behind(view(error)))
    }
}

impl Failure {
    /// The error or the panic.
    pub(crate) fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.why(|error| &**error)
    }
}
