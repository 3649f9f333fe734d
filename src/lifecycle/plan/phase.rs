//! [`Phase`]: components that are stopped before those of the next phase.

use std::borrow::Cow;
use std::time::Duration;

/// A part of a stop: all components of a phase have ended before the first one of the next phase is told to
/// stop.
///
/// The phases of a lifecycle stop in the order in which they were added, and start in the reverse order.
/// Use them for an order between many components: stop everything that accepts, then everything that works,
/// then everything that stores. Between two components, a dependency is enough. A component without a phase
/// follows its dependencies alone. A phase may be empty.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use taskgroup::lifecycle::Phase;
///
/// let accept = Phase::new("accept").budget(Duration::from_secs(5));
/// assert_eq!(accept.name(), "accept");
/// assert_eq!(accept.budget_time(), Some(Duration::from_secs(5)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a phase does nothing until a lifecycle is given it"]
pub struct Phase {
    name: Cow<'static, str>,
    budget: Option<Duration>,
}

impl Phase {
    /// Makes a phase, without a budget of its own.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            budget: None,
        }
    }

    /// Sets how long the components of the phase may take together. By default only the budget of the whole
    /// stop limits them.
    ///
    /// On each chain of components of the phase that stop one after another, the graces add up to this time
    /// at most. The components that ask for no grace share what the others leave of it, and graces that do
    /// not fit are an error of the plan. A component without a phase that has to stop between two of this
    /// phase counts with them.
    ///
    /// The graces that components get in this phase are fixed for the budget of the whole stop. If the
    /// phase needs less than its budget, the rest goes to the other components.
    ///
    /// Zero leaves no time for a component that asks for no grace, which is an error of the plan.
    /// [`Duration::MAX`] means no limit.
    pub const fn budget(mut self, budget: Duration) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns how long its components may take together, if the phase has a budget of its own.
    #[must_use]
    pub const fn budget_time(&self) -> Option<Duration> {
        self.budget
    }
}
