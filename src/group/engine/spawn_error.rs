//! A [`SpawnError`] reports a refused spawn and contains the refused future.

use std::fmt;

/// The error of a refused spawn. It gives the future back, never polled.
///
/// # Examples
///
/// ```
/// use taskgroup::TaskGroup;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut group = TaskGroup::builder().name("resize").limit(1).build().unwrap();
/// group.spawn(async { Ok(()) });
///
/// let error = group.try_spawn(async { Ok("later") }).unwrap_err();
/// assert!(error.is_full());
/// let later = error.into_future();
///
/// group.wait().await?;
/// assert_eq!(later.await?, "later");
/// # Ok::<_, taskgroup::BoxError>(())
/// # }).unwrap();
/// ```
pub struct SpawnError<F> {
    reason: Reason,
    future: F,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Full,
    Closed,
    Cancelled,
    Deadlock,
}

impl<F> SpawnError<F> {
    pub(crate) fn full(future: F) -> Self {
        Self {
            reason: Reason::Full,
            future,
        }
    }

    pub(crate) fn closed(future: F) -> Self {
        Self {
            reason: Reason::Closed,
            future,
        }
    }

    pub(crate) fn cancelled(future: F) -> Self {
        Self {
            reason: Reason::Cancelled,
            future,
        }
    }

    pub(crate) fn deadlock(future: F) -> Self {
        Self {
            reason: Reason::Deadlock,
            future,
        }
    }

    /// Returns whether all slots of the group were taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.reason == Reason::Full
    }

    /// Returns whether the group was closed by a call, by the end of a wait, or by the drop of its
    /// owner.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.reason == Reason::Closed
    }

    /// Returns whether the group was cancelled while the caller waited for a slot.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.reason == Reason::Cancelled
    }

    /// Returns whether the caller would have waited for itself. Then each slot of the group is held by
    /// a task that waits for a slot of the group, and the caller is one of these tasks.
    #[must_use]
    pub fn is_deadlock(&self) -> bool {
        self.reason == Reason::Deadlock
    }

    /// Returns the future, never polled.
    #[must_use]
    pub fn into_future(self) -> F {
        self.future
    }
}

impl<F> fmt::Display for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            Reason::Full => "the group is full",
            Reason::Closed => "the group is closed",
            Reason::Cancelled => "the group was cancelled before a slot was free",
            Reason::Deadlock => {
                "each slot of the group is held by a task that waits for a slot: it would wait for itself"
            }
        })
    }
}

impl<F> fmt::Debug for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f
                .debug_struct("SpawnError")
                .field("reason", &self.reason)
                .finish_non_exhaustive();
        }
        fmt::Display::fmt(self, f)
    }
}

impl<F> std::error::Error for SpawnError<F> {}
