//! [`Phase`]: components that are stopped before those of the next phase.

use std::borrow::Cow;
use std::time::Duration;

/// A phase of a stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lifecycle) struct Phase {
    name: Cow<'static, str>,
    budget: Option<Duration>,
}

impl Phase {
    /// Makes a phase, with or without a budget of its own.
    pub(in crate::lifecycle) fn new(
        name: impl Into<Cow<'static, str>>,
        budget: impl Into<Option<Duration>>,
    ) -> Self {
        Self {
            name: name.into(),
            budget: budget.into(),
        }
    }

    pub(in crate::lifecycle) fn name(&self) -> &str {
        &self.name
    }

    /// How long its components may take together, if the phase has a budget of its own.
    pub(in crate::lifecycle) const fn budget(&self) -> Option<Duration> {
        self.budget
    }
}
