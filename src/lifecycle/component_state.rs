//! [`ComponentState`]: how far a component has come.

use std::fmt;

/// How far a component has come; the order of the variants is the order in which they follow.
///
/// It prints as one word in lower case.
///
/// # Examples
///
/// ```
/// use taskgroup::lifecycle::ComponentState;
///
/// assert_eq!(ComponentState::ForceStopped.to_string(), "force-stopped");
/// assert!(ComponentState::Running < ComponentState::Draining);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// It has ended by itself after it was told to, or had nothing left to do.
    Stopped,
    /// It failed, panicked or ended before it was told to, or was not ready in time.
    Crashed,
    /// It had not ended when its time was up and was cut.
    ForceStopped,
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
}

impl ComponentState {
    /// Returns whether the component has been started and has ended, in whatever way.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskgroup::lifecycle::ComponentState;
    ///
    /// assert!(ComponentState::Crashed.is_over());
    /// assert!(!ComponentState::Draining.is_over());
    /// assert!(!ComponentState::Created.is_over(), "it has never begun");
    /// ```
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Stopped | Self::Crashed | Self::ForceStopped)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Crashed => "crashed",
            Self::ForceStopped => "force-stopped",
        }
    }
}

impl ComponentStatus {
    pub(crate) fn new(component: impl Into<String>, state: ComponentState) -> Self {
        Self {
            component: component.into(),
            state,
        }
    }
}

impl fmt::Display for ComponentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
