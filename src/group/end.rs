//! An [`End`] says how something ended.

use std::fmt;

/// How a task, a server, a component or a cleanup step ended.
///
/// The whole crate uses this type for it. Each error has a method `end`, and says in its message which
/// task or server it was. [`ExitPolicy`](crate::process::ExitPolicy) has a row for each failure.
///
/// # Examples
///
/// ```
/// use taskgroup::{End, TaskGroup};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::new();
/// group.task("worker").essential().spawn(async { Ok(()) });
///
/// let error = group.wait().await.unwrap_err();
/// assert_eq!(error.end(), End::EndedEarly);
/// assert_eq!(error.end().to_string(), "ended early");
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum End {
    /// It did its work.
    Done,
    /// It returned an error, or could not be started.
    Failed,
    /// It panicked, or a destructor did while it was being dropped.
    Panicked,
    /// It returned `Ok` before it was told to stop, although it should have run until then.
    EndedEarly,
    /// It was dropped before it had ended, by its runtime or its owner, but not because of a time
    /// limit.
    Aborted,
    /// It had not ended when its time was up, and was aborted.
    TimedOut,
    /// It had not ended when its time was up, and could not be aborted.
    StillRunning,
    /// It never began, because it was refused, withdrawn or left out.
    Skipped,
}

impl End {
    /// Returns whether this is neither [`Done`](Self::Done) nor [`Skipped`](Self::Skipped).
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::End;
    ///
    /// assert!(End::Aborted.is_failure());
    /// assert!(!End::Skipped.is_failure());
    /// ```
    #[must_use]
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Done | Self::Skipped)
    }

    /// Returns whether it ran out of time, so that it was aborted or is still running.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::End;
    ///
    /// assert!(End::TimedOut.is_forced());
    /// assert!(!End::Aborted.is_forced());
    /// ```
    #[must_use]
    pub const fn is_forced(self) -> bool {
        matches!(self, Self::TimedOut | Self::StillRunning)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::EndedEarly => "ended early",
            Self::Aborted => "aborted",
            Self::TimedOut => "timed out",
            Self::StillRunning => "still running",
            Self::Skipped => "skipped",
        })
    }
}
