//! [`ComponentState`]: how far a component has come.

use std::fmt;

use crate::group::end::End;

/// How far a component has come, in the order of the variants.
///
/// It prints as one or two words in lower case. A component that has ended prints its end.
///
/// # Examples
///
/// ```
/// use taskgroup::End;
/// use taskgroup::lifecycle::ComponentState;
///
/// assert_eq!(ComponentState::Draining.to_string(), "draining");
/// assert_eq!(ComponentState::Ended(End::TimedOut).to_string(), "timed out");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ComponentState {
    /// It is part of the plan but has not been started.
    Created,
    /// It has been started but is not ready yet.
    Starting,
    /// It is ready.
    Running,
    /// It has been told to drain or to stop but has not ended yet.
    Draining,
    /// It has ended, or has been given up.
    ///
    /// - [`Done`](End::Done) means that it ended by itself, after it was told to, or with nothing
    ///   left to do.
    /// - [`Failed`](End::Failed), [`Panicked`](End::Panicked) and [`EndedEarly`](End::EndedEarly)
    ///   mean what they say. A component that was not ready in time has failed.
    /// - [`TimedOut`](End::TimedOut) and [`StillRunning`](End::StillRunning) mean that it had not
    ///   ended when its time was up, whatever it had done before.
    /// - [`Aborted`](End::Aborted) means that its lifecycle or its runtime was dropped.
    /// - [`Skipped`](End::Skipped) means that it was never started, and never will be.
    Ended(End),
}

/// A component and how far it has come, as plain data.
///
/// # Examples
///
/// See [`Report`](super::Report).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ComponentStatus {
    /// The name of the component.
    pub component: String,
    /// How far it has come.
    pub state: ComponentState,
    /// Why it was skipped. Empty if it was not.
    pub message: String,
}

impl ComponentState {
    /// Returns how the component ended, or `None` if it has not.
    ///
    /// A component that will never begin has [`End::Skipped`].
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::End;
    /// use taskgroup::lifecycle::ComponentState;
    ///
    /// assert_eq!(ComponentState::Ended(End::Failed).end(), Some(End::Failed));
    /// assert_eq!(ComponentState::Draining.end(), None);
    /// ```
    #[must_use]
    pub fn end(self) -> Option<End> {
        match self {
            Self::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// Whether it has come at least this far, however it ended.
    pub(super) fn has_reached(self, state: Self) -> bool {
        self.rank() >= state.rank()
    }

    fn rank(self) -> u8 {
        match self {
            Self::Created => 0,
            Self::Starting => 1,
            Self::Running => 2,
            Self::Draining => 3,
            Self::Ended(_) => 4,
        }
    }
}

impl ComponentStatus {
    pub(crate) fn new(component: impl Into<String>, state: ComponentState) -> Self {
        Self {
            component: component.into(),
            state,
            message: String::new(),
        }
    }
}

impl fmt::Display for ComponentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Ended(end) => return end.fmt(f),
        })
    }
}
