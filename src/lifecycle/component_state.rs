//! [`ComponentState`]: how far a component has come.

use std::fmt;

use crate::group::end::End;

/// How far a component has come, in the order of the variants.
///
/// It prints as one or two words in lower case; a component that has ended prints its end.
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
    /// It is part of the plan and has not been started.
    Created,
    /// It has been started and is not ready yet.
    Starting,
    /// It is ready.
    Running,
    /// It has been told to drain or to stop and has not ended yet.
    Draining,
    /// It has ended, or has been given up.
    ///
    /// - [`Done`](End::Done): by itself, after it was told to or with nothing left to do.
    /// - [`Failed`](End::Failed), [`Panicked`](End::Panicked), [`EndedEarly`](End::EndedEarly): so, or it
    ///   was not ready in time.
    /// - [`TimedOut`](End::TimedOut), [`StillRunning`](End::StillRunning): it had not ended when its time
    ///   was up, whatever it had done before.
    /// - [`Aborted`](End::Aborted): with its lifecycle or its runtime.
    /// - [`Skipped`](End::Skipped): it was never started, and never will be.
    Ended(End),
}

/// A component and how far it has come; plain data.
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
    /// Why it was skipped; empty if it was not.
    pub message: String,
}

impl ComponentState {
    /// Returns how the component ended, if it has ended or never will begin.
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
